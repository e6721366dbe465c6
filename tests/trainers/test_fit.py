from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmalign.config import from_dict
from mmalign.errors import ConfigError
from mmalign.evaluation.protocol import evaluate
from mmalign.experiment import ExperimentConfig
from mmalign.models import ModelConfig, TrainData, build_model
from mmalign.models.calibration import Calibration
from mmalign.trainers.fit import fit


def run(shop, name, **more):
    values = {
        "model": {"name": name, "aligned": {"embedding_dim": 16, "batch_size": 16}},
        "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
    }
    config = from_dict(ExperimentConfig, values)
    return fit(config, shop.catalog, shop.features, folder=shop.folder, progress=False, **more)


def test_a_closed_form_is_fitted_and_calibrated(shop):
    result = run(shop, "kernel_ridge")
    assert result.curve == []
    assert set(result.seconds) == {"fit", "calibrate"}
    assert result.calibration.weights == {"score": 1.0}
    assert list(shop.folder.iterdir()) == []  # nothing is trained, so nothing is logged
    assert evaluate(result.model, shop.catalog, "test").metrics["cold"]["ndcg@20"] > 0.6


@pytest.mark.parametrize("name", ["bpr", "ials", "random"])
def test_the_seed_of_the_experiment_is_that_of_the_model(shop, name):
    def scores(of_all, **settings):
        values = {"seed": of_all, "model": {"name": name, name: settings}}
        found = fit(from_dict(ExperimentConfig, values), shop.catalog, shop.features)
        history = shop.catalog.matrix()
        return found.model.score(history, np.arange(shop.catalog.num_items))

    first = scores(3)
    np.testing.assert_array_equal(scores(3), first)
    assert not np.allclose(scores(4), first)
    np.testing.assert_array_equal(scores(4, seed=3), first)


def test_the_seed_decides_what_networks_are_transferred_from(shop):
    torch.manual_seed(0)
    data = TrainData(shop.catalog.matrix(), shop.features)
    first, second = (build_model(ModelConfig("dropoutnet")).fit(data) for _ in range(2))
    assert not np.allclose(first.factors.items, second.factors.items)
    torch.manual_seed(0)
    again = build_model(ModelConfig("dropoutnet")).fit(data)
    np.testing.assert_array_equal(again.factors.items, first.factors.items)


def test_the_times_of_a_log_reach_the_model(shop):
    seconds = 3_600 * np.arange(len(shop.catalog.interactions)) % 7_919
    at_times = replace(
        shop.catalog, interactions=shop.catalog.interactions.assign(timestamp=seconds)
    )
    plain, timed = (
        run(replace(shop, catalog=catalog), "collective").model.weights
        for catalog in (shop.catalog, at_times)
    )
    assert not np.allclose(plain, timed)


def test_a_network_is_trained_between(shop):
    result = run(shop, "aligned")
    assert set(result.seconds) == {"fit", "train", "calibrate"}
    assert {p.epoch for p in result.curve} == {0, 1}
    assert set(result.calibration.weights) == {"network", "teacher"}


@pytest.mark.parametrize("name", ["aligned", "fused", "clcrec"])
def test_a_model_leaves_memory_with_its_last_name(shop, name):
    model = weakref.ref(run(shop, name).model)
    assert model() is None  # no circle waits for the garbage collector


def test_a_model_without_cold_scores_has_no_calibration(shop):
    assert run(shop, "popularity").calibration == Calibration()


def test_the_same_config_gives_the_same_model(shop):
    first, again = run(shop, "aligned"), run(shop, "aligned")
    assert first.calibration == again.calibration
    for name, array in first.model.arrays().items():
        np.testing.assert_array_equal(array, again.model.arrays()[name])


def test_a_closed_form_has_nothing_to_resume(shop):
    with pytest.raises(ConfigError, match="not trained step by step"):
        run(shop, "ease", resume="last.ckpt")
