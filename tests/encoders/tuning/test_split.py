from __future__ import annotations

import pytest
import torch
from torch import nn

from mmalign.encoders.tuning import load_tower
from mmalign.encoders.tuning.split import Split
from mmalign.errors import ConfigError

KINDS = ["dinov2", "siglip", "timm", "clip-image"]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [*((kind, "last_n") for kind in KINDS), *((kind, "head") for kind in KINDS[:-1])],
)
def test_both_parts_give_what_the_whole_gives(kind, mode, encoders, values, tune):
    dim = None if kind == "clip-image" else 4
    torch.manual_seed(0)
    tower = load_tower(encoders[kind], tune(mode=mode, last_n=1, dim=dim, views=2)).train()
    inputs = tower.collate(values(tower), training=False).inputs
    gradients = []
    for given in (inputs, {"hidden": tower.lower(inputs)}):
        tower.zero_grad()
        rows = tower(given)
        rows.square().sum().backward()
        gradients.append([rows.detach(), *(p.grad for p in tower.parameters() if p.requires_grad)])
    assert len(gradients[0]) > 1
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-3)
    assert tower.training


def test_the_lower_part_runs_as_it_was_pretrained(encoders, values, tune):
    tower = load_tower(encoders["timm"], tune(mode="last_n", last_n=1, views=1)).train()
    inputs = tower.collate(values(tower), training=False).inputs
    torch.testing.assert_close(tower.lower(inputs)[:2], tower.lower(inputs[:2]))


def test_lora_in_upper_blocks_leaves_a_lower_part(encoders, values, tune):
    tower = load_tower(encoders["timm"], tune(mode="lora", targets=("blocks.1",), views=1)).train()
    inputs = tower.collate(values(tower), training=False).inputs
    torch.testing.assert_close(tower({"hidden": tower.lower(inputs)}), tower(inputs))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("timm", {"mode": "full"}),
        ("bert", {"mode": "last_n"}),
        ("clip-image", {"mode": "head"}),  # its own projection is the tower's last layer
        ("timm", {"mode": "lora", "targets": ("conv_stem", "conv_pw")}),
    ],
)
def test_views_need_pictures_and_a_frozen_part(kind, told, encoders, tune):
    with pytest.raises(ConfigError, match=r"views are of pictures.*views: 0"):
        load_tower(encoders[kind], tune(views=2, **told))


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.above(self.below(inputs)) + inputs


def test_a_tower_whose_upper_part_looks_further_down_is_refused():
    tower = Skips()
    with pytest.raises(ConfigError, match=r"cannot be split.*Skips.*views: 0"):
        Split(tower, tower.above, torch.zeros(1, 3))
