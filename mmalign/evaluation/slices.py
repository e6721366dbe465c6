"""Slices of the evaluation protocol: users, candidates, truth and exclusions on a frozen split.

For the split under evaluation (test; valid likewise):

====  ===================================================  ==================================
name  truth                                                candidates
====  ===================================================  ==================================
warm  its rows whose item has a train row                  items with a train row
cold  its rows of items that have rows in no other split   those items only
all   both                                                 both
====  ===================================================  ==================================

What a user did in earlier splits (``exclude_seen``) is taken out of the candidates; the truth stays
whole. Users count in a slice when they have at least one truth row in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mmalign.errors import ConfigError, nearest
from mmalign.interfaces import SLICES, SPLITS, IntArray

if TYPE_CHECKING:
    from mmalign.data.catalog import Catalog

__all__ = ["Slice", "build_slice", "earlier_splits"]


@dataclass(frozen=True)
class Slice:
    """Who is ranked what in one slice of the protocol.

    Shapes:
        users: ``[B]`` user rows of the catalogue, ascending; each has a truth.
        candidates: ``[C]`` item rows of the catalogue, ascending.
        truth: ``[B, C]`` sparse bool, the pairs to be found.
        exclude: ``[B, C]`` sparse bool, the pairs that must not be recommended.
        history: ``[B, I]`` sparse float32, the users' train rows: all that a scorer is told.
    """

    users: IntArray
    candidates: IntArray
    truth: sp.csr_matrix
    exclude: sp.csr_matrix
    history: sp.csr_matrix


def build_slice(
    catalog: Catalog,
    split: str = "test",
    name: str = "all",
    exclude_seen: Sequence[str] = ("train", "valid"),
) -> Slice:
    """Find users, candidates, truth and exclusions of one slice.

    Args:
        catalog: Its ``matrix`` and ``warm`` are read.
        split: ``test`` or ``valid``.
        name: ``warm``, ``cold`` or ``all``.
        exclude_seen: Splits whose rows are taken out of the candidates, as far as they come before
            the evaluated one.

    Raises:
        ConfigError: An unknown split or slice.
    """
    if name not in SLICES:
        raise ConfigError(f"unknown slice {name!r}", fix=nearest(name, SLICES))
    excluded = earlier_splits(split, exclude_seen)
    evaluated = catalog.matrix(split)
    elsewhere = catalog.matrix(*(other for other in SPLITS if other != split))
    cold = (evaluated.getnnz(axis=0) > 0) & (elsewhere.getnnz(axis=0) == 0)
    kinds = {"warm": catalog.warm, "cold": cold, "all": catalog.warm | cold}

    candidates = np.flatnonzero(kinds[name])
    truth = _pattern(evaluated[:, candidates])
    users = np.flatnonzero(truth.getnnz(axis=1))
    seen = catalog.matrix(*excluded) if excluded else sp.csr_matrix(evaluated.shape)
    return Slice(
        users=users,
        candidates=candidates,
        truth=truth[users],
        exclude=_pattern(seen[users][:, candidates]),
        history=catalog.matrix("train")[users],
    )


def earlier_splits(split: str, exclude_seen: Sequence[str]) -> tuple[str, ...]:
    """Keep the splits of ``exclude_seen`` that come before the evaluated one, in time order.

    Raises:
        ConfigError: A split that does not exist, or cannot be evaluated or excluded.

    Example:
        >>> earlier_splits("valid", ("train", "valid"))
        ('train',)
    """
    if split not in SPLITS[1:]:
        raise ConfigError(f"cannot evaluate on split {split!r}", fix=nearest(split, SPLITS[1:]))
    for name in exclude_seen:
        if name not in SPLITS[:-1]:
            raise ConfigError(
                f"exclude_seen cannot name {name!r}", fix=nearest(str(name), SPLITS[:-1])
            )
    return tuple(name for name in SPLITS[: SPLITS.index(split)] if name in exclude_seen)


def _pattern(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Which entries are stored, whatever their values: a row of the log counts even at weight 0."""
    ones = np.ones(matrix.nnz, dtype=np.bool_)
    return sp.csr_matrix((ones, matrix.indices, matrix.indptr), shape=matrix.shape)
