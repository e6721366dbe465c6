from __future__ import annotations

import pytest
import torch

from mmalign.encoders.tuning import load_tower
from mmalign.encoders.tuning.checkpointing import checkpoint_blocks
from mmalign.errors import ConfigError

KINDS = ["bert", "dinov2", "siglip", "timm", "clip-text", "clip-image", "clip-hf-text"]


KINDS_AND_MODES = [
    *((kind, "full") for kind in KINDS),
    ("bert", "lora"),
    ("clip-text", "lora"),
    ("dinov2", "last_n"),
    ("timm", "last_n"),
]


@pytest.mark.parametrize(("kind", "mode"), KINDS_AND_MODES)
def test_less_is_kept_and_no_gradient_changes(kind, mode, encoders, values, tune):
    runs = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        tower = load_tower(encoders[kind], tune(mode=mode, checkpointing=checkpointing)).train()
        kept: list[int] = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        inputs = tower.collate(values(tower), training=False).inputs
        torch.manual_seed(0)  # dropout included: the second pass draws what the first drew
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = tower(inputs).square().sum()
        loss.backward()
        gradients = {n: p.grad for n, p in tower.named_parameters() if p.grad is not None}
        runs.append((sum(kept), gradients, dict(tower.named_buffers())))
    (more, expected, buffers), (less, got, again) = runs
    assert less < more
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name], atol=1e-4, rtol=1e-3)
    for name, value in buffers.items():  # running statistics count the batch once
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(again[name], value)


def test_without_gradients_nothing_is_kept_or_run_twice(bert_folder, tune):
    tower = load_tower(bert_folder, tune(checkpointing=True)).train()
    plain = load_tower(bert_folder, tune())
    inputs = tower.collate(["a red cup", "tea"], training=False).inputs
    with torch.no_grad():
        torch.testing.assert_close(tower.eval()(inputs), plain(inputs))


def test_a_tower_without_blocks_says_so():
    with pytest.raises(ConfigError, match="no repeated blocks to checkpoint"):
        checkpoint_blocks([])


def test_a_frozen_trunk_has_nothing_to_checkpoint(bert_folder, tune):
    tower = load_tower(bert_folder, tune(mode="head", dim=4, checkpointing=True))
    assert tower(tower.collate(["tea"], training=True).inputs).shape == (1, 4)
