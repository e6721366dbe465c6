"""What neural baselines share: prepared by ``fit``, trained from outside, ranked from arrays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import Features, FloatArray, IntArray
from mmalign.models.base import Arrays, Model, TrainData, part
from mmalign.models.neural.content import ContentInput
from mmalign.models.neural.users import KnownUsers

__all__ = [
    "ContentNeuralModel",
    "Embeddings",
    "N",
    "NeuralConfig",
    "NeuralModel",
    "Triplets",
    "pair_scores",
    "squared_norm",
]


FEW = 8
"""Negatives up to which gathering their vectors is faster than scoring all items."""


@dataclass(frozen=True)
class NeuralConfig:
    """What every neural baseline is told.

    Attributes:
        embedding_dim: Width of user and item vectors.
        learning_rate: Of Adam.
        batch_size: Interactions per step.
        negatives: Items drawn per interaction that the user did not take.

    Raises:
        ConfigError: A number that is not positive.
    """

    embedding_dim: int = 64
    learning_rate: float = 1e-3
    batch_size: int = 2048
    negatives: int = 1

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "learning_rate", "batch_size", "negatives"):
            value = getattr(self, name)
            if not 0 < value < np.inf:
                raise ConfigError(f"{name} must be positive", got=value, fix="see the default")


N = TypeVar("N", bound=NeuralConfig)


@dataclass(frozen=True)
class Triplets:
    """Interactions of one step, each with items that its user did not take.

    Items are counted among the warm ones: nothing else is ever trained on.

    Shapes:
        users: ``[B]``; positives: ``[B]``; negatives: ``[B, N]``; all int64.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor


