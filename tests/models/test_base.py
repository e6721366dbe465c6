"""What a model may be given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp

from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import Feature
from mmalign.models import MODELS, ModelConfig, TrainData, build_model, modalities_of
from mmalign.models.aligned import AlignedConfig
from mmalign.models.closed_form import CollectiveConfig, RidgeConfig
from mmalign.models.kernel import KernelConfig
from mmalign.models.neural.alpharec import AlphaRecConfig

ONE = sp.csr_matrix(np.ones((1, 2), np.float32))


def test_there_must_be_something_to_learn_from() -> None:
    with pytest.raises(DataError, match="no train interaction"):
        TrainData(sp.csr_matrix((3, 2)), {})


@pytest.mark.parametrize(
    ("values", "present", "problem"),
    [
        (np.ones((3, 4)), np.ones(3, bool), "a row for each of 2 items"),
        (np.ones((2, 4)), np.ones(3, bool), "a row for each of 2 items"),
        (np.ones(2), np.ones(2, bool), "a row for each of 2 items"),
        (np.ones((2, 4)), np.ones(2, int), "must be bool"),
        (np.full((2, 4), np.nan), np.ones(2, bool), "NaN or infinite"),
        (np.full((2, 4), np.inf), np.array([False, True]), "item row 1"),
    ],
)
def test_features_must_fit_the_items(values: object, present: object, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        TrainData(ONE, {"text": Feature(values, present)})  # type: ignore[arg-type]


def test_times_must_fit_the_interactions() -> None:
    with pytest.raises(DataError, match="times must be of the same users and items"):
        TrainData(ONE, {}, times=sp.csr_matrix((2, 2)))


def test_an_absent_row_may_hold_anything() -> None:
    TrainData(ONE, {"text": Feature(np.full((2, 4), np.nan, np.float32), np.zeros(2, bool))})


def test_every_model_is_built_by_its_name() -> None:
    for name, kind in MODELS.items():
        model = build_model(ModelConfig(name=name), seed=7)
        assert type(model) is kind
        if name != "popularity":  # which has nothing to set
            config = getattr(ModelConfig(), name)
            seeded = {"seed": 7} if hasattr(config, "seed") else {}
            assert model.config == dataclasses.replace(config, **seeded)
        assert dataclasses.is_dataclass(model.config)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'kernel_ridge'"):
        ModelConfig(name="kernel-ridge")


def test_the_modalities_of_a_model() -> None:
    named = ("text", "image")
    kernel = KernelConfig(modalities=named)
    aligned = AlignedConfig(teacher=CollectiveConfig(kernel=kernel))
    config = ModelConfig(
        aligned=aligned,
        ridge=RidgeConfig(kernel=kernel),
        alpharec=AlphaRecConfig(modalities=named),
    )
    for name in MODELS:
        expected = named if name in ("aligned", "ridge", "alpharec") else ()
        assert modalities_of(dataclasses.replace(config, name=name)) == expected
