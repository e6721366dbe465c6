"""What a training step predicts, and against which items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.graph.operators import keep_edges
from mmalign.interfaces import BoolArray, FloatArray, IntArray

__all__ = ["Negatives", "UnseenItems", "hold_out", "sample_negatives"]


def hold_out(
    matrix: sp.csr_matrix,
    users: IntArray,
    share: float,
    cold: BoolArray,
    rng: np.random.Generator,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Part interactions into those that pass messages and those that are predicted.

    Args:
        matrix: All train interactions.
        users: The batch: only their interactions are predicted.
        share: Of each batch user's interactions to predict, in expectation.
        cold: Items that play cold: nobody's interaction with them passes messages.
        rng: Source of randomness.

    Shapes:
        matrix: ``[U, I]``; users: ``[B]``; cold: ``[I]``.
        returns: messages ``[U, I]`` and targets ``[B, I]``; no pair is in both.
    """
    in_batch = np.zeros(matrix.shape[0], dtype=bool)
    in_batch[users] = True
    of_batch = np.repeat(in_batch, np.diff(matrix.indptr))
    removed = cold[matrix.indices] | (of_batch & (rng.random(matrix.nnz) < share))
    return keep_edges(matrix, ~removed), keep_edges(matrix, removed)[users]


@dataclass(frozen=True)
class Negatives:
    """Positives one by one, and a sample of items shared by all.

    Shapes:
        users: ``[P]`` rows of the batch; positives: ``[P]`` items.
        items: ``[N]`` drawn with replacement; log_q: ``[N]`` log of the expected number of draws.
        is_positive: ``[P, N]``, draws that are known positives of the user.
    """

    users: IntArray
    positives: IntArray
    items: IntArray
    log_q: FloatArray
    is_positive: BoolArray


def sample_negatives(
    targets: sp.csr_matrix,
    known: sp.csr_matrix,
    popularity: NDArray[np.floating],
    count: int,
    rng: np.random.Generator,
) -> Negatives:
    """Draw items by popularity for a sampled softmax with logQ correction.

    Shapes:
        targets, known: ``[B, I]``; popularity: ``[I]``.
    """
    q = popularity / popularity.sum()
    items = rng.choice(len(q), size=count, p=q)
    entries = targets.tocoo()
    positive = ((targets + known) > 0).tocsc()[:, items].toarray()
    return Negatives(
        users=entries.row.astype(np.int64),
        positives=entries.col.astype(np.int64),
        items=items.astype(np.int64),
        log_q=np.log(count * q[items]).astype(np.float32),
        is_positive=positive[entries.row],
    )


class UnseenItems:
    """Draws items that a user did not take, each with the same probability.

    A number below the count of such items is drawn and moved up past the taken ones before it, so
    nothing is ever drawn twice. Somebody who took every item gets any of them.

    Args:
        matrix: All train interactions, ``[U, I]``.

    Example:
        >>> unseen = UnseenItems(sp.csr_matrix([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
        >>> unseen.draw(np.array([0, 1]), 2, np.random.default_rng(0)).tolist()
        [[1, 1], [0, 0]]
    """

    def __init__(self, matrix: sp.csr_matrix) -> None:
        self._num_items = matrix.shape[1]
        keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * self._num_items
        keys = np.unique(keys + matrix.indices)
        users = keys // self._num_items
        self._starts = np.searchsorted(users, np.arange(matrix.shape[0] + 1))
        # The k-th taken item t_k has t_k - k untaken ones before it.
        self._before = keys - (np.arange(len(keys)) - self._starts[users])

    def draw(self, users: IntArray, count: int, rng: np.random.Generator) -> IntArray:
        """Draw with replacement, ``[B, N]``.

        Shapes:
            users: ``[B]`` rows of the matrix; count: N.
        """
        taken = (self._starts[users + 1] - self._starts[users])[:, None]
        left = np.where(taken < self._num_items, self._num_items - taken, self._num_items)
        rank = rng.integers(left, size=(len(users), count))
        keys = users[:, None] * self._num_items + rank
        passed = np.searchsorted(self._before, keys, side="right") - self._starts[users][:, None]
        return np.where(taken < self._num_items, rank + passed, rank)
