"""LightGCN: ids, propagated over who took what."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmalign.models.neural.base import (
    Embeddings,
    NeuralConfig,
    NeuralModel,
    Triplets,
    pair_scores,
    squared_norm,
)
from mmalign.models.neural.graphs import propagate
from mmalign.objectives import ranking

__all__ = ["LightGCN", "LightGCNConfig"]


@dataclass(frozen=True)
class LightGCNConfig(NeuralConfig):
    """LightGCN.

    Attributes:
        num_layers: Rounds of message passing.
        regularization: Weight of the squared norm of the ids in a batch.
    """

    learning_rate: float = 5e-3
    num_layers: int = 3
    regularization: float = 1e-4


class LightGCN(NeuralModel[LightGCNConfig]):
    """He et al., 2020, "LightGCN", arXiv:2002.02126.

    ``s_ui = <mean_k e_u^(k), mean_k e_i^(k)>`` with ``e^(k+1)`` the neighbours' ``e^(k)`` under
    symmetric normalisation and ``e^(0)`` free parameters; BPR and an L2 term on ``e^(0)``.
    """

    network: Embeddings

    def build(self, num_users: int, num_items: int) -> Embeddings:
        """Ids of users and items."""
        return Embeddings(num_users, num_items, self.config.embedding_dim)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Propagated ids."""
        ids = self.network
        return propagate(ids.users, ids.items, self.graph, self.config.num_layers)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """BPR and the norm of the batch's ids."""
        ids, negatives = self.network, batch.negatives
        norm = squared_norm(
            ids.users[batch.users],
            ids.items[batch.positives],
            ids.items[negatives].flatten(1),
        )
        return {
            "bpr": ranking.bpr(*pair_scores(*self.embed(), batch)),
            "l2": self.config.regularization * norm,
        }
