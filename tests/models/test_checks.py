"""A setting out of its range is named."""

from __future__ import annotations

import pytest

from mmalign.errors import ConfigError
from mmalign.models.checks import check_positive, check_within


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_what_is_not_positive_is_named(value: float) -> None:
    with pytest.raises(ConfigError, match="second must be positive"):
        check_positive(first=1, second=value)


@pytest.mark.parametrize(
    ("interval", "value", "is_within"),
    [
        ("[0, 1)", 0, True),
        ("[0, 1)", 0.999, True),
        ("[0, 1)", 1, False),
        ("[0, 1)", -0.001, False),
        ("(0, 1]", 0, False),
        ("(0, 1]", 1, True),
        ("[1, inf)", 1, True),
        ("[1, inf)", float("inf"), False),
        ("[0, 1]", float("nan"), False),
    ],
)
def test_the_ends_of_an_interval_are_in_it_or_not(
    interval: str, value: float, is_within: bool
) -> None:
    if is_within:
        check_within(interval, setting=value)
        return
    with pytest.raises(ConfigError, match="setting must be in ") as caught:
        check_within(interval, setting=value)
    assert interval in str(caught.value)
