from __future__ import annotations

import pytest

from mmalign.config import from_dict, to_dict
from mmalign.data import AttributeConfig, DataConfig, SplitConfig
from mmalign.errors import ConfigError


def test_a_config_survives_plain_values() -> None:
    config = DataConfig(
        path="shop",
        items=None,
        text=("title",),
        attributes={"year": AttributeConfig("number", "title", r"\((\d+)\)")},
        split=SplitConfig("global_time", train_until="2020-01-01", valid_until=1.6e9),
    )
    assert from_dict(DataConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"txt": ["title"]}, "unknown key 'txt': did you mean 'text'"),
        ({"attributes": {"a": {"kind": "numbr"}}}, "did you mean 'number'"),
        ({"attributes": {"a": {"kind": "number", "pattern": "("}}}, "pattern is broken"),
        ({"attributes": {"a": {"kind": "number", "pattern": "x"}}}, "exactly one group"),
        ({"attributes": {"a": {"kind": "number", "pattern": "(x)(y)"}}}, "exactly one group"),
        ({"attributes": {"image": {"kind": "number"}}}, "name of a modality"),
        ({"split": {"kind": "leave-last"}}, "did you mean 'leave_last'"),
        ({"split": {"valid": 0.5, "test": 0.5}}, "sum to less than 1"),
        ({"split": {"valid": -0.1}}, "at least 0"),
        ({"split": {"train_until": 3}}, "go together"),
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(DataConfig, values)


def test_kinds_are_checked_in_python_too() -> None:
    with pytest.raises(ConfigError, match="did you mean 'multi'"):
        AttributeConfig("mutli")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        SplitConfig("randm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be a list"):
        DataConfig(text="title")  # type: ignore[arg-type]


def test_the_description_of_a_split_names_what_it_uses() -> None:
    assert SplitConfig().describe() == "random, valid 0.1, test 0.1, seed 0"
    assert SplitConfig("leave_last").describe() == "leave_last"
    assert SplitConfig("global_time").describe() == "global_time, valid 0.1, test 0.1"
    timed = SplitConfig("cold_after", train_until=1, valid_until=2).describe()
    assert timed == "cold_after, train until 1, valid until 2, valid 0.1, test 0.1, seed 0"
