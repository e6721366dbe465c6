"""Users known by what they took: trained vectors found again, and a place for anybody else."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import numpy as np
import scipy.sparse as sp

from mmalign.interfaces import FloatArray, IntArray
from mmalign.models.base import Arrays

__all__ = ["KnownUsers", "history_keys"]

RIDGE = 1e-3
"""Penalty of the fold-in, as a share of the mean squared input."""


@dataclass(frozen=True)
class KnownUsers:
    """Vectors of train users, keyed by their histories.

    A ranking is asked for a history, not for a user, while many methods train a vector per user.
    A history that is exactly one of training gets that user's vector; the same history of
    several users gets their mean. Any other history, a train user's with one more item included,
    is folded in: the mean of its items' vectors goes through an affine map that was fitted by
    ridge regression from the means of train users to their vectors. Without any item only the
    constant is left, the average user.

    Shapes:
        keys: ``[K]`` int64, ascending.
        vectors: ``[K, D]``.
        fold_in: ``[D + 1, D]``, the constant last.
    """

    keys: IntArray
    vectors: FloatArray
    fold_in: FloatArray

    @classmethod
    def fit(cls, matrix: sp.csr_matrix, vectors: FloatArray, items: FloatArray) -> Self:
        """Remember train users and learn to place others.

        Shapes:
            matrix: ``[U, I]``; vectors: ``[U, D]``; items: ``[I, D]``.
        """
        active = np.flatnonzero(matrix.getnnz(axis=1))
        keys, row = np.unique(history_keys(matrix[active]), return_inverse=True)
        total = np.zeros((len(keys), vectors.shape[1]))
        np.add.at(total, row, vectors[active])
        mean = total / np.bincount(row, minlength=len(keys))[:, None]

        inputs = _inputs(matrix[active], items).astype(np.float64)
        gram = inputs.T @ inputs
        penalty = np.full(len(gram), RIDGE * np.trace(gram[:-1, :-1]) / max(len(gram) - 1, 1))
        penalty[-1] = 0
        gram[np.diag_indices_from(gram)] += penalty + np.finfo(np.float32).tiny
        # Vectors that are all zero leave the system singular; least squares then gives zero.
        fold_in = np.linalg.lstsq(gram, inputs.T @ vectors[active], rcond=None)[0]
        return cls(keys, mean.astype(np.float32), fold_in.astype(np.float32))

    def find(self, history: sp.csr_matrix, items: FloatArray) -> FloatArray:
        """Place users, ``[B, D]``.

        Shapes:
            history: ``[B, I]``; items: ``[I, D]``, as in :meth:`fit`; further rows may follow.
        """
        found: FloatArray = _inputs(history, items) @ self.fold_in
        keys = history_keys(history)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = (self.keys[place] == keys) & (history.getnnz(axis=1) > 0)
        found[known] = self.vectors[place[known]]
        return found

    def arrays(self) -> Arrays:
        """The three arrays by name."""
        return {"keys": self.keys, "vectors": self.vectors, "fold_in": self.fold_in}


def history_keys(history: sp.csr_matrix) -> IntArray:
    """Digest the set of items of each row to 64 bits, ``[B]``; weights and width do not count.

    That two of a million users clash has probability of about one in ten million.

    Example:
        >>> one, two = sp.csr_matrix([[0, 1.0, 1.0]]), sp.csr_matrix([[0, 2.0, 1.0, 0]])
        >>> bool(history_keys(one)[0] == history_keys(two)[0])
        True
    """
    keys = np.empty(history.shape[0], np.int64)
    for row in range(len(keys)):
        items = np.sort(history.indices[history.indptr[row] : history.indptr[row + 1]])
        digest = blake2b(items.astype("<i8").tobytes(), digest_size=8).digest()
        keys[row] = int.from_bytes(digest, "little", signed=True)
    return keys


def _inputs(history: sp.csr_matrix, items: FloatArray) -> FloatArray:
    """``[B, D + 1]``: mean of the items' vectors, and a one."""
    marks = sp.csr_matrix(
        (np.ones(history.nnz, np.float32), history.indices, history.indptr), shape=history.shape
    )
    count = np.maximum(history.getnnz(axis=1), 1)[:, None]
    mean = (marks @ items) / count
    return np.concatenate([mean, np.ones((len(mean), 1))], axis=1).astype(np.float32)
