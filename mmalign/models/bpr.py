"""Matrix factorisation trained to rank, with users placed by their history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch

from mmalign.interfaces import FloatArray, IntArray
from mmalign.models.base import Model, TrainData
from mmalign.models.checks import check_positive, check_within

__all__ = ["BPR", "BPRConfig", "bpr_factors"]


@dataclass(frozen=True)
class BPRConfig:
    """BPR-MF.

    Attributes:
        embedding_dim: Factors per user and item.
        learning_rate: Of plain stochastic gradient steps.
        l2: Penalty on the squared length of every factor and bias, at each step that reads it.
        epochs: Passes over the interactions.
        batch_size: Interactions per step; their gradients are added up, not averaged.
        fold_in: Ridge penalty, in interactions, of the map from histories to user factors.
        seed: Of the start and of the samples; None for the experiment's.

    Raises:
        ConfigError: ``l2`` is negative, or another number is not positive.
    """

    embedding_dim: int = 64
    learning_rate: float = 0.05
    l2: float = 0.03
    epochs: int = 100
    batch_size: int = 1024
    fold_in: float = 5.0
    seed: int | None = None

    def __post_init__(self) -> None:
        check_positive(
            embedding_dim=self.embedding_dim,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            fold_in=self.fold_in,
        )
        check_within("[0, inf)", l2=self.l2)


class BPR(Model[BPRConfig]):
    """BPR-MF (Rendle et al. 2009, arXiv 1205.2618), with negatives drawn uniformly as there.

    An item that the user took is to score above one they did not: ``x_u . y_i + b_i`` is trained
    by ``-log sigmoid`` of the difference. Its user factors belong to the users of training, while
    models here rank for a history; so the factors are regressed on the histories they came from,
    ``min |P - X W|^2 + c |W|^2``, and any user, new or known, is ``r_u W``. On films this ranks
    as well as the trained factors themselves. (The BPR of the library ``implicit`` draws negatives
    by popularity, which is another model: on films it ranks worse than popularity does.)

    Shapes:
        encoder: ``[W, embedding_dim]``, the map from the warm items of a history to a user.
        factors: ``[W, embedding_dim]`` of warm items; bias: ``[W]``. A cold item scores zero.
    """

    learned = ("warm", "encoder", "factors", "bias")
    encoder: FloatArray
    factors: FloatArray
    bias: FloatArray

    def fit(self, data: TrainData) -> Self:
        """Factorise, then regress user factors on histories."""
        self.warm = data.warm
        matrix = data.matrix[:, data.warm]
        users, self.factors, self.bias = bpr_factors(matrix, self.config)
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.config.fold_in
        targets = matrix.T @ users.astype(np.float64)
        self.encoder = scipy.linalg.solve(gram, targets, assume_a="pos").astype(np.float32)
        return self

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Inner products of candidates and the user that the history makes, plus biases."""
        users = history[:, self.warm] @ self.encoder
        full = np.zeros((history.shape[0], len(self.warm)), np.float32)
        full[:, self.warm] = users @ self.factors.T + self.bias
        return full[:, items]

    def item_vectors(self) -> FloatArray:
        """``[I, embedding_dim]`` factors, zero for cold items."""
        vectors = np.zeros((len(self.warm), self.factors.shape[1]), np.float32)
        vectors[self.warm] = self.factors
        return vectors


def bpr_factors(
    matrix: sp.csr_matrix, config: BPRConfig
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Descend on BPR's loss by small batches.

    Gradients are written out rather than derived by autograd: each step touches few rows, and a
    dense gradient of all factors would cost more than the step.

    Shapes:
        matrix: ``[U, W]``; returns users ``[U, D]``, items ``[W, D]`` and biases ``[W]``.
    """
    num_users, num_items = matrix.shape
    rng = np.random.default_rng(config.seed or 0)
    users, items = (
        torch.from_numpy(rng.normal(0, 0.1, (count, config.embedding_dim)).astype(np.float32))
        for count in (num_users, num_items)
    )
    bias = torch.zeros(num_items)
    pairs = sp.coo_matrix(matrix)
    taken = np.sort(pairs.row.astype(np.int64) * num_items + pairs.col)
    for _ in range(config.epochs):
        order = rng.permutation(taken)
        u, i = order // num_items, order % num_items
        j = rng.integers(0, num_items, len(order))
        wrong = u * num_items + j
        nearest = taken[np.minimum(np.searchsorted(taken, wrong), len(taken) - 1)]
        keep = nearest != wrong  # a drawn item that the user took is no negative: skip the pair
        triples = torch.from_numpy(np.stack([u[keep], i[keep], j[keep]]))
        for start in range(0, triples.shape[1], config.batch_size):
            batch = triples[:, start : start + config.batch_size]
            _step(users, items, bias, batch, config.learning_rate, config.l2)
    return users.numpy(), items.numpy(), bias.numpy()


def _step(
    users: torch.Tensor,
    items: torch.Tensor,
    bias: torch.Tensor,
    triples: torch.Tensor,
    learning_rate: float,
    l2: float,
) -> None:
    """One step in place on ``-log sigmoid(x_u . (y_i - y_j) + b_i - b_j) + l2/2 |.|^2``."""
    u, i, j = triples
    x, better, worse, b_better, b_worse = users[u], items[i], items[j], bias[i], bias[j]
    pull = torch.sigmoid(-((x * (better - worse)).sum(1) + b_better - b_worse))[:, None]
    users.index_add_(0, u, pull * (better - worse) - l2 * x, alpha=learning_rate)
    items.index_add_(0, i, pull * x - l2 * better, alpha=learning_rate)
    items.index_add_(0, j, -pull * x - l2 * worse, alpha=learning_rate)
    bias.index_add_(0, i, pull[:, 0] - l2 * b_better, alpha=learning_rate)
    bias.index_add_(0, j, -pull[:, 0] - l2 * b_worse, alpha=learning_rate)
