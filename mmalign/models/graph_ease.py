"""EASE that knows which items are alike, for items that somebody took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from mmalign.graph.propagation import SparseOperator, symmetric_normalise
from mmalign.interfaces import FloatArray
from mmalign.models.base import TrainData
from mmalign.models.checks import check_positive, check_within
from mmalign.models.closed_form import WarmWeights, ease_weights
from mmalign.models.neural.graphs import item_graphs, mix

__all__ = ["GraphEase", "GraphEaseConfig"]


@dataclass(frozen=True)
class GraphEaseConfig:
    """EASE with an item graph.

    Attributes:
        l2: EASE's penalty, in interactions.
        user_power: A user with n interactions counts ``n ** -user_power`` in each of them.
        graph_weight: Of the item graph next to interactions in EASE itself.
        smoothing: Share of an item's weights that the items like it are given as well.
        low_rank: Weight of the low-pass filter next to EASE, in EASE's mean size.
        rank: Of that filter.
        neighbours: Per item and modality, itself included; given lists stay as they are.
        image_weight: Of the image graph; the others share the rest.
        modalities: Content that links items; empty means all.

    Raises:
        ConfigError: A number is out of its range.
    """

    l2: float = 200.0
    user_power: float = 0.5
    graph_weight: float = 15.0
    smoothing: float = 0.4
    low_rank: float = 0.3
    rank: int = 64
    neighbours: int = 10
    image_weight: float = 0.2
    modalities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_positive(l2=self.l2, rank=self.rank, neighbours=self.neighbours)
        check_within("[0, 1]", user_power=self.user_power, image_weight=self.image_weight)
        check_within(
            "[0, inf)",
            graph_weight=self.graph_weight,
            smoothing=self.smoothing,
            low_rank=self.low_rank,
        )


class GraphEase(WarmWeights[GraphEaseConfig]):
    """EASE, an item graph inside it, and a low-pass filter beside it, as item-item weights.

    EASE (Steck 2019, arXiv:1905.03375) solves from the Gram matrix of interactions, to which
    ``S + 2 S^2`` of the symmetric item graph S is added as in collective EASE (Jeunen, Van Balen
    and Goethals 2020): items alike and their neighbours count as if taken together. What an item
    says of others is then also said by the items like it, ``B + s S B``. The projection on the
    leading singular vectors of interactions, smoothed over the graph and normalised by degree, is
    the ideal low-pass filter of GF-CF (Shen et al. 2021, arXiv:2108.07567). Content is read from
    given neighbour lists or from features; without either the graph is left out.
    """

    uses_content: ClassVar[bool] = True

    @classmethod
    def can_fit(cls, *, features: bool, neighbours: bool) -> bool:
        """Interactions alone will do."""
        return True

    def fit(self, data: TrainData) -> Self:
        """Link items, then solve."""
        self.warm = data.warm
        matrix = sp.csr_matrix(data.matrix[:, self.warm], dtype=np.float32)
        links = self._links(data)
        self.weights = self._ease(matrix, links)
        self.weights += self.config.smoothing * (links @ self.weights)
        if self.config.low_rank and min(matrix.shape) > 1:
            filtered = self._low_pass(matrix, links)
            size = np.abs(self.weights).mean() / np.abs(filtered).mean()
            self.weights += self.config.low_rank * size * filtered
        return self

    def _links(self, data: TrainData) -> sp.csr_matrix:
        """``[W, W]``, symmetric; empty without content."""
        if not (data.features or data.neighbours):
            count = int(self.warm.sum())
            return sp.csr_matrix((count, count), dtype=np.float32)
        graphs = item_graphs(data, self.config.neighbours, self.config.modalities)
        either_way = {name: SparseOperator(_either_way(g.csr)) for name, g in graphs.items()}
        return mix(either_way, self.config.image_weight).csr

    def _ease(self, matrix: sp.csr_matrix, links: sp.csr_matrix) -> FloatArray:
        count = np.maximum(matrix.getnnz(axis=1), 1)
        user_weight = count**-self.config.user_power
        user_weight *= matrix.nnz / (user_weight @ matrix.getnnz(axis=1))
        weighted = sp.csr_matrix(sp.diags_array(np.sqrt(user_weight)) @ matrix, dtype=np.float32)
        prior = self.config.graph_weight * (links + 2 * links @ links)
        return ease_weights(weighted, self.config.l2, prior.toarray(), np.float32)

    def _low_pass(self, matrix: sp.csr_matrix, links: sp.csr_matrix) -> FloatArray:
        """``D^-1/2 V V' D^1/2``, ``[W, W]``, for the degrees D of items."""
        users, items = (np.maximum(matrix.getnnz(axis=axis), 1) ** 0.5 for axis in (1, 0))
        normal = sp.diags_array(1 / users) @ matrix @ sp.diags_array(1 / items)
        smooth = sp.csr_matrix(normal + normal @ links / 2, dtype=np.float32)
        rank = min(self.config.rank, min(smooth.shape) - 1)
        right = svds(smooth, k=rank, random_state=0)[2]
        filtered: FloatArray = (right / items).T @ (right * items)
        return filtered.astype(np.float32)


def _either_way(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Link items of which either lists the other, none to itself, normalised by degree."""
    pattern = sp.csr_matrix(graph + graph.T, dtype=np.float32)
    pattern.setdiag(0)
    pattern.eliminate_zeros()
    pattern.data[:] = 1
    degree = pattern.getnnz(axis=1).astype(np.float32)
    return symmetric_normalise(pattern, degree, degree)
