"""Rows of users in the matrices of what they took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmalign.data.cells import as_text
from mmalign.errors import ConfigError
from mmalign.interfaces import BoolArray, FloatArray, IntArray

__all__ = ["as_ids", "pick", "says_nothing", "union"]


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
