"""Ids looked up among the known ones."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np
import pandas as pd

from mmalign.data.cells import as_text
from mmalign.errors import DataError
from mmalign.interfaces import IntArray

__all__ = ["find_rows"]


def find_rows(index: pd.Index, ids: Iterable[object], what: str) -> IntArray:
    """Look ids up in an index of them.

    Args:
        index: Known ids, as text.
        ids: Wanted ids.
        what: What they are ids of, for the error.

    Raises:
        DataError: An id is unknown; the error names the first and the nearest known one.
    """
    wanted = as_text(pd.Series(list(ids), name=f"{what}_id", dtype=object))
    rows: IntArray = index.get_indexer(wanted.astype(object)).astype(np.int64)
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        first = wanted.iloc[unknown[0]]
        close = get_close_matches(str(first), list(index), n=1)
        guess = f"did you mean {close[0]!r}?" if close else "check the ids"
        raise DataError(f"{len(unknown)} unknown {what} ids", got=first, fix=guess)
    return rows
