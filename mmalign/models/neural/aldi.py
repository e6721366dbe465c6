"""ALDI: a student of content, taught the scores of a collaborative teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.models.neural.base import Triplets, pair_scores
from mmalign.models.neural.transfer import (
    TransferConfig,
    TransferModel,
    TransferNetwork,
    tanh_tower,
)
from mmalign.objectives import ranking

__all__ = ["ALDI", "ALDIConfig"]


@dataclass(frozen=True)
class ALDIConfig(TransferConfig):
    """ALDI.

    Attributes:
        rating: Weight of matching the teacher's scores.
        ranking: Weight of matching the teacher's differences between taken and not taken.
        identity: Weight of matching how far an item stands out from others.
    """

    rating: float = 0.1
    ranking: float = 0.9
    identity: float = 0.05


class _Network(TransferNetwork):
    def __init__(self, config: ALDIConfig, *constants: Tensor) -> None:
        super().__init__(*constants)
        dim, hidden = config.embedding_dim, config.hidden_dim
        self.user_map = tanh_tower(dim, hidden, dim)
        self.item_map = tanh_tower(self.content.shape[1], hidden, dim)


class ALDI(TransferModel[ALDIConfig]):
    """Huang et al., 2023, "Aligning distillation for cold-start item recommendation", CIKM 2023.

    doi:10.1145/3583780.3614732. The teacher scores by ``<U_u, V_i>``, the student by
    ``<f(U_u), g(x_i)>``. The student minimises BPR plus three alignments: absolute differences of
    scores (rating); cross entropy between ``sigmoid(s_i - s_j)`` of both, for what was taken and
    not (ranking); and the same for ``<z_i, z_i> - mean_j <z_i, z_j>``, an item against the
    negatives of the batch (identification). Warm items are ranked by the teacher, cold ones by
    the student. Left out: the weights that grow with an item's popularity.
    """

    network: _Network

    def build(self, num_users: int, num_items: int) -> _Network:
        """The student's two maps."""
        return _Network(self.config, *self.constants())

    def map_users(self, start: Tensor) -> Tensor:
        """``[U, f(U)]``: the teacher's half meets warm items, the student's half cold ones."""
        return torch.cat([start, self.network.user_map(start)], dim=1)

    def embed(self) -> tuple[Tensor, Tensor]:
        """The teacher's vectors; items ``[V, 0]``."""
        net = self.network
        return self.map_users(net.users), torch.cat([net.items, net.items * 0], dim=1)

    def encode(self, content: Tensor) -> Tensor:
        """Items ``[0, g(x)]``."""
        student = self.network.item_map(content)
        return torch.cat([student * 0, student], dim=1)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """BPR of the student and the three alignments."""
        net, config = self.network, self.config
        users, items = net.user_map(net.users), net.item_map(net.content)
        positive, negative = pair_scores(users, items, batch)
        taught_positive, taught_negative = pair_scores(net.users, net.items, batch)
        gaps = (positive - taught_positive).abs() + (negative - taught_negative).abs().mean(dim=1)
        return {
            "bpr": ranking.bpr(positive, negative),
            "rating": config.rating * gaps.mean(),
            "ranking": config.ranking
            * _match(positive[:, None] - negative, taught_positive[:, None] - taught_negative),
            "identity": config.identity
            * _match(_standing(items, batch), _standing(net.items, batch)),
        }


def _standing(items: Tensor, batch: Triplets) -> Tensor:
    """``[B]``: ``<z_i, z_i> - mean_j <z_i, z_j>`` over the negatives of the whole batch."""
    taken = items[batch.positives]
    others = items[batch.negatives.flatten()].mean(dim=0)
    return (taken * taken).sum(dim=1) - taken @ others


def _match(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy between the odds of both."""
    return F.binary_cross_entropy_with_logits(student, teacher.detach().sigmoid())
