"""Reading raw attribute cells: labels from strings and lists, numbers and dates from anything."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["MAX_MAGNITUDE", "read_labels", "read_numbers", "read_texts"]

MAX_MAGNITUDE = 1e15
"""Numbers beyond this are refused: sums of squares of them leave the range of float32."""

_SECONDS_PER_DAY = 86_400


def read_labels(values: pd.Series[Any], kind: str) -> list[tuple[str, ...]]:
    """Read the labels of every row; an empty tuple stands for a missing value.

    Args:
        values: ``[I]`` raw cells.
        kind: ``category``: the cell is one label. ``multi``: a list, or a string split by ``|``.

    Example:
        >>> read_labels(pd.Series(["a| b|", None, ["c", "c"]]), "multi")
        [('a', 'b'), (), ('c',)]
    """
    return [_labels(value, split=kind == "multi") for value in values]


def read_numbers(values: pd.Series[Any], kind: str) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Read every row as a number, NaN where there is none.

    Args:
        values: ``[I]`` raw cells.
        kind: ``number``, or ``date`` for days since 1970-01-01.

    Returns:
        The numbers ``[I]``, and the rows whose value is there but cannot be read, with reasons.

    Example:
        >>> numbers, problems = read_numbers(pd.Series(["7", None, "seven"]), "number")
        >>> numbers.tolist(), problems
        ([7.0, nan, nan], {2: "not a number: 'seven'"})
    """
    numbers = _days(values) if kind == "date" else _floats(values)
    unusable = ~np.isfinite(numbers) | (np.abs(numbers) > MAX_MAGNITUDE)
    what = "date" if kind == "date" else "number"
    problems = {}
    for row in np.flatnonzero(unusable):
        value = values.iloc[row]
        if not _missing(value):
            problems[int(row)] = f"not a {what}: {str(value)[:40]!r}"
    numbers[unusable] = np.nan
    return numbers, problems


def read_texts(values: pd.Series[Any]) -> list[str | None]:
    """Read every row as text, the parts of a list beside each other; None where there is none.

    Example:
        >>> read_texts(pd.Series(["a b", None, ["c", "d"]]))
        ['a b', None, 'c d']
    """
    return [" ".join(_labels(value, split=False)) or None for value in values]


def _floats(values: pd.Series[Any]) -> NDArray[np.float64]:
    numbers = pd.to_numeric(values, errors="coerce")
    return np.array(numbers.to_numpy(np.float64, na_value=np.nan))


def _days(values: pd.Series[Any]) -> NDArray[np.float64]:
    if pd.api.types.is_numeric_dtype(values):
        return _floats(values) / _SECONDS_PER_DAY
    # Without the mask pandas would take bare numbers among the texts for nanoseconds.
    numeric = np.array([_is_seconds(value) for value in values], np.bool_)
    dates = pd.to_datetime(values.mask(numeric), errors="coerce", utc=True, format="mixed")
    # An epoch in seconds keeps pandas from forcing dates beyond 2262 into nanoseconds.
    seconds = (dates - pd.Timestamp("1970-01-01", tz="UTC").as_unit("s")).dt.total_seconds()
    days = np.array(seconds.to_numpy(np.float64, na_value=np.nan)) / _SECONDS_PER_DAY
    days[numeric] = _floats(values[numeric]) / _SECONDS_PER_DAY
    return days


def _is_seconds(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\s*-?\d{9,}(\.\d*)?\s*", value) is not None
    return isinstance(value, (int, float, np.number))


def _labels(value: Any, *, split: bool) -> tuple[str, ...]:
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        parts = list(value)
    elif _missing(value):
        return ()
    else:
        parts = value.split("|") if split and isinstance(value, str) else [value]
    names = (_name(part) for part in parts if not _missing(part))
    return tuple(sorted({name for name in names if name}))


def _name(value: Any) -> str:
    # A whole number turns into a float when its column has gaps: 3.0 must stay the label 3.
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value).strip()


def _missing(value: Any) -> bool:
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))
