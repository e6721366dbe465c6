"""VBPR: matrix factorisation with a second set of factors that are read off the content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmalign.models.neural.base import (
    ContentNeuralModel,
    Embeddings,
    NeuralConfig,
    Triplets,
    pair_scores,
    squared_norm,
)
from mmalign.objectives import ranking

__all__ = ["VBPR", "VBPRConfig"]


@dataclass(frozen=True)
class VBPRConfig(NeuralConfig):
    """VBPR.

    Attributes:
        content_dim: Factors that are read off the content, beside ``embedding_dim`` free ones.
        regularization: Weight of the squared norm of the factors in a batch.
        modalities: Content to read; empty means all.
    """

    learning_rate: float = 2e-3
    content_dim: int = 64
    regularization: float = 1e-4
    modalities: tuple[str, ...] = ()


class _Network(nn.Module):
    content: Tensor

    def __init__(self, config: VBPRConfig, num_users: int, content: Tensor, num_items: int) -> None:
        super().__init__()
        self.ids = Embeddings(num_users, num_items, config.embedding_dim)
        self.tastes = nn.Parameter(
            nn.init.xavier_uniform_(torch.empty(num_users, config.content_dim))
        )
        self.project = nn.Linear(content.shape[1], config.content_dim, bias=False)
        self.content_bias = nn.Linear(content.shape[1], 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_items, 1))
        self.register_buffer("content", content, persistent=False)


class VBPR(ContentNeuralModel[VBPRConfig]):
    """He and McAuley, 2016, "VBPR: visual Bayesian personalized ranking", arXiv:1510.01784.

    ``s_ui = b_i + <p_u, q_i> + <t_u, E x_i> + <c, x_i>`` with BPR and L2 terms; ``x`` are all
    modalities side by side where the paper has pictures. A cold item has no ``b`` and no ``q``.
    The global and the user's bias cancel in every ranking and are left out.
    """

    serves_cold: ClassVar[bool] = True
    network: _Network

    def build(self, num_users: int, num_items: int) -> _Network:
        """Free factors, tastes, and the projection of content."""
        return _Network(self.config, num_users, self.concatenated, num_items)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Users ``[p, t, 1]``, items ``[q, E x, b + c x]``."""
        net = self.network
        ones = torch.ones_like(net.ids.users[:, :1])
        bias = net.bias + net.content_bias(net.content)
        return (
            torch.cat([net.ids.users, net.tastes, ones], dim=1),
            torch.cat([net.ids.items, net.project(net.content), bias], dim=1),
        )

    def encode(self, content: Tensor) -> Tensor:
        """Items ``[0, E x, c x]``."""
        free = content.new_zeros(len(content), self.config.embedding_dim)
        return torch.cat(
            [free, self.network.project(content), self.network.content_bias(content)], dim=1
        )

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """BPR and the norm of the batch's factors."""
        users, items = self.embed()
        norm = squared_norm(
            users[batch.users, :-1],
            items[batch.positives],
            items[batch.negatives].flatten(1),
        )
        return {
            "bpr": ranking.bpr(*pair_scores(users, items, batch)),
            "l2": self.config.regularization * norm,
        }
