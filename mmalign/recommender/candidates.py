"""Which items may be recommended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmalign.data.attributes import attribute_values
from mmalign.data.condition import Condition
from mmalign.data.config import AttributeConfig
from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import BoolArray, IntArray

__all__ = ["Filter", "choose"]

Filter = str | Callable[[pd.DataFrame], Any]
"""A condition such as ``price < 20``, or a function from the items' frame to a mask ``[I]``."""


def choose(
    items: pd.DataFrame,
    warm: BoolArray,
    candidates: str,
    filter: Filter | Sequence[Filter] | None,
    attributes: Mapping[str, AttributeConfig],
) -> IntArray:
    """Row numbers of the items of a slice that pass a filter, or all of several.

    A condition may name an attribute that has no column of its own, or that a pattern pulls out
    of one, and then compares its values. A function sees the columns as they are.

    Raises:
        ConfigError: There is no such slice, or a filter is none or cannot be read.
        DataError: The condition names a column that is not there, or the mask does not fit.

    Example:
        >>> items = pd.DataFrame({"item_id": ["tea", "mug"], "price": [3.0, None]})
        >>> choose(items, np.array([True, True]), "warm", "price < 20", {}).tolist()
        [0]
    """
    slices = {"warm": warm, "cold": ~warm, "all": np.ones_like(warm)}
    if not isinstance(candidates, str):
        raise ConfigError(
            "candidates must be warm, cold or all",
            got=candidates,
            fix="pass filter=lambda items: items.item_id.isin(ids) to choose items by id",
        )
    if candidates not in slices:
        raise ConfigError(f"unknown candidates {candidates!r}", fix=nearest(candidates, slices))
    chosen = slices[candidates]
    filters = [filter] if isinstance(filter, str) or callable(filter) else filter
    for one in () if filters is None else _listed(filters):
        if isinstance(one, str):
            condition = Condition.parse(one)
            readable = _with_attribute(items, condition.column, attributes)
            chosen = chosen & condition.mask(readable, "items", lenient=True)
        else:
            chosen = chosen & _mask(one(items), len(items))
    return np.flatnonzero(chosen)


def _with_attribute(
    items: pd.DataFrame, name: str, attributes: Mapping[str, AttributeConfig]
) -> pd.DataFrame:
    if name not in items and name not in attributes:
        names = {*map(str, items), *attributes}
        raise DataError(f"items have no column {name!r}", fix=nearest(name, names))
    attribute = attributes.get(name)
    if attribute is None or (name in items and attribute.pattern is None):
        return items
    return items.assign(**{name: attribute_values(items, name, attribute)})


def _listed(filters: Any) -> list[Filter]:
    found = list(filters) if isinstance(filters, Iterable) else [filters]
    for one in found:
        if not (isinstance(one, str) or callable(one)):
            raise ConfigError(
                "a filter is a condition or a function", got=one, fix="pass filter='price < 20'"
            )
    return found


def _mask(found: Any, num_items: int) -> BoolArray:
    try:
        mask = pd.array(found, dtype="boolean").fillna(False).to_numpy(dtype=bool)
    except (TypeError, ValueError):
        mask = np.zeros(0, dtype=bool)
    if len(mask) != num_items:
        raise DataError(
            f"a filter must give one bool for each of {num_items} items",
            got=found,
            fix="return a mask such as items.price < 20",
        )
    return np.asarray(mask, dtype=bool)