class NeuralModel(Model[N]):
    """A network that is trained on interactions one by one, and ranks by inner products.

    :meth:`fit` prepares an untrained network; :mod:`mmalign.trainers` trains it on :meth:`loss`
    and calls :meth:`freeze`, which stores the vectors that ranking reads. A user is known by a
    history alone, so a method with a vector per train user finds it again by the items taken, see
    :class:`mmalign.models.neural.users.KnownUsers`, which also places users never seen.

    A model that serves warm items only gives a cold item the zero vector, hence score zero.

    Attributes:
        network: All parameters, and constants as buffers that are not stored.
        graph: ``[U, W]``, train interactions with warm items.
        vectors: ``[I, D]``, item vectors.
    """

    learned: ClassVar[tuple[str, ...]] = ("warm", "vectors")
    network: nn.Module
    graph: SparseOperator
    vectors: FloatArray
    users: KnownUsers

    def fit(self, data: TrainData) -> Self:
        """Prepare all but the network's training; its weights start from torch's seed."""
        self.warm = data.warm
        self.prepare(data)
        self.freeze(data)
        return self

    def prepare(self, data: TrainData) -> None:
        """Build graph and network; ``warm`` is known."""
        matrix = sp.csr_matrix(data.matrix[:, self.warm])
        self.graph = SparseOperator(matrix)
        self.network = self.build(*matrix.shape)

    @abstractmethod
    def build(self, num_users: int, num_items: int) -> nn.Module:
        """Make the network, untrained; ``num_items`` counts the warm ones."""

    @abstractmethod
    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """Terms of the loss by name, weighted: they are added up as they are."""

    @abstractmethod
    def embed(self) -> tuple[Tensor, Tensor]:
        """Vectors of train users ``[U, D]`` and warm items ``[W, D]``, as they are ranked."""

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Draw what stays the same for an epoch, such as a thinned graph."""

    def place(self, features: Features) -> FloatArray:
        """Place items by content alone, ``[N, D]``; for models that serve cold items."""
        raise NotImplementedError

    @torch.no_grad()
    def freeze(self, data: TrainData) -> Self:
        """Store the vectors under the network's present weights and the whole train graph."""
        self.network.eval()
        users, items = self.embed()
        self.vectors = np.zeros((len(self.warm), items.shape[1]), np.float32)
        self.vectors[self.warm] = items.cpu().numpy()
        if self.serves_cold:
            cold = {name: x.rows(~self.warm) for name, x in data.features.items()}
            self.vectors[~self.warm] = self.place(cold)
        self.remember_users(data.matrix, users.cpu().numpy())
        return self

    def remember_users(self, matrix: sp.csr_matrix, vectors: FloatArray) -> None:
        """Store the vectors of train users; nothing to do where a history gives them."""
        self.users = KnownUsers.fit(matrix, vectors, self.vectors)

    def user_vectors(self, history: sp.csr_matrix) -> FloatArray:
        """Place users by history, seen in training or not, ``[B, D]``."""
        return self.users.find(history, self.vectors)

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Inner products of user and item vectors."""
        scores: FloatArray = self.user_vectors(sp.csr_matrix(history)) @ self.vectors[items].T
        return scores

    def item_vectors(self) -> FloatArray:
        """``[I, D]`` vectors as they are ranked."""
        return self.vectors

    def _append(self, features: Features, count: int) -> None:
        new = np.zeros((count, self.vectors.shape[1]), np.float32)
        if self.serves_cold:
            self.network.eval()
            new = self.place(features)
        self.vectors = np.concatenate([self.vectors, new])

    def arrays(self) -> Arrays:
        """Item vectors, train users, and the network where new items are placed by it."""
        stored = super().arrays()
        if hasattr(self, "users"):
            stored |= {f"users.{name}": x for name, x in self.users.arrays().items()}
        if self.serves_cold:
            weights = self.network.state_dict()
            stored |= {f"network.{name}": x.cpu().numpy() for name, x in weights.items()}
            stored["num_users"] = np.array(self.graph.shape[0])
        return stored

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        super().load_arrays(arrays)
        users = part(arrays, "users.")
        if users:
            self.users = KnownUsers(**users)
        if self.serves_cold:
            num_users, num_items = int(arrays["num_users"]), int(self.warm.sum())
            self.graph = SparseOperator(sp.csr_matrix((num_users, num_items), dtype=np.float32))
            self.network = self.build(num_users, num_items)
            weights = {k: torch.tensor(v) for k, v in part(arrays, "network.").items()}
            self.network.load_state_dict(weights)
            self.network.eval()
        return self


class ContentNeuralModel(NeuralModel[N]):
    """A neural model that reads content, scaled by statistics of warm items.

    Attributes:
        content: How features become the network's input.
        inputs: Modality to ``[W, D]``, the content of warm items; empty in a loaded model.
    """

    uses_content: ClassVar[bool] = True
    content: ContentInput
    inputs: dict[str, Tensor]

    def prepare(self, data: TrainData) -> None:
        """Fit the content input, then graph and network."""
        self.content = self.new_content()
        self.read_content(data)
        warm = {name: x.rows(self.warm) for name, x in data.features.items()}
        self.inputs = self.content.rows(warm)
        super().prepare(data)

    def read_content(self, data: TrainData) -> None:
        """Fit the content input; of some models given neighbours may stand in for features."""
        named = self.content.modalities
        read = tuple(n for n in named if n in data.features or n not in data.neighbours)
        does_without = self.can_fit(features=False, neighbours=bool(data.neighbours))
        if not does_without or (read if named else data.features):
            self.content.modalities = read
            self.content.fit(data.features, self.warm)

    def new_content(self) -> ContentInput:
        """Make the content input, not fitted yet."""
        return ContentInput(getattr(self.config, "modalities", ()))

    @property
    def concatenated(self) -> Tensor:
        """``[W, Z]``, the modalities of warm items side by side; no rows in a loaded model."""
        if not self.inputs:
            return torch.zeros(0, self.content.dim)
        return torch.cat(list(self.inputs.values()), dim=1)

    @torch.no_grad()
    def place(self, features: Features) -> FloatArray:
        """Place items by content alone, ``[N, D]``."""
        content = self.content.concatenated(features).to(self.device())
        placed: FloatArray = self.encode(content).cpu().numpy()
        return placed

    def encode(self, content: Tensor) -> Tensor:
        """Place items by their modalities side by side, ``[N, Z]`` to ``[N, D]``, if cold."""
        raise NotImplementedError

    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def arrays(self) -> Arrays:
        """The statistics of content beside all else."""
        means = {f"content.{name}": x for name, x in self.content.means.items()}
        return super().arrays() | means

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        self.content = self.new_content()
        self.content.means = part(arrays, "content.")
        self.inputs = {}
        return super().load_arrays(arrays)

    def _append(self, features: Features, count: int) -> None:
        self.content.check(features)
        super()._append(features, count)


class Embeddings(nn.Module):
    """A vector per train user and per warm item, Xavier uniform.

    Shapes:
        users: ``[U, D]``; items: ``[W, D]``.
    """

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        super().__init__()
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_users, dim)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_items, dim)))


def pair_scores(users: Tensor, items: Tensor, batch: Triplets) -> tuple[Tensor, Tensor]:
    """Inner products of each user of a batch with the positive and the negatives.

    Shapes:
        users: ``[U, D]``; items: ``[W, D]``; returns ``[B]`` and ``[B, N]``.
    """
    if batch.negatives.shape[1] <= FEW:
        rows = users[batch.users]
        positive = (rows * items[batch.positives]).sum(dim=1)
        each = [(rows * items[drawn]).sum(dim=1) for drawn in batch.negatives.unbind(dim=1)]
        return positive, torch.stack(each, dim=1)
    # Many negatives: all scores of the batch's users cost less than gathering [B, N, D].
    present, row = torch.unique(batch.users, return_inverse=True)
    scores = (users[present] @ items.T).flatten()
    candidates = torch.cat([batch.positives[:, None], batch.negatives], dim=1)
    found = scores.gather(0, (row[:, None] * len(items) + candidates).flatten())
    found = found.view(candidates.shape)
    return found[:, 0], found[:, 1:]


def squared_norm(*embeddings: Tensor) -> Tensor:
    """Half the squared norm of rows, added over the tensors, a mean over the batch.

    Shapes:
        embeddings: ``[B, D]`` each; returns: scalar.

    Example:
        >>> squared_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor(6.2500)
    """
    total = torch.stack([x.square().sum() for x in embeddings]).sum()
    return total / 2 / max(len(embeddings[0]), 1)
