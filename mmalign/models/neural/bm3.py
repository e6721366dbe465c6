"""BM3: bootstrapped agreement of users, items and modalities, without negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.models.neural.base import (
    ContentNeuralModel,
    Embeddings,
    NeuralConfig,
    Triplets,
)
from mmalign.models.neural.content import Projections
from mmalign.models.neural.graphs import propagate

__all__ = ["BM3", "BM3Config"]


@dataclass(frozen=True)
class BM3Config(NeuralConfig):
    """BM3.

    Attributes:
        num_layers: Rounds of message passing.
        dropout: On the vectors that serve as targets.
        content_weight: Weight of the agreement with modalities.
        regularization: Weight of the Frobenius norms of ``h_u`` and ``h_i``, per warm item.
        modalities: Content to read; empty means all.
    """

    num_layers: int = 1
    dropout: float = 0.3
    content_weight: float = 2.0
    regularization: float = 0.1
    modalities: tuple[str, ...] = ()


class _Network(nn.Module):
    ids: Embeddings
    projections: Projections

    def __init__(self, ids: Embeddings, projections: Projections) -> None:
        super().__init__()
        self.ids, self.projections = ids, projections
        dim = ids.users.shape[1]
        self.predictor = nn.Linear(dim, dim)
        nn.init.xavier_normal_(self.predictor.weight)


class BM3(ContentNeuralModel[BM3Config]):
    """Zhou et al., 2023, "Bootstrap latent representations", arXiv:2207.05969.

    With ``C(a, b) = 1 - cos(q(a), stop(dropout(b)))`` and ``q`` a linear predictor, every
    interaction asks for ``C(h_u, h_i) + C(h_i, h_u)``, and per modality ``m`` for
    ``C(h_m, h_i) + C(h_m, h_m)``. ``h_u, h_i`` are LightGCN's with the id added once more to
    items, ``h_m`` a linear projection. Ranked by ``<q(h_u), q(h_i)>``. Drawn negatives are not
    read. An item without a modality has no term of it; features stay frozen. The paper has two
    modalities: with more of them content weighs more.
    """

    network: _Network

    def build(self, num_users: int, num_items: int) -> _Network:
        """Ids, predictor and projections."""
        dim = self.config.embedding_dim
        return _Network(Embeddings(num_users, num_items, dim), Projections(self.inputs, dim))

    def embed(self) -> tuple[Tensor, Tensor]:
        """Predicted vectors of both sides."""
        users, items = self._online()
        return self.network.predictor(users), self.network.predictor(items)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """Agreement between the sides, with and among modalities, and the norm."""
        users, items = self._online()
        user, item = users[batch.users], items[batch.positives]
        losses = {
            "agreement": self._distance(user, item) + self._distance(item, user),
            "l2": self.config.regularization * (users.norm() + items.norm()) / len(items),
        }
        terms = []
        projections = self.network.projections
        for projected, own in zip(projections(), projections.content(), strict=True):
            known = own[batch.positives].any(dim=1)
            content = projected[batch.positives][known]
            if len(content):
                terms += [self._distance(content, item[known]), self._distance(content, content)]
        # None of a batch may have content; other processes still wait for this term.
        close = torch.stack(terms).sum() if terms else items.new_zeros(())
        losses["content"] = self.config.content_weight * close
        return losses

    def _online(self) -> tuple[Tensor, Tensor]:
        ids = self.network.ids
        users, items = propagate(ids.users, ids.items, self.graph, self.config.num_layers)
        return users, items + ids.items

    def _distance(self, online: Tensor, target: Tensor) -> Tensor:
        blurred = F.dropout(target.detach(), self.config.dropout)
        predicted = self.network.predictor(online)
        return 1 - F.cosine_similarity(predicted, blurred, dim=1).mean()
