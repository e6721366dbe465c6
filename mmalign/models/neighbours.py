"""Nearest-neighbour models: by who took what, and by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError
from mmalign.graph.knn import content_knn
from mmalign.interfaces import Feature, Features, FloatArray, IntArray
from mmalign.models.base import Arrays, C, Model, TrainData
from mmalign.models.kernel import ContentModel, KernelConfig

__all__ = ["ContentKNN", "ContentKNNConfig", "ItemKNN", "ItemKNNConfig"]


@dataclass(frozen=True)
class ItemKNNConfig:
    """Neighbours by co-interaction.

    Attributes:
        neighbours: Kept per item.
        shrinkage: Added to the denominator of the cosine, in interactions.

    Raises:
        ConfigError: ``neighbours`` is below 1, or ``shrinkage`` below 0.
    """

    neighbours: int = 100
    shrinkage: float = 10.0

    def __post_init__(self) -> None:
        _check_neighbours(self.neighbours)
        if not 0 <= self.shrinkage < np.inf:
            raise ConfigError("shrinkage must not be negative", got=self.shrinkage, fix="try 10")


class _ItemItem(Model[C]):
    """Scores are the history times a sparse item-item matrix ``weights [I, I]``."""

    weights: sp.csr_matrix

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Sum the weights from the history's items to each candidate."""
        full = (sp.csr_matrix(history) @ self.weights).tocsc()[:, items]
        scores: FloatArray = full.toarray().astype(np.float32)
        return scores

    def item_vectors(self) -> FloatArray:
        """``[I, I]``: the weights that point to each item."""
        vectors: FloatArray = self.weights.T.toarray().astype(np.float32)
        return vectors

    def _append(self, features: Features, count: int) -> None:
        self.weights.resize((len(self.warm), len(self.warm)))

    def arrays(self) -> Arrays:
        """The sparse weights beside all else that was learned."""
        w = self.weights
        sparse = {"data": w.data, "indices": w.indices, "indptr": w.indptr}
        return super().arrays() | {f"weights.{name}": part for name, part in sparse.items()}

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        super().load_arrays(arrays)
        parts = tuple(arrays[f"weights.{name}"] for name in ("data", "indices", "indptr"))
        self.weights = sp.csr_matrix(parts, shape=(len(self.warm), len(self.warm)))
        self.weights.check_format()
        return self


class ItemKNN(_ItemItem[ItemKNNConfig]):
    """Item-based nearest neighbours by shrunk cosine (Deshpande and Karypis 2004, TOIS 22(1))."""

    def fit(self, data: TrainData) -> Self:
        """Keep each item's strongest co-interaction cosines."""
        self.warm = data.warm
        binary = data.matrix.copy()
        binary.data[:] = 1
        together = (binary.T @ binary).tocsr()  # sorted, so equal cosines go to the lower row
        norms = np.sqrt(np.asarray(binary.sum(axis=0)).ravel())
        rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
        together.data[rows == together.indices] = 0
        together.data = together.data / (
            norms[rows] * norms[together.indices] + self.config.shrinkage
        )
        self.weights = _strongest(together, self.config.neighbours).T.tocsr().astype(np.float32)
        return self


@dataclass(frozen=True)
class ContentKNNConfig:
    """Neighbours by content.

    Attributes:
        neighbours: Warm neighbours per item.
        kernel: The features in which cosine is taken.

    Raises:
        ConfigError: ``neighbours`` is below 1.
    """

    neighbours: int = 50
    kernel: KernelConfig = field(default_factory=KernelConfig)

    def __post_init__(self) -> None:
        _check_neighbours(self.neighbours)


class ContentKNN(_ItemItem[ContentKNNConfig], ContentModel[ContentKNNConfig]):
    """Score an item by the history's items among its nearest warm neighbours in content."""

    serves_cold: ClassVar[bool] = True

    def fit(self, data: TrainData) -> Self:
        """Find every item's nearest warm items."""
        self.fit_content(data)
        self._link()
        return self

    def item_vectors(self) -> FloatArray:
        """``[I, D]`` content features."""
        return self.content

    def _append(self, features: Features, count: int) -> None:
        ContentModel._append(self, features, count)
        self._link()

    def _link(self) -> None:
        feature = Feature(self.content, (self.content != 0).any(axis=1))
        self.weights = content_knn(feature, self.config.neighbours, sources=self.warm).T.tocsr()


def _check_neighbours(value: int) -> None:
    if value < 1:
        raise ConfigError("neighbours must be at least 1", got=value, fix="try 50")


def _strongest(matrix: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """Keep the ``k`` largest positive entries of each row."""
    data, indices, indptr = [], [], [0]
    for row in range(matrix.shape[0]):
        start, stop = matrix.indptr[row], matrix.indptr[row + 1]
        values, columns = matrix.data[start:stop], matrix.indices[start:stop]
        order = np.argsort(-values, kind="stable")[:k]
        order = order[values[order] > 0]
        data.append(values[order])
        indices.append(columns[order])
        indptr.append(indptr[-1] + len(order))
    return sp.csr_matrix(
        (np.concatenate(data), np.concatenate(indices), indptr), shape=matrix.shape
    )
