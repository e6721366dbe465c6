"""PGL: message passing on the principal part of the interactions, items made of content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.graph.propagation import SparseOperator
from mmalign.models.base import TrainData
from mmalign.models.neural.base import ContentNeuralModel, NeuralConfig, Triplets, pair_scores
from mmalign.models.neural.graphs import item_graphs, mix, propagate, prune_edges
from mmalign.objectives import ranking
from mmalign.objectives.alignment import info_nce

__all__ = ["PGL", "PGLConfig"]

TEMPERATURE = 0.2


@dataclass(frozen=True)
class PGLConfig(NeuralConfig):
    """PGL.

    Attributes:
        num_layers: Rounds over users and items.
        item_layers: Rounds over the item graph.
        neighbours: Per item and modality, itself included.
        image_weight: Of the image graph; the others share the rest.
        kept: Share of interactions that pass messages in training, drawn anew each epoch.
        dropout: On the two views of the contrast.
        contrast_weight: Weight of the contrast.
        modalities: Content to read; empty means all.
    """

    num_layers: int = 2
    item_layers: int = 1
    neighbours: int = 10
    image_weight: float = 0.1
    kept: float = 0.3
    dropout: float = 0.2
    contrast_weight: float = 0.1
    modalities: tuple[str, ...] = ()


class _Network(nn.Module):
    def __init__(self, config: PGLConfig, num_users: int, inputs: dict[str, Tensor]) -> None:
        super().__init__()
        dim = config.embedding_dim
        width = dim * len(inputs)
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_users, width)))
        self.projections = nn.ModuleList(nn.Linear(x.shape[1], dim) for x in inputs.values())
        self.features = nn.ParameterList(x.clone() for x in inputs.values())

    def items(self) -> Tensor:
        """``[W, M D]``: unit rows of each modality's projection, side by side."""
        pairs = zip(self.projections, self.features, strict=True)
        return torch.cat([F.normalize(p(x), dim=1) for p, x in pairs], dim=1)


class PGL(ContentNeuralModel[PGLConfig]):
    """Yu et al., 2025, "Mind individual information! Principal graph learning", AAAI 2025.

    An item is its modalities' projections side by side, a user a free vector as wide. LightGCN
    runs in training on a share of the interactions that favours those of rare nodes (the paper's
    local-aware extraction; the global-aware one by SVD is left out) and on all of them when
    ranking; items add their own vectors smoothed over the mixed content graph. BPR, and InfoNCE
    between two dropouts of the batch's vectors. As in the reference code, warm items' features are
    the start of parameters: they take the place of ids, so no cold item can be placed.
    """

    network: _Network
    items_graph: SparseOperator
    principal: SparseOperator

    def prepare(self, data: TrainData) -> None:
        """Link items, then as always."""
        super().prepare(data)
        graphs = item_graphs(data, self.config.neighbours, tuple(self.content.means))
        self.items_graph = mix(graphs, self.config.image_weight)
        self.principal = self.graph

    def build(self, num_users: int, num_items: int) -> _Network:
        """Users, features and projections."""
        return _Network(self.config, num_users, self.inputs)

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Draw the principal interactions."""
        self.principal = SparseOperator(prune_edges(self.graph.csr, self.config.kept, rng))

    def embed(self) -> tuple[Tensor, Tensor]:
        """On all interactions."""
        return self._embed(self.graph)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """BPR and the contrast of dropouts, on the principal interactions."""
        users, items = self._embed(self.principal)
        rows = users[torch.unique(batch.users)], items[torch.unique(batch.positives)]
        contrast = [
            info_nce(
                F.dropout(x, self.config.dropout), F.dropout(x, self.config.dropout), TEMPERATURE
            )
            for x in rows
        ]
        return {
            "bpr": ranking.bpr(*pair_scores(users, items, batch)),
            "contrast": self.config.contrast_weight * torch.stack(contrast).mean(),
        }

    def _embed(self, graph: SparseOperator) -> tuple[Tensor, Tensor]:
        start = self.network.items()
        users, items = propagate(self.network.users, start, graph, self.config.num_layers)
        for _ in range(self.config.item_layers):
            start = self.items_graph @ start
        return users, items + start
