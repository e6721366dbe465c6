"""FREEDOM: a frozen item graph beside a thinned user-item graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mmalign.graph.propagation import SparseOperator
from mmalign.models.base import TrainData
from mmalign.models.neural.base import (
    ContentNeuralModel,
    Embeddings,
    NeuralConfig,
    Triplets,
    pair_scores,
    squared_norm,
)
from mmalign.models.neural.content import Projections
from mmalign.models.neural.graphs import item_graphs, mix, propagate, prune_edges
from mmalign.objectives import ranking

__all__ = ["Freedom", "FreedomConfig", "FreedomNetwork", "bpr"]


@dataclass(frozen=True)
class FreedomConfig(NeuralConfig):
    """FREEDOM.

    Attributes:
        num_layers: Rounds over users and items.
        item_layers: Rounds over the item graph.
        neighbours: Per item and modality, itself included.
        image_weight: Of the image graph; the others share the rest.
        pruned: Share of interactions left out of message passing, drawn anew each epoch.
        modality_weight: Of ranking by each modality's projection.
        l2: Of the batch's own embeddings; the paper has none.
        modalities: Content to read; empty means all.
    """

    num_layers: int = 2
    item_layers: int = 1
    neighbours: int = 10
    image_weight: float = 0.1
    pruned: float = 0.8
    modality_weight: float = 1e-3
    l2: float = 0.0
    modalities: tuple[str, ...] = ()


class FreedomNetwork(nn.Module):
    """Ids, and a projection per modality."""

    ids: Embeddings
    projections: Projections

    def __init__(self, ids: Embeddings, projections: Projections) -> None:
        super().__init__()
        self.ids, self.projections = ids, projections


Rank: TypeAlias = Callable[[Tensor, Tensor, Triplets], dict[str, Tensor]]
"""Users ``[U, D]``, items ``[W, D]`` and a batch to named terms of a loss."""


def bpr(users: Tensor, items: Tensor, batch: Triplets) -> dict[str, Tensor]:
    """Rank each positive above its negatives."""
    return {"bpr": ranking.bpr(*pair_scores(users, items, batch))}


class Freedom(ContentNeuralModel[FreedomConfig]):
    """Zhou and Shen, 2023, "A tale of two graphs", arXiv:2211.06924.

    ``e_u = mean_k e_u^(k)``, ``e_i = mean_k e_i^(k) + S^L e_i^(0)``: LightGCN, plus ids smoothed
    over the mixed content graph ``S``, which never changes. In training LightGCN runs on a share
    of the interactions that favours those of rare nodes. BPR on ``e``, and with a small weight
    BPR of ``e_u`` against each modality's linear projection. Features stay frozen, where the
    reference code trains a copy. Without features, given neighbour lists do.
    """

    network: FreedomNetwork
    items_graph: SparseOperator
    thinned: SparseOperator

    @classmethod
    def can_fit(cls, *, features: bool, neighbours: bool) -> bool:
        """Either of the two links items."""
        return features or neighbours

    def prepare(self, data: TrainData) -> None:
        """Link items, then as always."""
        self.items_graph = self.link(data)
        super().prepare(data)
        self.thinned = self.graph

    def link(self, data: TrainData) -> SparseOperator:
        """Link warm items by content, ``[W, W]``."""
        graphs = item_graphs(data, self.config.neighbours, self.config.modalities)
        return mix(graphs, self.config.image_weight)

    def build(self, num_users: int, num_items: int) -> nn.Module:
        """One network."""
        return self.new_network(num_users, num_items)

    def new_network(self, num_users: int, num_items: int) -> FreedomNetwork:
        """Ids, and a projection per modality."""
        dim = self.config.embedding_dim
        return FreedomNetwork(Embeddings(num_users, num_items, dim), Projections(self.inputs, dim))

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Thin the interactions."""
        self.thinned = self.thin(rng)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Both views on all interactions."""
        return self.embed_by(self.network, self.graph)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """BPR on the thinned graph, and by each modality."""
        return self.loss_of(self.network, self.thinned, batch)

    def thin(self, rng: np.random.Generator) -> SparseOperator:
        """Draw the interactions that pass messages for an epoch."""
        return SparseOperator(prune_edges(self.graph.csr, 1 - self.config.pruned, rng))

    def loss_of(
        self,
        network: FreedomNetwork,
        thinned: SparseOperator,
        batch: Triplets,
        rank: Rank = bpr,
    ) -> dict[str, Tensor]:
        """Terms of the loss of one network, the first by how items are ranked."""
        users, items = self.embed_by(network, thinned)
        losses = rank(users, items, batch)
        if self.config.l2:
            drawn = network.ids.users[batch.users], network.ids.items[batch.positives]
            losses["l2"] = self.config.l2 * squared_norm(*drawn)
        by_content = [
            ranking.bpr(*pair_scores(users, projected, batch))
            for projected in network.projections()
        ]
        if by_content:
            losses["modality"] = self.config.modality_weight * torch.stack(by_content).sum()
        return losses

    def embed_by(self, network: FreedomNetwork, graph: SparseOperator) -> tuple[Tensor, Tensor]:
        """Users ``[U, D]`` and warm items ``[W, D]`` by one network's ids."""
        ids = network.ids
        users, items = propagate(ids.users, ids.items, graph, self.config.num_layers)
        smooth: Tensor = ids.items
        for _ in range(self.config.item_layers):
            smooth = self.items_graph @ smooth
        return users, items + smooth
