"""The simplest content profile: a user is the mean of what is in their history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp

from mmalign.interfaces import Features, FloatArray, IntArray
from mmalign.models.base import TrainData
from mmalign.models.kernel import ContentModel, KernelConfig

__all__ = ["ContentMean", "ContentMeanConfig"]


@dataclass(frozen=True)
class ContentMeanConfig:
    """A user as the mean of content.

    Attributes:
        kernel: The features in which the mean and the cosine are taken.
    """

    kernel: KernelConfig = field(default_factory=KernelConfig)


class ContentMean(ContentModel[ContentMeanConfig]):
    """Score by cosine to the mean of the history's unit content vectors.

    This is Rocchio's profile without negative examples (Rocchio 1971; as a recommender: Pazzani
    and Billsus 2007, "Content-based recommendation systems"). Nothing is learned from who took
    what, so warm and cold items are on one scale.

    Shapes:
        content: ``[I, D]``, unit rows; an item without content has a zero row and scores zero.

    Example:
        >>> from mmalign.interfaces import Feature
        >>> values = np.array([[2, 0], [1, 0], [0, 1], [3, 0]], np.float32)
        >>> x = Feature(values, np.ones(4, bool))
        >>> history = sp.csr_matrix(np.array([[1, 0, 0, 0], [0, 1, 1, 0]], np.float32))
        >>> model = ContentMean(ContentMeanConfig()).fit(TrainData(history, {"text": x}))
        >>> model.score(history, np.array([3, 2])).round(2)[0]
        array([ 0.99, -0.78], dtype=float32)
    """

    serves_cold: ClassVar[bool] = True

    def fit(self, data: TrainData) -> Self:
        """Fit the kernel on warm items; nothing else is learned."""
        self.fit_content(data)
        self.content = _directions(self.content)
        return self

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Cosine of each candidate to the history's mean; cold items of a history count too."""
        profile = _directions(np.asarray(sp.csr_matrix(history) @ self.content, np.float32))
        scores: FloatArray = profile @ self.content[items].T
        return scores

    def _append(self, features: Features, count: int) -> None:
        new = _directions(self.kernel.transform(features))
        self.content = np.concatenate([self.content, new])


def _directions(rows: FloatArray) -> FloatArray:
    """Scale rows to length one; zero rows, which have no direction, stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float32)
