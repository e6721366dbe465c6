"""What is to be measured must not be what was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmalign.data.catalog import Catalog
from mmalign.errors import DataError

if TYPE_CHECKING:
    from mmalign.recommender import Recommender

__all__ = ["check_held_out"]


def check_held_out(recommender: Recommender, catalog: Catalog, split: str) -> None:
    """Fail if a recommender was trained on rows that a catalogue has in a split to be measured.

    That happens when a log without a ``split`` column changed after the fit, and is divided anew,
    or when it is divided in another way. A pair that the catalogue has in train as well is no
    news, and a user's own candidates leave it out.

    Args:
        recommender: Its stored train rows are compared, by ids.
        catalog: What it is to be measured on.
        split: ``valid`` or ``test``.

    Raises:
        DataError: There are such rows; it names their number.
    """
    users, items = catalog.matrix(split).nonzero()
    known_users = pd.Index(recommender.user_ids).get_indexer(catalog.user_ids)[users]
    known_items = pd.Index(recommender.item_ids).get_indexer(catalog.item_ids)[items]
    is_known = (known_users >= 0) & (known_items >= 0)
    if not is_known.any():
        return
    users, items = users[is_known], items[is_known]
    trained = recommender.seen["train"][known_users[is_known], known_items[is_known]]
    still = catalog.matrix("train")[users, items]
    leaked = (np.asarray(trained) != 0).ravel() & (np.asarray(still) == 0).ravel()
    if leaked.any():
        first = int(np.argmax(leaked))
        raise DataError(
            f"{int(leaked.sum()):,} of {len(is_known):,} pairs in {split} were trained on",
            got=f"user {catalog.user_ids[users[first]]} and item {catalog.item_ids[items[first]]}",
            fix="the log or data.split is another one than at fit: give the log a split column, "
            "or fit anew",
        )
