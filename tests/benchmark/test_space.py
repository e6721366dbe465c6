from __future__ import annotations

import pytest

from mmalign.benchmark.space import (
    Choices,
    Range,
    lay,
    search_space,
    setting,
    shipped_spaces,
)
from mmalign.config import from_dict
from mmalign.errors import ConfigError
from mmalign.experiment import ExperimentConfig
from mmalign.models import MODELS


def config_with(**search):
    return from_dict(ExperimentConfig, {"benchmark": {"search": search}})


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_shipped_space_fits_its_model(model):
    space = search_space(ExperimentConfig(), model)
    assert bool(space) == (model in shipped_spaces())
    for name, entry in space.items():
        ends = entry.choices if isinstance(entry, Choices) else (entry.low, entry.high)
        for value in ends:
            assert setting(lay(ExperimentConfig(), model, {name: value}), model, name) == value


@pytest.mark.parametrize("model", sorted(shipped_spaces()))
def test_every_space_is_of_a_model_and_holds_its_defaults(model):
    """The first trial is the default: the search should be around it."""
    assert model in MODELS
    for name, entry in search_space(ExperimentConfig(), model).items():
        default = setting(ExperimentConfig(), model, name)
        if isinstance(entry, Choices):
            assert default in entry.choices, name
        else:
            assert entry.low <= default <= entry.high, name


def test_a_config_overrides_adds_and_takes_out():
    config = config_with(
        ridge={
            "l2": {"low": 1, "high": 2},
            "regularization": None,
            "kernel.weights.text.a": {"low": 0.1, "high": 1},
        }
    )
    assert search_space(config, "ridge") == {
        "l2": Range(1.0, 2.0),
        "kernel.weights.text.a": Range(0.1, 1.0),
    }


def test_whole_numbers_stay_whole():
    space = search_space(config_with(item_knn={"neighbours": {"low": 5, "high": 9}}), "item_knn")
    assert isinstance(space["neighbours"].low, int)
    assert isinstance(space["shrinkage"].low, float)


@pytest.mark.parametrize(
    ("model", "entries", "message"),
    [
        ("ease", {"l3": {"low": 1, "high": 2}}, r"benchmark.search.ease.l3.*did you mean 'l2'"),
        ("ridge", {"kernel.knd": {"choices": ["sum"]}}, "did you mean 'kind'"),
        ("ridge", {"kernel.kind": {"choices": ["sum", "max"]}}, "max"),
        ("ease", {"l2": {"low": -1, "high": 2}}, "l2 must be positive"),
        ("ease", {"l2": {"low": 3, "high": 2}}, "low must be below high"),
        ("ease", {"l2": {"low": 0, "high": 2, "log": True}}, "log needs a low above 0"),
        ("ease", {"l2": {"low": 1, "hihg": 2}}, "did you mean 'high'"),
        ("ease", {"l2": {"choices": []}}, "choices is empty"),
        ("ease", {"l2": {"choices": [[1]]}}, "a choice must be"),
        ("ease", {"l2": 5}, "must be a mapping"),
        ("item_knn", {"neighbours": {"low": 1.5, "high": 9}}, "of type int"),
        ("popularity", {"x": {"low": 1, "high": 2}}, "has nothing to set"),
    ],
)
def test_what_is_wrong_is_said(model, entries, message):
    with pytest.raises(ConfigError, match=message):
        search_space(config_with(**{model: entries}), model)


def test_laying_leaves_the_config_as_it_was():
    config = ExperimentConfig()
    laid = lay(config, "ridge", {"kernel.weights.image": 0.5, "l2": 3})
    assert (laid.model.name, laid.model.ridge.l2) == ("ridge", 3.0)
    assert laid.model.ridge.kernel.weights == {"image": 0.5}
    assert config.model.ridge.kernel.weights == {}
    assert laid.model.ease == config.model.ease
    assert setting(laid, "ridge", "kernel.weights.image") == 0.5
    assert setting(laid, "ridge", "kernel.weights.text") is None
