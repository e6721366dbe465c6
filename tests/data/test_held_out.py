from __future__ import annotations

import numpy as np
import pandas as pd

from mmalign.data.catalog import Catalog, DataConfig
from mmalign.data.held_out import split_items


def test_items_that_nobody_took_are_trained_on_and_measured_ones_are_not():
    """Items 0-2 are warm, 3 is cold in valid, 4 in test, 5 in both, 6-7 have no row at all."""
    items = pd.DataFrame({"item_id": list("01234567"), "title": list("abcdefgh")})
    rows = [(0, "train"), (1, "train"), (2, "train"), (0, "valid"), (1, "test")]
    rows += [(3, "valid"), (4, "test"), (5, "valid"), (5, "test")]
    log = pd.DataFrame([("u", str(i), split) for i, split in rows])
    log.columns = ["user_id", "item_id", "split"]
    catalog = Catalog.from_pandas(items, log, config=DataConfig(text=("title",)))
    train, valid, test = (part.tolist() for part in split_items(catalog))
    assert (train, valid, test) == ([0, 1, 2, 6, 7], [3], [4, 5])
    assert np.flatnonzero(catalog.warm).tolist() == [0, 1, 2]
