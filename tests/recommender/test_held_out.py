from __future__ import annotations

import pandas as pd

from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
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
