"""Items and users of which nothing is known, and what is said about them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.interfaces import BoolArray, Features
from mmalign.models import Model

__all__ = ["LAST", "blank_items", "warn_of_blanks", "warn_of_strangers"]

LAST = -1000.0
"""Score of such an item, in deviations: below all others, whatever others there are."""


def blank_items(model: Model[Any], features: Features, read: Sequence[str]) -> BoolArray:
    """Mark the items that nobody touched and of which a model reads nothing, ``[I]``.

    Args:
        model: Fitted. One that does not place cold items reads nothing of them.
        features: Content that is kept; of a model that reads content and keeps none, no item is
            said to be blank.
        read: Modalities that the model reads; all when empty.
    """
    known = model.warm.copy()
    if model.serves_cold and model.uses_content:
        present = [features[name].present for name in read or features if name in features]
        known |= np.any(present, axis=0) if present else True
    known[model.heard] = True
    return ~known


def warn_of_blanks(ids: NDArray[Any], consequence: str) -> None:
    """Warn the caller's caller of items of which nothing is known."""
    if len(ids):
        warnings.warn(
            f"{len(ids)} items have neither a train row nor content that the model reads, "
            f"first {ids[0]!r}: {consequence}",
            stacklevel=4,
        )


def warn_of_strangers(users: Sequence[str]) -> None:
    """Warn the caller's caller of users who get popular items."""
    if users:
        warnings.warn(
            f"{len(users)} users have no history that says anything, first {users[0]!r}: "
            "popular items are recommended",
            stacklevel=3,
        )
