"""DropoutNet: a network that learns to do without the collaborative half of its input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.models.neural.base import Triplets, pair_scores
from mmalign.models.neural.transfer import (
    TransferConfig,
    TransferModel,
    TransferNetwork,
    tanh_tower,
)

__all__ = ["DropoutNet", "DropoutNetConfig"]


@dataclass(frozen=True)
class DropoutNetConfig(TransferConfig):
    """DropoutNet.

    Attributes:
        dropout: Probability that an item's collaborative vector is hidden in a step.
    """

    negatives: int = 4
    dropout: float = 0.5


class _Network(TransferNetwork):
    def __init__(self, config: DropoutNetConfig, *constants: Tensor) -> None:
        super().__init__(*constants)
        dim = config.embedding_dim
        self.user_tower = tanh_tower(dim, config.hidden_dim, dim)
        self.item_tower = tanh_tower(dim + self.content.shape[1], config.hidden_dim, dim)


class DropoutNet(TransferModel[DropoutNetConfig]):
    """Volkovs, Yu and Poutanen, 2017, "DropoutNet: addressing cold start", NeurIPS 30.

    ``f(U_u) . g([m_i V_i, x_i])`` is fitted to ``U_u . V_i`` by squared error over interactions
    and sampled pairs, with ``m_i`` zero for a random share of items: a cold item is one with
    ``V = 0``. Left out: batch normalisation, and dropout on the side of users, who are never cold
    in the protocol.
    """

    network: _Network

    def build(self, num_users: int, num_items: int) -> _Network:
        """Two towers."""
        return _Network(self.config, *self.constants())

    def map_users(self, start: Tensor) -> Tensor:
        """The user tower."""
        mapped: Tensor = self.network.user_tower(start)
        return mapped

    def embed(self) -> tuple[Tensor, Tensor]:
        """Both towers, with nothing hidden."""
        net = self.network
        return self.map_users(net.users), self._items(net.items, net.content)

    def encode(self, content: Tensor) -> Tensor:
        """The item tower on content alone."""
        hidden = content.new_zeros(len(content), self.config.embedding_dim)
        return self._items(hidden, content)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """Squared error to the factorisation's scores."""
        net = self.network
        shown = torch.rand(len(net.items), 1, device=net.items.device) >= self.config.dropout
        items = self._items(net.items * shown, net.content)
        got = pair_scores(self.map_users(net.users), items, batch)
        want = pair_scores(net.users, net.items, batch)
        pairs = zip(got, want, strict=True)
        return {"squared": torch.stack([(g - w).square().mean() for g, w in pairs]).mean()}

    def _items(self, start: Tensor, content: Tensor) -> Tensor:
        placed: Tensor = self.network.item_tower(torch.cat([start, content], dim=1))
        return placed
