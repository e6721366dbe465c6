"""CLCRec: contrast content with collaborative vectors, so that one can stand in for the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
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

__all__ = ["CLCRec", "CLCRecConfig"]


@dataclass(frozen=True)
class CLCRecConfig(NeuralConfig):
    """CLCRec.

    Attributes:
        hidden_dim: Width of the hidden layer of the content encoder.
        temperature: Of both contrasts.
        contrast: Share of the contrast between content and ids in the loss; users and items have
            the rest.
        replaced: Probability that content stands in for an item's id, in users' contrast.
        regularization: Weight of the squared norm of the ids in a batch.
        modalities: Content to read, side by side; empty means all.
    """

    negatives: int = 128
    hidden_dim: int = 256
    temperature: float = 0.5
    contrast: float = 0.5
    replaced: float = 0.5
    regularization: float = 1e-3
    modalities: tuple[str, ...] = ()


class _Network(nn.Module):
    content: Tensor

    def __init__(
        self, config: CLCRecConfig, num_users: int, num_items: int, content: Tensor
    ) -> None:
        super().__init__()
        self.ids = Embeddings(num_users, num_items, config.embedding_dim)
        self.encoder = nn.Sequential(
            nn.Linear(content.shape[1], config.hidden_dim),
            nn.LeakyReLU(),
            nn.Linear(config.hidden_dim, config.embedding_dim),
        )
        self.register_buffer("content", content, persistent=False)


class CLCRec(ContentNeuralModel[CLCRecConfig]):
    """Wei et al., 2021, "Contrastive learning for cold-start recommendation", arXiv:2107.05315.

    ``lambda L(z_i, g(x)) + (1 - lambda) L(z_u, y)`` where ``L(a, b)`` is the softmax of a's own
    ``b`` against those of sampled items, over a temperature: by cosine between ids ``z_i`` and
    encoded content ``g(x_i)``, by inner product between users and ``y_i``, which is ``z_i`` or,
    at random, ``g(x_i)``. Warm items are ranked by ``z_i``, cold ones by ``g(x_i)``. Here the
    choice between the two falls once per item and step, not once per sampled pair.
    """

    serves_cold: ClassVar[bool] = True
    network: _Network

    def build(self, num_users: int, num_items: int) -> _Network:
        """Ids and the content encoder."""
        return _Network(self.config, num_users, num_items, self.concatenated)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Ids."""
        return self.network.ids.users, self.network.ids.items

    def encode(self, content: Tensor) -> Tensor:
        """Encoded content."""
        encoded: Tensor = self.network.encoder(content)
        return encoded

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """Both contrasts and the norm of the batch's ids."""
        ids, config = self.network.ids, self.config
        content: Tensor = self.network.encoder(self.network.content)
        stands_in = torch.rand(len(content), 1, device=content.device) < config.replaced
        mixed = torch.where(stands_in, content, ids.items)
        places = Triplets(batch.positives, batch.positives, batch.negatives)
        unit = F.normalize(ids.items, dim=1), F.normalize(content, dim=1)
        norm = squared_norm(ids.users[batch.users], ids.items[batch.positives])
        return {
            "contrast": config.contrast * self._softmax(*unit, places),
            "users": (1 - config.contrast) * self._softmax(ids.users, mixed, batch),
            "l2": config.regularization * norm,
        }

    def _softmax(self, left: Tensor, right: Tensor, batch: Triplets) -> Tensor:
        positive, negative = pair_scores(left, right, batch)
        temperature = self.config.temperature
        return ranking.sampled_softmax(positive / temperature, negative / temperature)
