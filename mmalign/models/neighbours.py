"""Nearest-neighbour models: by who took what, and by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError
from mmalign.graph.knn import content_knn, interaction_knn
from mmalign.interfaces import Feature, Features, FloatArray, IntArray
from mmalign.models.base import Arrays, C, Model, TrainData
from mmalign.models.checks import check_positive, check_within
from mmalign.models.kernel import ContentModel, KernelConfig

__all__ = [
    "ContentKNN",
    "ContentKNNConfig",
    "ItemItem",
    "ItemKNN",
    "ItemKNNConfig",
    "normalised",
]


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
        check_positive(neighbours=self.neighbours)
        check_within("[0, inf)", shrinkage=self.shrinkage)


class ItemItem(Model[C]):
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


class ItemKNN(ItemItem[ItemKNNConfig]):
    """Item-based nearest neighbours by shrunk cosine (Deshpande and Karypis 2004, TOIS 22(1)).

    Each candidate keeps its own nearest, as in Dacrema et al. 2019 (arXiv:1907.06902), so that all
    of them can be recommended; the first paper keeps those of the items of a history.
    """

    def fit(self, data: TrainData) -> Self:
        """Keep each item's strongest co-interaction cosines."""
        self.warm = data.warm
        near = interaction_knn(data.matrix, self.config.neighbours, self.config.shrinkage)
        self.weights = near.T.tocsr()
        return self


@dataclass(frozen=True)
class ContentKNNConfig:
    """Neighbours by content.

    Attributes:
        neighbours: Warm neighbours per item.
        hops: Steps over the graph of neighbours; with 3, neighbours of neighbours of neighbours
            of the history still score.
        kernel: The features in which cosine is taken.

    Raises:
        ConfigError: ``neighbours`` or ``hops`` is below 1.
    """

    neighbours: int = 50
    hops: int = 1
    kernel: KernelConfig = field(default_factory=KernelConfig)

    def __post_init__(self) -> None:
        check_positive(neighbours=self.neighbours)
        if self.hops < 1:
            raise ConfigError("hops must be at least 1", got=self.hops, fix="try 1 or 3")


class ContentKNN(ItemItem[ContentKNNConfig], ContentModel[ContentKNNConfig]):
    """Score by ``r_u (S + S^2 + ... + S^hops)`` with ``S`` the graph of content neighbours.

    ``S`` leads from each item's nearest warm items to the item, normalised as in
    :func:`normalised`. No edge leaves a cold item, so that new ones are reached by paths over warm
    ones and change nothing else. The powers are never formed: histories walk.
    """

    serves_cold: ClassVar[bool] = True

    def fit(self, data: TrainData) -> Self:
        """Find every item's nearest warm items."""
        self.fit_content(data)
        self._link()
        return self

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Sum the weights of all paths of up to ``hops`` steps from the history."""
        reached = sp.csr_matrix(history)
        total = sp.csr_matrix(reached.shape, dtype=np.float32)
        for _ in range(self.config.hops):
            reached = reached @ self.weights
            total = total + reached
        scores: FloatArray = total.tocsc()[:, items].toarray().astype(np.float32)
        return scores

    def item_vectors(self) -> FloatArray:
        """``[I, D]`` content features."""
        return self.content

    def _append(self, features: Features, count: int) -> None:
        ContentModel._append(self, features, count)
        self._link()

    def _link(self) -> None:
        feature = Feature(self.content, (self.content != 0).any(axis=1))
        graph = content_knn(feature, self.config.neighbours, sources=self.warm)
        self.weights = normalised(graph).T.tocsr()


def normalised(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Divide each weight by the square roots of the row sums of both its ends.

    This is the normalisation of graph convolutions (Kipf and Welling 2017, arXiv 1609.02907); an
    item without neighbours keeps an empty row.

    Shapes:
        graph: ``[I, I]`` sparse, row i holding the neighbours of i; returns the same.

    Example:
        >>> normalised(sp.csr_matrix(np.array([[0.0, 1.0], [4.0, 0.0]]))).toarray()
        array([[0. , 0.5],
               [2. , 0. ]], dtype=float32)
    """
    sums = np.asarray(graph.sum(axis=1), np.float64).ravel()
    scale = sp.diags_array(np.divide(1, np.sqrt(sums), out=np.zeros_like(sums), where=sums > 0))
    return sp.csr_matrix(scale @ graph @ scale, dtype=np.float32)
