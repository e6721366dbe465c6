from __future__ import annotations

import pytest
import torch

from mmalign.encoders.tuning import load_tower
from mmalign.encoders.tuning.anatomy import examine
from mmalign.errors import ConfigError

KINDS = ["bert", "dinov2", "siglip", "timm", "clip-text", "clip-image", "clip-hf-text"]


def learning(tower) -> set[str]:
    return {name for name, p in tower.named_parameters() if p.requires_grad}


def grouped(tower) -> set[str]:
    chosen = {id(p) for group in tower.trainable().values() for p in group}
    return {name for name, p in tower.named_parameters() if id(p) in chosen}


@pytest.mark.parametrize("mode", ["frozen", "head", "last_n", "lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_what_is_named_trains(kind, mode, encoders, values, train, tune):
    dim = None if "clip" in kind or mode == "frozen" else 6
    tower = load_tower(encoders[kind], tune(mode=mode, dim=dim))
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    assert learning(tower) == grouped(tower)
    assert sorted(tower.trainable()) == ["projection", "trunk", "whole"]
    if mode == "frozen":
        assert learning(tower) == set()
        return
    train(tower, values(tower), rate=0.5)
    changed = {n for n, v in tower.state_dict().items() if not torch.allclose(v, before[n], atol=0)}
    parameters = {name for name, _ in tower.named_parameters()}
    drifted = changed & parameters - learning(tower)
    if mode == "lora":  # peft adds products to attention's weights and takes them off again
        assert all(torch.allclose(tower.state_dict()[n], before[n], atol=1e-6) for n in drifted)
    else:
        assert not drifted
    # A parameter may have a gradient of zero, such as the bias of keys.
    assert len(changed & learning(tower)) > 0.7 * len(learning(tower))
    if mode != "full":
        assert not {n for n in changed - parameters if "running" in n and mode != "last_n"}
    assert bool(tower.trainable()["trunk"]) == (mode != "head")
    assert tower.trainable()["projection"]


def test_parts_that_the_rows_do_not_depend_on_are_never_trained(encoders, tune):
    bert = learning(load_tower(encoders["bert"], tune()))
    assert any("encoder.layer.1" in name for name in bert)
    assert not any("pooler" in name for name in bert)
    siglip = learning(load_tower(encoders["siglip"], tune()))
    assert any("vision_model" in name for name in siglip)
    assert not any("text_model" in name or "logit" in name for name in siglip)
    clip = learning(load_tower(encoders["clip-hf-text"], tune()))
    assert not any("logit" in name for name in clip)


LAST = {
    "bert": ({"encoder.layer.1."}, 16),
    "dinov2": ({"encoder.layer.1.", "layernorm."}, None),
    "clip-text": ({"resblocks.0.", "ln_final."}, None),
    "clip-image": ({"resblocks.0.", "ln_post."}, None),
    "clip-hf-text": ({"resblocks.0.", "ln_final."}, None),
    "timm": ({"blocks.", "conv_head.", "bn2."}, None),
}


@pytest.mark.parametrize("kind", LAST)
def test_last_n_trains_the_last_blocks_and_what_follows_them(kind, encoders, tune):
    tower = load_tower(encoders[kind], tune(mode="last_n"))
    parts, count = LAST[kind]
    head = {id(p) for p in tower.trainable()["projection"]}
    names = {n for n, p in tower.named_parameters() if p.requires_grad and id(p) not in head}
    assert all(any(part in name for name in names) for part in parts)
    assert all(any(part in name for part in parts) for name in names)
    assert count is None or len(names) == count


@pytest.mark.parametrize(
    ("name", "blocks", "after"),
    [
        ("resnet10t", 4, set()),
        ("tf_efficientnet_lite0", 16, {"conv_head", "bn2"}),
        ("test_convnext", 9, {"head"}),
        ("test_vit", 6, {"norm"}),
        ("mobilenetv3_small_050", 12, {"conv_head"}),
    ],
)
def test_blocks_are_found_through_all_stages_of_a_network(name, blocks, after):
    import timm

    model = timm.create_model(name, num_classes=0)
    size = model.pretrained_cfg["input_size"] if "vit" in name else (3, 64, 64)
    anatomy = examine(model, torch.zeros(1, *size))
    assert len(anatomy.blocks) == blocks
    names = {n for n, m in model.named_modules() if m in set(anatomy.after)}
    assert {n.rpartition(".")[2] for n in names} >= after
    assert not any(n.startswith(("blocks", "stages.0", "patch", "conv_stem")) for n in names)
    assert not any(p.requires_grad is False for p in model.parameters())


def test_more_blocks_than_there_are(bert_folder, tune):
    assert learning(load_tower(bert_folder, tune(mode="last_n", last_n=2)))
    for count in (3, 0):
        with pytest.raises(ConfigError, match=rf"has 2 blocks \(got 'last_n={count}'"):
            load_tower(bert_folder, tune(mode="last_n", last_n=count))


def test_wrong_modes(bert_folder, tune):
    with pytest.raises(ConfigError, match="did you mean 'full'"):
        load_tower(bert_folder, tune(mode="ful"))
    with pytest.raises(ConfigError, match="head trains a projection, and this tower has none"):
        load_tower(bert_folder, tune(mode="head"))
    with pytest.raises(ConfigError, match="no use for a new projection"):
        load_tower(bert_folder, tune(mode="frozen", dim=4))


@pytest.mark.parametrize("mode", ["frozen", "head", "last_n", "lora", "full"])
def test_frozen_batch_norms_stay_as_they_were_pretrained(mode, timm_folder, pictures, tune):
    dim = None if mode == "frozen" else 4
    tower = load_tower(timm_folder, tune(mode=mode, dim=dim)).train()
    norms = [m for m in tower.trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    tower(tower.collate(pictures, training=False).inputs)
    moved = [not torch.equal(n.running_mean, old) for n, old in zip(norms, before, strict=True)]
    assert moved == [norm.weight.requires_grad for norm in norms]
    assert all(moved) == (mode == "full")
    assert any(moved) == (mode in ("last_n", "full"))
    assert not any(norm.training for norm in tower.eval().trunk.modules())


def test_dropout_is_off_in_frozen_parts(bert_folder, tune):
    def same(mode: str, **more: object) -> bool:
        tower = load_tower(bert_folder, tune(mode=mode, **more)).train()
        inputs = tower.collate(["a red cup of tea"] * 4, training=True).inputs
        return torch.equal(tower(inputs), tower(inputs))

    assert same("frozen")
    assert same("head", dim=4)
    assert not same("last_n")
    assert not same("lora")
    assert not same("full")
    last = load_tower(bert_folder, tune(mode="last_n")).train()
    on = {n for n, m in last.named_modules() if isinstance(m, torch.nn.Dropout) and m.training}
    assert on
    assert all("layer.1." in name for name in on)
