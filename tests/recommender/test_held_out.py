from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.errors import DataError
from mmalign.recommender.held_out import check_held_out


class Nobody:
    """A recommender that knows none of the ids."""

    user_ids = item_ids = ("other",)
    seen = None


def test_rows_of_unknown_ids_were_not_trained_on():
    items = pd.DataFrame({"item_id": ["a", "b"], "title": ["tea", "cup"]})
    log = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "split": ["train", "test"]})
    catalog = Catalog.from_pandas(items, log, config=DataConfig(text=("title",)))
    for split in ("valid", "test"):  # no rows at all, and rows of others
        check_held_out(Nobody(), catalog, split)


@pytest.mark.parametrize("trained", [[("v", "a")], [("u", "a"), ("u", "b"), ("v", "b")]])
def test_pairs_are_compared_by_ids_and_not_by_rows(trained):
    """The recommender has users and items the other way round."""
    items = pd.DataFrame({"item_id": ["a", "b"], "title": ["tea", "cup"]})
    rows = [("u", "a", "train"), ("v", "a", "test"), ("v", "b", "train")]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    catalog = Catalog.from_pandas(items, log, config=DataConfig(text=("title",)))
    users, item_ids = np.array(["v", "u"]), np.array(["b", "a"])
    seen = sp.csr_matrix([[float((u, i) in trained) for i in item_ids] for u in users])
    fitted = SimpleNamespace(user_ids=users, item_ids=item_ids, seen={"train": seen})
    if ("v", "a") in trained:
        with pytest.raises(DataError, match=r"1 of 1 pairs in test.*user v and item a"):
            check_held_out(fitted, catalog, "test")
    else:
        check_held_out(fitted, catalog, "test")
