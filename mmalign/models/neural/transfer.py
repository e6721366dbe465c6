"""Cold-start methods that start from the vectors of a matrix factorisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmalign.interfaces import FloatArray
from mmalign.models.base import Arrays, TrainData
from mmalign.models.neural.base import ContentNeuralModel, NeuralConfig
from mmalign.models.neural.factors import Factors, FactorsConfig

__all__ = ["T", "TransferConfig", "TransferModel", "TransferNetwork", "tanh_tower"]


@dataclass(frozen=True)
class TransferConfig(NeuralConfig):
    """What these methods share.

    Attributes:
        hidden_dim: Width of hidden layers.
        factors: The factorisation whose vectors, ``embedding_dim`` wide, are the start.
        modalities: Content to read, side by side; empty means all.
    """

    hidden_dim: int = 256
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    modalities: tuple[str, ...] = ()


class TransferNetwork(nn.Module):
    """Constants that the networks read: the factorisation's vectors, and content.

    Shapes:
        users: ``[U, D]``; items: ``[W, D]``; content: ``[W, Z]``.
    """

    users: Tensor
    items: Tensor
    content: Tensor

    def __init__(self, users: Tensor, items: Tensor, content: Tensor) -> None:
        super().__init__()
        for name, constant in {"users": users, "items": items, "content": content}.items():
            self.register_buffer(name, constant, persistent=False)


T = TypeVar("T", bound=TransferConfig)


class TransferModel(ContentNeuralModel[T]):
    """Vectors ``U`` and ``V`` of a factorisation are frozen; networks on them are trained.

    The papers take any collaborative model for the start (WMF in DropoutNet, MF or LightGCN in
    the others); here it is WMF throughout, since its users are a closed form of their histories:
    a user unseen in training gets the vector that training would have started from.

    Attributes:
        factors: The factorisation of warm items.
        start_users: ``[U, D]``, the factorisation's vectors of train users.
    """

    serves_cold: ClassVar[bool] = True
    factors: Factors
    start_users: Tensor

    def prepare(self, data: TrainData) -> None:
        """Factorise first: the networks are fitted to what comes out."""
        matrix = sp.csr_matrix(data.matrix[:, self.warm])
        seed = int(torch.randint(2**31, ()))
        self.factors = Factors.fit(
            matrix, self.config.factors, self.config.embedding_dim, seed=seed
        )
        self.start_users = torch.from_numpy(self.factors.users(matrix))
        super().prepare(data)

    def constants(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a network is built on; see :class:`TransferNetwork`."""
        return self.start_users, torch.from_numpy(self.factors.items), self.concatenated

    @abstractmethod
    def map_users(self, start: Tensor) -> Tensor:
        """From a factorisation's user vectors to those that are ranked by, ``[B, D']``."""

    def remember_users(self, matrix: sp.csr_matrix, vectors: FloatArray) -> None:
        """Nothing: a history gives a user's vector."""

    @torch.no_grad()
    def user_vectors(self, history: sp.csr_matrix) -> FloatArray:
        """Solve for the factorisation's vector and map it."""
        start = torch.from_numpy(self.factors.users(history[:, : len(self.warm)][:, self.warm]))
        mapped: FloatArray = self.map_users(start.to(self.device())).cpu().numpy()
        return mapped

    def arrays(self) -> Arrays:
        """The factorisation beside all else."""
        return super().arrays() | {"factors.items": self.factors.items}

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        self.factors = Factors(self.config.factors, np.asarray(arrays["factors.items"]))
        self.start_users = torch.zeros(int(arrays["num_users"]), self.config.embedding_dim)
        return super().load_arrays(arrays)


def tanh_tower(dim_in: int, hidden_dim: int, dim_out: int) -> nn.Sequential:
    """Two hidden layers with tanh.

    The authors' code has batch normalisation besides, ALDI's one hidden layer, GAR's dropout; here
    they are alike, and what differs between these methods is what they learn.
    """
    return nn.Sequential(
        nn.Linear(dim_in, hidden_dim),
        nn.Tanh(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.Tanh(),
        nn.Linear(hidden_dim, dim_out),
    )
