"""AlphaRec: content through a network into propagation, no ids at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.graph.operators import fold_in_degree
from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import Features, FloatArray
from mmalign.models.base import TrainData
from mmalign.models.neural.base import ContentNeuralModel, NeuralConfig, Triplets, pair_scores
from mmalign.objectives import ranking

__all__ = ["AlphaRec", "AlphaRecConfig"]


@dataclass(frozen=True)
class AlphaRecConfig(NeuralConfig):
    """AlphaRec.

    Attributes:
        hidden_dim: Width of the hidden layer between content and space.
        num_layers: Rounds of message passing.
        temperature: Of the cosines in the loss.
        modalities: Content to read, side by side; empty means all.
    """

    learning_rate: float = 2e-3
    batch_size: int = 4096
    negatives: int = 256
    hidden_dim: int = 256
    num_layers: int = 2
    temperature: float = 0.15
    modalities: tuple[str, ...] = ()


class _Network(nn.Module):
    items: Tensor
    users: Tensor

    def __init__(self, config: AlphaRecConfig, items: Tensor, users: Tensor) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(items.shape[1], config.hidden_dim),
            nn.LeakyReLU(),
            nn.Linear(config.hidden_dim, config.embedding_dim),
        )
        self.register_buffer("items", items, persistent=False)
        self.register_buffer("users", users, persistent=False)


class AlphaRec(ContentNeuralModel[AlphaRecConfig]):
    """Sheng et al., 2025, "Language representations can be what recommenders need", ICLR.

    arXiv:2407.05441.
    ``e_i^(0) = f(x_i)``, ``e_u^(0) = f(mean of the user's x_i)`` with one two-layer network ``f``;
    the mean over LightGCN's rounds; cosine over a temperature; a softmax over the positive and the
    sampled negatives. The paper's ``x`` is a language model's vector of the title, here all
    modalities side by side. Every user is placed by history with the stored item states, so that
    train users get the vectors of training and any other history is as good.
    """

    serves_cold: ClassVar[bool] = True
    learned = ("warm", "vectors", "states", "mean_content", "degree")
    network: _Network
    states: FloatArray
    mean_content: FloatArray
    degree: FloatArray

    def prepare(self, data: TrainData) -> None:
        """Keep what a history is read by: items' contents and degrees."""
        super().prepare(data)
        self.degree = np.asarray(data.matrix.sum(axis=0), np.float32).ravel()

    def build(self, num_users: int, num_items: int) -> _Network:
        """One network for items and, on the mean of their items, users."""
        items = self.concatenated
        users = self.graph.mean @ items if len(items) else items
        return _Network(self.config, items, users)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Propagated content, unit rows."""
        users, items, _ = self._propagate()
        return F.normalize(users, dim=1), F.normalize(items, dim=1)

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """Sampled softmax over cosines."""
        positive, negative = pair_scores(*self.embed(), batch)
        temperature = self.config.temperature
        return {"softmax": ranking.sampled_softmax(positive / temperature, negative / temperature)}

    @torch.no_grad()
    def freeze(self, data: TrainData) -> Self:
        """Store item vectors, and the states and contents that users read.

        Shapes:
            states: ``[L, I, D]``, item states before each round; mean_content: ``[I, Z]``.
        """
        super().freeze(data)
        _, _, layers = self._propagate()
        shape = (len(layers), len(self.warm), self.config.embedding_dim)
        self.states = np.zeros(shape, np.float32)
        self.states[:, self.warm] = torch.stack(layers).cpu().numpy()
        self.mean_content = self.content.concatenated(data.features).numpy()
        cold = {name: x.rows(~self.warm) for name, x in data.features.items()}
        if shape[0]:
            self.states[0, ~self.warm] = self._project(cold)
        return self

    def remember_users(self, matrix: sp.csr_matrix, vectors: FloatArray) -> None:
        """Nothing: a history gives a user's vector."""

    @torch.no_grad()
    def user_vectors(self, history: sp.csr_matrix) -> FloatArray:
        """The rounds of message passing over the stored states, ``[B, D]`` unit rows."""
        graph = SparseOperator(history, column_degree=fold_in_degree(self.degree))
        content = graph.mean @ torch.from_numpy(self.mean_content)
        users = self.network.project(content.to(self.device())).cpu()
        for layer in self.states:
            users = users + graph.symmetric @ torch.from_numpy(layer)
        placed: FloatArray = F.normalize(users, dim=1).numpy()
        return placed

    def encode(self, content: Tensor) -> Tensor:
        """Unit rows of projected content: a cold item has no neighbours to hear."""
        return F.normalize(self.network.project(content), dim=1)

    def _append(self, features: Features, count: int) -> None:
        super()._append(features, count)
        content = self.content.concatenated(features).numpy()
        self.mean_content = np.concatenate([self.mean_content, content])
        self.degree = np.concatenate([self.degree, np.zeros(count, np.float32)])
        states = np.zeros((len(self.states), count, self.config.embedding_dim), np.float32)
        if len(states):
            states[0] = self._project(features)
        self.states = np.concatenate([self.states, states], axis=1)

    @torch.no_grad()
    def _project(self, features: Features) -> FloatArray:
        content = self.content.concatenated(features).to(self.device())
        projected: FloatArray = self.network.project(content).cpu().numpy()
        return projected

    def _propagate(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        users: Tensor = self.network.project(self.network.users)
        items: Tensor = self.network.project(self.network.items)
        user_sum, item_sum, layers = users, items, []
        for _ in range(self.config.num_layers):
            layers.append(items)
            users, items = self.graph.symmetric @ items, self.graph.T.symmetric @ users
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum, item_sum, layers
