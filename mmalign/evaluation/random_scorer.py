"""The random ranker, which every model has to beat and every slice has to be fair to."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.interfaces import FloatArray, IntArray

__all__ = ["RandomScorer"]


class RandomScorer:
    """Scores drawn from a hash of the seed, the user's history and the item.

    Being a hash, a score depends neither on the other users and candidates nor on the order of
    calls. Users with the same history get the same list.

    Example:
        >>> history = sp.csr_matrix(np.eye(2, 5, dtype=np.float32))
        >>> scorer = RandomScorer(seed=0)
        >>> everything = scorer.score(history, np.arange(5))
        >>> bool(scorer.score(history[1:], np.array([4])) == everything[1, 4])
        True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Draw uniform scores in [0, 1).

        Shapes:
            history: ``[B, I]`` sparse.
            items: ``[C]`` item rows.
            returns: ``[B, C]`` float32.
        """
        seed = _hash(np.array([self.seed % 2**64], dtype=np.uint64))
        tokens = _hash(np.arange(history.shape[1], dtype=np.uint64) ^ seed)
        sets = sp.csr_matrix(
            (np.ones(history.nnz, np.uint64), history.indices, history.indptr), history.shape
        )
        users = _hash(sets @ tokens)  # a sum that wraps around is a hash of a set
        mixed = _hash(users[:, None] ^ tokens[items])
        return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def _hash(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each number (the finaliser of SplitMix64; Steele et al., 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
