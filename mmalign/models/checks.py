"""Checks of settings that several models share."""

from __future__ import annotations

import math

from mmalign.errors import ConfigError

__all__ = ["check_positive", "check_within"]


def check_positive(**values: float) -> None:
    """Check settings by name.

    Raises:
        ConfigError: The first that is not positive and finite.

    Example:
        >>> check_positive(l2=1.0, embedding_dim=0)
        Traceback (most recent call last):
        mmalign.errors.ConfigError: embedding_dim must be positive (got 0): see the default
    """
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} must be positive", got=value, fix="see the default")


def check_within(interval: str, **values: float) -> None:
    """Check settings by name against an interval, written as in mathematics.

    Args:
        interval: ``[0, 1)`` holds 0 and not 1; no interval holds NaN.
        **values: Name to setting.

    Raises:
        ConfigError: The first that lies outside.

    Example:
        >>> check_within("[0, 1)", dropout=0.0, share=1.0)
        Traceback (most recent call last):
        mmalign.errors.ConfigError: share must be in [0, 1) (got 1.0): see the default
    """
    low, high = map(float, interval[1:-1].split(","))
    for name, value in values.items():
        is_high_enough = low <= value if interval.startswith("[") else low < value
        is_low_enough = value <= high if interval.endswith("]") else value < high
        if not (is_high_enough and is_low_enough):
            raise ConfigError(f"{name} must be in {interval}", got=value, fix="see the default")
