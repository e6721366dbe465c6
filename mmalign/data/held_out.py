"""Which items encoders are tuned on, and which are kept out of it to measure on."""

from __future__ import annotations

import numpy as np

from mmalign.data.catalog import Catalog
from mmalign.errors import DataError, nearest
from mmalign.interfaces import SPLIT, SPLITS, IntArray

__all__ = ["split_items"]

HELD_OUT = 0.1


def split_items(catalog: Catalog, seed: int = 0) -> tuple[IntArray, IntArray, IntArray]:
    """Say which items are trained on and which are only measured: rows of train, valid and test.

    By the items' own column ``split`` where there is one; else cold items of valid and test are
    measured, and all others are trained on, those that nobody took included; in a catalogue without
    a log a tenth each is held out by the seed. Whatever is measured is never trained on.

    Raises:
        DataError: The column names another split.
    """
    if SPLIT in catalog.items.columns:
        named = catalog.items[SPLIT].astype(str).to_numpy()
        wrong = np.flatnonzero(~np.isin(named, SPLITS))
        if len(wrong):
            raise DataError(
                f"items have an unknown split in row {wrong[0]}",
                got=named[wrong[0]],
                fix=nearest(named[wrong[0]], SPLITS),
            )
        train, valid, test = (np.flatnonzero(named == name) for name in SPLITS)
    elif len(catalog.interactions):
        valid, test = (
            np.flatnonzero(~catalog.warm & (catalog.matrix(name).getnnz(axis=0) > 0))
            for name in ("valid", "test")
        )
        train = np.setdiff1d(np.arange(catalog.num_items), np.union1d(valid, test))
        valid = np.setdiff1d(valid, test)
    else:
        order = np.random.default_rng(seed).permutation(catalog.num_items)
        held = int(HELD_OUT * catalog.num_items)
        valid, test, train = (np.sort(part) for part in np.split(order, [held, 2 * held]))
    return train, valid, test
