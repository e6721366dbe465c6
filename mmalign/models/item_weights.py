"""Dense item-item weights that content continues to cold items."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from mmalign.interfaces import FloatArray, IntArray
from mmalign.models.base import C
from mmalign.models.kernel import ContentModel
from mmalign.models.ridge import ridge_map

__all__ = ["HALF_HEARD", "ItemWeights"]

HALF_HEARD = 10.0
"""Interactions after which an item has moved half of the way; chosen on valid of the films."""


class ItemWeights(ContentModel[C]):
    """Score by the history times weights, which are an affine map of content for cold items.

    Shapes:
        weights: ``[W, W]``, from the warm items of a history to warm candidates.
        to_content: ``[W, D]``; times the content of a cold item, the weights to it.
        average: ``[W]``, the weights to an item of average content.
    """

    serves_cold: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("warm", "content", "weights", "to_content", "average")
    weights: FloatArray
    to_content: FloatArray
    average: FloatArray

    def regress(self, penalty: float) -> None:
        """Continue the weights to cold items by ridge on content, with an intercept."""
        self.average = self.weights.mean(axis=1)
        centred = self.weights.T - self.average
        self.to_content = ridge_map(self.content[self.warm], centred, penalty).T.copy()

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Sum the weights from the history's warm items to each candidate."""
        past = history[:, self.warm]
        warm_rows = np.cumsum(self.warm) - 1
        warm_scores = past @ self.weights
        is_warm = self.warm[items]
        out = np.empty((history.shape[0], len(items)), np.float32)
        out[:, is_warm] = warm_scores[:, warm_rows[items[is_warm]]]
        taste = past @ self.to_content + self.shared_taste(warm_scores)
        out[:, ~is_warm] = taste @ self.content[items[~is_warm]].T
        out[:, ~is_warm] += (past @ self.average)[:, None]
        return out

    def _hear(self, history: sp.csr_matrix, items: IntArray, taken: sp.csr_matrix) -> None:
        """Move an item's content by ``sum of t_u / (n + 10)``, ``t_u`` its n users' tastes.

        A taste is the direction in content that a history points to, at unit length: relevance
        feedback (Rocchio 1971) with users in place of documents.
        """
        tastes = history[:, self.warm] @ self.to_content
        lengths = np.linalg.norm(tastes, axis=1, keepdims=True)
        tastes /= np.where(lengths > 0, lengths, 1)
        moved = self.content.copy()
        moved[items] += (taken @ tastes) / (np.asarray(taken.sum(axis=1)) + HALF_HEARD)
        self.content = moved

    def shared_taste(self, warm_scores: FloatArray) -> FloatArray | float:
        """What is added to the users' directions in content, ``[B, D]``: nothing here."""
        return 0.0
