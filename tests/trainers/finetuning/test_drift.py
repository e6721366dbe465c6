"""Drift guards in training: what they are measured from, and how much they weigh."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from mmalign.errors import ConfigError
from mmalign.trainers.finetune import finetune

PAIRS = ("title", "notes")
SLOW = 1e-9
"""A learning rate that leaves towers where they were, so that each drift is known."""


@pytest.fixture
def run(shop, towers, told, tmp_path):
    """Train for one epoch, and give what was logged."""

    def train(rate=SLOW, **finetuning):
        own = copy.deepcopy(towers)
        for tower in own.values():
            tower.starts_anew = False
        config = told(1, text_pairs=PAIRS, learning_rate=rate, **finetuning)
        told_of = config.finetune
        slow = {m: replace(told_of.tower(m), learning_rate=rate, dim=None) for m in own}
        config = replace(config, finetune=replace(told_of, **slow))
        result = finetune(config, shop, own, folder=tmp_path, progress=False)
        return {p.name: p.value for p in result.curve}

    return train


@pytest.mark.parametrize("drift", ["features", "weights"])
@pytest.mark.parametrize("objective", ["text_pairs", "image_text", "behaviour"])
def test_a_tower_that_stays_has_no_drift(run, drift, objective):
    found = run(objectives={objective: 1.0}, drift=drift, drift_weight=100.0)
    assert found["train/drift"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("drift", ["features", "weights", "similarity"])
@pytest.mark.parametrize(
    "objectives",
    [{"image_text": 0.1}, {"image_text": 1.0, "behaviour": 1.0}, {"image_text": 3, "graph": 0.5}],
)
def test_a_drift_weighs_the_same_whatever_is_asked(run, drift, objectives, monkeypatch):
    """With a guard that is always 1, a step's drift is its weight times the towers."""
    from mmalign.trainers.finetuning import module

    def one(rows, *_):
        return torch.ones(()) + 0 * sum(r.sum() for r in rows)

    for name in ("feature_drift", "similarity_drift", "weight_drift"):
        monkeypatch.setattr(module, name, one)
    plain = run(objectives=objectives)
    found = run(objectives=objectives, drift=drift, drift_weight=5.0)
    assert found["train/drift"] == pytest.approx(5 if drift == "weights" else 10)
    assert found["train/loss"] == pytest.approx(
        plain["train/loss"] + found["train/drift"], rel=1e-4
    )


def test_features_are_guarded_where_no_projection_is_added(shop, towers, told, tmp_path):
    """The config asks for a width that the towers have already."""
    for tower in towers.values():
        tower.starts_anew = False
    config = told(1, drift="features", drift_weight=1.0)
    assert config.finetune.text.dim
    finetune(config, shop, copy.deepcopy(towers), folder=tmp_path, progress=False)
    towers["image"].starts_anew = True
    with pytest.raises(ConfigError, match=r"image gets one .*finetune\.image\.dim: null"):
        finetune(config, shop, towers, folder=tmp_path, progress=False)


def test_weights_are_not_guarded_where_projections_train_alone(
    shop, towers, told, tmp_path, monkeypatch
):
    for tower in towers.values():
        own = list(tower.projection.parameters())
        monkeypatch.setattr(tower, "trainable", lambda own=own: {"trunk": [], "projection": own})
    config = told(1, drift="weights", drift_weight=1.0)
    with pytest.raises(ConfigError, match=r"below projections, and nothing is .*drift: none"):
        finetune(config, shop, towers, folder=tmp_path, progress=False)
