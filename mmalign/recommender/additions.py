"""New items and their content, checked before anything takes them in."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmalign.data.cells import as_ids
from mmalign.data.cleaning import check_names
from mmalign.errors import DataError
from mmalign.interfaces import ITEM_ID, Feature, Features
from mmalign.models.kernel import check_width

__all__ = ["known_features", "new_items", "stacked"]


def new_items(items: pd.DataFrame, known: NDArray[np.object_]) -> pd.DataFrame:
    """Write the ids of new items as text.

    Raises:
        DataError: An id is missing, given twice, or known already, or two columns have one name.
    """
    check_names(items, "the new items")
    if ITEM_ID not in items:
        raise DataError(f"the new items have no column {ITEM_ID!r}", fix="add it")
    ids = as_ids(items[ITEM_ID], "the new items")
    wrong = {"in the artefact already": ids.isin(known), "given twice": ids.duplicated()}
    for problem, marks in wrong.items():
        if marks.any():
            raise DataError(
                f"{int(marks.sum())} new items are {problem}",
                got=ids[marks].iloc[0],
                fix="drop them",
            )
    return items.assign(**{ITEM_ID: ids})


def known_features(features: Features, fitted: Features) -> dict[str, Feature]:
    """Keep the modalities that a recommender holds; all of them if it holds no content.

    Raises:
        DataError: None is left, or one has another width.
    """
    if not fitted:
        return dict(features)
    kept = {name: feature for name, feature in features.items() if name in fitted}
    if not kept:
        raise DataError(
            "the new items have no content that the model knows",
            fix=f"give them one of: {', '.join(fitted)}",
        )
    for name, feature in kept.items():
        check_width(name, feature, fitted[name].values.shape[1])
    return kept


def stacked(old: Feature, new: Feature | None, count: int) -> Feature:
    """Append ``count`` items to a feature; absent ones when there is no new feature."""
    if new is None:
        width = old.values.shape[1]
        new = Feature(np.zeros((count, width), np.float32), np.zeros(count, dtype=bool))
    values = np.concatenate([old.values, new.values]).astype(np.float32, copy=False)
    return Feature(values, np.concatenate([old.present, new.present]))
