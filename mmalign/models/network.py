"""The network of the aligned model: content tower, id residual, propagation, cosine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.graph.propagation import SparseOperator, make_layer
from mmalign.objectives.alignment import LearnedTemperature

if TYPE_CHECKING:
    from mmalign.models.aligned import AlignedConfig

__all__ = ["AlignedNetwork", "ItemInput", "States"]


@dataclass(frozen=True)
class ItemInput:
    """Frozen content of some items.

    Shapes:
        fused: ``[N, Z]`` kernel features of all modalities together.
        modalities: Modality to ``[N, D]`` unit rows.
        present: Modality to ``[N]`` bool.
    """

    fused: Tensor
    modalities: Mapping[str, Tensor]
    present: Mapping[str, Tensor]

    def rows(self, index: Tensor) -> ItemInput:
        """Select items by row numbers or a mask."""
        return ItemInput(
            self.fused[index],
            {name: x[index] for name, x in self.modalities.items()},
            {name: x[index] for name, x in self.present.items()},
        )

    def to(self, device: torch.device) -> ItemInput:
        """Move all tensors."""
        return ItemInput(
            self.fused.to(device),
            {name: x.to(device) for name, x in self.modalities.items()},
            {name: x.to(device) for name, x in self.present.items()},
        )


@dataclass(frozen=True)
class States:
    """What message passing made of users and items.

    Shapes:
        users: ``[U, D]`` unit rows; zero for a user without messages.
        items: ``[N, D]`` unit rows.
        received: ``[N, D]``, what items got from users in all rounds, without their start; zero
            for an item without messages.
        layers: Per round, the item states ``[N, D]`` that users read in it.
    """

    users: Tensor
    items: Tensor
    received: Tensor
    layers: tuple[Tensor, ...]


class AlignedNetwork(nn.Module):
    """Places items by content and behaviour, users by the items they took.

    An item's content is ``tower(fused) + mean over its modalities of head(modality)``. It starts as
    that, what it hears of the warm items it resembles, and an id: a residual that a cold item
    lacks, and that no neighbour hears. Users have no parameters: round after round they read their
    items and the items read their users, without the edges that are to be predicted. The final
    vector is the sum over rounds (He et al. 2020, arXiv 2002.02126), compared by cosine. A user
    unseen in training is placed by the same rounds over the items' stored states.

    Args:
        config: Widths, layer kind and dropouts.
        num_warm: Items with an id residual.
        fused_dim: Width of ``ItemInput.fused``.
        modality_dims: Width of each modality.
    """

    def __init__(
        self,
        config: AlignedConfig,
        num_warm: int,
        fused_dim: int,
        modality_dims: Mapping[str, int],
    ) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.config = config
        self.tower = nn.Sequential(
            nn.Dropout(config.content_dropout),
            nn.Linear(fused_dim, config.hidden_dim),
            nn.LeakyReLU(),
            nn.Linear(config.hidden_dim, dim),
        )
        self.modalities = tuple(modality_dims)
        self.heads = nn.ModuleList(
            nn.Linear(width, dim, bias=False) for width in modality_dims.values()
        )
        self.ids = nn.Parameter(torch.randn(num_warm, dim) * 0.01)
        self.to_user = nn.ModuleList(
            make_layer(config.layer, dim) for _ in range(config.num_layers)
        )
        self.to_item = nn.ModuleList(
            make_layer(config.layer, dim) for _ in range(config.num_layers)
        )
        self.temperature = LearnedTemperature(config.temperature)
        self.temperature.requires_grad_(config.learn_temperature)

    def project(self, items: ItemInput) -> dict[str, Tensor]:
        """Each modality on its own in the shared space, ``[N, D]``; absent rows are zero."""
        return {
            name: head(items.modalities[name]) * items.present[name][:, None]
            for name, head in zip(self.modalities, self.heads, strict=True)
        }

    def content(self, items: ItemInput, hidden: Mapping[str, Tensor] | None = None) -> Tensor:
        """Place items by content alone, ``[N, D]``.

        Args:
            items: Frozen content.
            hidden: Modality to ``[N]`` bool, modalities left out of the mean (modality dropout).
        """
        vectors: Tensor = self.tower(items.fused)
        projected = self.project(items)
        if not projected:
            return vectors
        shown = {
            name: items.present[name] if hidden is None else items.present[name] & ~hidden[name]
            for name in projected
        }
        count = torch.stack(list(shown.values())).sum(dim=0).clamp(min=1)[:, None]
        total = sum(x * shown[name][:, None] for name, x in projected.items())
        return vectors + total / count

    def hear_neighbours(self, content: Tensor, similar: SparseOperator) -> Tensor:
        """Add to each item the mean content of those that it resembles, by the configured weight.

        Shapes:
            content: ``[N, D]``; similar: ``[M, N]`` for the last M of the N items;
            returns ``[M, D]``.
        """
        own = content[len(content) - similar.shape[0] :]
        heard: Tensor = similar.mean @ content
        return own + self.config.neighbour_weight * heard

    def propagate(self, start: Tensor, graph: SparseOperator) -> States:
        """Pass messages between users and items.

        Shapes:
            start: ``[N, D]``; graph: ``[U, N]``.
        """
        users = start.new_zeros(graph.shape[0], start.shape[1])
        items, user_sum, received = start, users, torch.zeros_like(start)
        layers = []
        for to_user, to_item in zip(self.to_user, self.to_item, strict=True):
            layers.append(items)
            users = to_user(items, users, graph)
            items = to_item(users, items, graph.T)
            user_sum, received = user_sum + users, received + items
        placed = F.normalize(start + received, dim=1)
        return States(F.normalize(user_sum, dim=1), placed, received, tuple(layers))

    def read_users(self, layers: tuple[Tensor, ...], graph: SparseOperator) -> Tensor:
        """Place users by stored item states, ``[B, D]`` unit rows; the items stay as they are.

        Shapes:
            layers: Per round ``[N, D]``; graph: ``[B, N]``.
        """
        users = layers[0].new_zeros(graph.shape[0], layers[0].shape[1])
        total = users
        for to_user, items in zip(self.to_user, layers, strict=True):
            users = to_user(items, users, graph)
            total = total + users
        return F.normalize(total, dim=1)
