"""Rank in the row order of another catalogue than the one a scorer was built on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import DataError
from mmalign.interfaces import FloatArray, IntArray, Recommends

__all__ = ["CatalogOrder"]


class CatalogOrder:
    """A scorer whose items are matched by id with those of another catalogue.

    Args:
        scorer: Scores in its own row order.
        known: ``[I]`` its item ids.
        ids: The ids of the other catalogue, in its row order.

    Attributes:
        serves_cold: Whether the scorer has an order of its own for cold items.
    """

    def __init__(
        self, scorer: Recommends, known: NDArray[np.object_], ids: NDArray[np.object_]
    ) -> None:
        self.serves_cold: bool = getattr(scorer, "serves_cold", True)
        self._scorer, self._num_items, self._ids = scorer, len(known), ids
        self._rows = pd.Index(known).get_indexer(ids).astype(np.int64)

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Score candidates; see :class:`mmalign.interfaces.Recommends`.

        Raises:
            DataError: A candidate is not known to the scorer.
        """
        columns = self._rows[items]
        if (columns < 0).any():
            raise DataError(
                f"{int((columns < 0).sum())} candidates are not in the artefact",
                got=self._ids[items[int(np.argmin(columns))]],
                fix="add them first with mmalign add-items",
            )
        entries = history.tocoo()
        rows = self._rows[entries.col]
        kept = rows >= 0
        mapped = sp.csr_matrix(
            (entries.data[kept], (entries.row[kept], rows[kept])),
            shape=(history.shape[0], self._num_items),
        )
        return self._scorer.score(mapped, columns)
