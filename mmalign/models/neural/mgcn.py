"""MGCN: content purified by behaviour, smoothed over items, fused by attention."""

from __future__ import annotations

from dataclasses import dataclass

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
from mmalign.models.neural.graphs import item_graphs, propagate
from mmalign.objectives import ranking
from mmalign.objectives.alignment import info_nce

__all__ = ["MGCN", "MGCNConfig"]

TEMPERATURE = 0.2


@dataclass(frozen=True)
class MGCNConfig(NeuralConfig):
    """MGCN.

    Attributes:
        num_layers: Rounds over users and items.
        item_layers: Rounds over each modality's item graph.
        neighbours: Per item and modality, itself included.
        contrast_weight: Weight of the contrast between content and behaviour.
        regularization: Weight of the squared norm of the batch's vectors.
        modalities: Content to read; empty means all.
    """

    learning_rate: float = 5e-3
    num_layers: int = 2
    item_layers: int = 1
    neighbours: int = 10
    contrast_weight: float = 1e-2
    regularization: float = 1e-4
    modalities: tuple[str, ...] = ()


def _gate(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid())


class _Network(nn.Module):
    ids: Embeddings
    projections: Projections

    def __init__(self, ids: Embeddings, projections: Projections) -> None:
        super().__init__()
        self.ids, self.projections = ids, projections
        dim = ids.users.shape[1]
        self.purify = nn.ModuleList(_gate(dim) for _ in projections.maps)
        self.prefer = nn.ModuleList(_gate(dim) for _ in projections.maps)
        self.attend = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))


class MGCN(ContentNeuralModel[MGCNConfig]):
    """Yu et al., 2023, "Multi-view graph convolutional network", arXiv:2308.03588.

    Behaviour: LightGCN on ids, ``h``. Content, per modality ``m``: ids through a gate that content
    opens, ``e_i * sigmoid(W x_im)``, smoothed over the modality's item graph, and carried to users
    by the normalised interactions. Attention over modalities gives the common part ``c``; what a
    modality has beyond it passes a gate that ``h`` opens: ``s = mean of c and the gated rests``.
    Ranked by ``h + s``; BPR, L2, and InfoNCE between ``s`` and ``h``, here in both directions and
    with each user and item of a batch once. Links between items have weight one, where the authors'
    code keeps cosines; features stay frozen, and the rate does not fall.
    """

    network: _Network
    item_graphs: list[SparseOperator]

    def prepare(self, data: TrainData) -> None:
        """Link items by each modality."""
        super().prepare(data)
        names = tuple(self.content.means)
        graphs = item_graphs(data, self.config.neighbours, names)
        self.item_graphs = [graphs[name] for name in names]

    def build(self, num_users: int, num_items: int) -> _Network:
        """Ids, projections, gates and attention."""
        dim = self.config.embedding_dim
        return _Network(Embeddings(num_users, num_items, dim), Projections(self.inputs, dim))

    def embed(self) -> tuple[Tensor, Tensor]:
        """Behaviour plus content."""
        behaviour, content = self._views()
        return self._sides(behaviour + content)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """BPR, contrast of the two views, norm."""
        behaviour, content = self._views()
        users, items = self._sides(behaviour + content)
        norm = squared_norm(
            users[batch.users], items[batch.positives], items[batch.negatives].flatten(1)
        )
        rows = torch.unique(batch.users), torch.unique(batch.positives) + len(users)
        contrast = [info_nce(content[row], behaviour[row], TEMPERATURE) for row in rows]
        return {
            "bpr": ranking.bpr(*pair_scores(users, items, batch)),
            "contrast": self.config.contrast_weight * torch.stack(contrast).sum(),
            "l2": self.config.regularization * norm,
        }

    def _sides(self, both: Tensor) -> tuple[Tensor, Tensor]:
        num_users = self.graph.shape[0]
        return both[:num_users], both[num_users:]

    def _views(self) -> tuple[Tensor, Tensor]:
        """Behaviour and content of users, then items: ``[U + W, D]`` each."""
        net, config = self.network, self.config
        ids = net.ids
        behaviour = torch.cat(propagate(ids.users, ids.items, self.graph, config.num_layers))
        views = []
        parts = zip(net.projections(), net.purify, self.item_graphs, strict=True)
        for projected, purify, graph in parts:
            items = ids.items * purify(projected)
            for _ in range(config.item_layers):
                items = graph @ items
            views.append(torch.cat([self.graph.symmetric @ items, items]))
        stacked = torch.stack(views, dim=1)
        common = (net.attend(stacked).softmax(dim=1) * stacked).sum(dim=1)
        rests = [
            prefer(behaviour) * (view - common)
            for prefer, view in zip(net.prefer, views, strict=True)
        ]
        return behaviour, (common + sum(rests)) / (len(rests) + 1)
