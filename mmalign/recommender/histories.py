"""Rows of users in the matrices of what they took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmalign.data.cells import as_text
from mmalign.errors import ConfigError
from mmalign.interfaces import BoolArray, FloatArray, IntArray

__all__ = ["as_ids", "as_row", "pick", "says_nothing", "union"]


def as_ids(ids: Iterable[object], what: str) -> list[str]:
    """Write ids as text, as a catalogue does.

    Raises:
        ConfigError: It is no list of ids, or one is missing.

    Example:
        >>> as_ids([7, "ann"], "users")
        ['7', 'ann']
    """
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise ConfigError(f"{what} must be a list of ids", got=ids, fix=f"pass [{ids!r}]")
    texts = as_text(pd.Series(list(ids), name=what, dtype=object))
    if texts.isna().any():
        raise ConfigError(f"an id of {what} is missing", got=None, fix="leave it out")
    return [str(text) for text in texts]


def as_row(items: IntArray, weights: Iterable[float] | None, num_items: int) -> sp.csr_matrix:
    """Write a history as a matrix of one row, ``[1, I]``; an item that is named twice counts twice.

    Raises:
        ConfigError: There is not one weight above 0 for each item.

    Example:
        >>> as_row(np.array([2, 0]), [1.0, 3.0], 3).toarray()
        array([[3., 0., 1.]], dtype=float32)
    """
    counts = np.ones(len(items)) if weights is None else np.asarray(list(weights), np.float64)
    if counts.shape != items.shape or not np.all(np.isfinite(counts) & (counts > 0)):
        raise ConfigError(
            f"weights must be {len(items)} numbers above 0",
            got=counts.tolist(),
            fix="pass one for each item of the history, or none at all",
        )
    place = (np.zeros(len(items), np.int64), items)
    return sp.csr_matrix((counts.astype(np.float32), place), shape=(1, num_items))


def pick(matrix: sp.csr_matrix, rows: IntArray) -> sp.csr_matrix:
    """Select rows of a sparse matrix; row -1 stands for somebody unknown, who has no entries.

    Example:
        >>> pick(sp.csr_matrix([[1.0, 0.0], [0.0, 2.0]]), np.array([1, -1])).toarray()
        array([[0., 2.],
               [0., 0.]])
    """
    known = rows >= 0
    chosen = matrix[rows[known]]
    lengths = np.zeros(len(rows), chosen.indptr.dtype)
    lengths[known] = np.diff(chosen.indptr)
    starts = np.concatenate([np.zeros(1, lengths.dtype), np.cumsum(lengths)])
    return sp.csr_matrix((chosen.data, chosen.indices, starts), shape=(len(rows), matrix.shape[1]))


def union(matrices: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    """Mark each entry that any of the matrices has, whatever its value."""
    marks = [
        sp.csr_matrix((np.ones(m.nnz, np.float32), m.indices, m.indptr), m.shape) for m in matrices
    ]
    return sp.csr_matrix(sum(marks[1:], marks[0]))


def says_nothing(history: sp.csr_matrix, scores: FloatArray, warm: BoolArray) -> BoolArray:
    """Mark the histories from which a model learned nothing.

    These are the empty ones, and those of cold items only if they left all warm items alike: a
    model of co-interactions knows nothing about somebody who took what nobody else did.

    Shapes:
        history: ``[B, I]``; scores: ``[B, I]``; warm: ``[I]``; returns: ``[B]``.
    """
    marks: BoolArray = history.getnnz(axis=1) == 0
    only_cold = ~marks & (history[:, warm].getnnz(axis=1) == 0)
    for row in np.flatnonzero(only_cold):
        marks[row] = np.ptp(scores[row, warm]) < 1e-6
    return marks
