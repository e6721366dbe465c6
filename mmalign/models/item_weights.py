"""Dense item-item weights that content continues to cold items."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from mmalign.interfaces import FloatArray, IntArray
from mmalign.models.base import C
from mmalign.models.kernel import ContentModel

__all__ = ["ItemWeights"]


class ItemWeights(ContentModel[C]):
    """Score by the history times weights, which are an affine map of content for cold items.

    Shapes:
        weights: ``[W, W]``, from the warm items of a history to warm candidates.
        to_content: ``[W, D]``; times the content of a cold item, the weights to it.
        average: ``[W]``, the weights to an item of average content.
    """

    serves_cold: ClassVar[bool] = True
    learned = ("warm", "content", "weights", "to_content", "average")
    weights: FloatArray
    to_content: FloatArray
    average: FloatArray

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Sum the weights from the history's warm items to each candidate."""
        past = history[:, self.warm]
        warm_rows = np.cumsum(self.warm) - 1
        is_warm = self.warm[items]
        out = np.empty((history.shape[0], len(items)), np.float32)
        out[:, is_warm] = past @ self.weights[:, warm_rows[items[is_warm]]]
        out[:, ~is_warm] = (past @ self.to_content) @ self.content[items[~is_warm]].T
        out[:, ~is_warm] += (past @ self.average)[:, None]
        return out
