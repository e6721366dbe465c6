"""The two floors of every table: popularity and chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.interfaces import Features, FloatArray, IntArray
from mmalign.models.base import Model, TrainData

__all__ = ["Popularity", "PopularityConfig", "RandomConfig", "RandomModel"]


@dataclass(frozen=True)
class PopularityConfig:
    """Popularity has nothing to set."""


class Popularity(Model[PopularityConfig]):
    """Rank by the number of train interactions, the same for everybody."""

    learned = ("warm", "counts")
    counts: FloatArray

    def fit(self, data: TrainData) -> Self:
        """Count train interactions."""
        self.warm = data.warm
        self.counts = data.matrix.getnnz(axis=0).astype(np.float32)
        return self

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Counts of the candidates, repeated for each user."""
        return np.repeat(self.counts[items][None], history.shape[0], axis=0)

    def item_vectors(self) -> FloatArray:
        """``[I, 1]``: the counts."""
        return self.counts[:, None]

    def _append(self, features: Features, count: int) -> None:
        self.counts = np.concatenate([self.counts, np.zeros(count, np.float32)])


@dataclass(frozen=True)
class RandomConfig:
    """Seed of the random ranker; None for the experiment's."""

    seed: int | None = None


class RandomModel(Model[RandomConfig]):
    """Rank by a hash of the seed, the user's history and the item: the floor of every table.

    Being a hash, a score depends neither on the other users and candidates nor on the order of
    calls, and needs no fit. Users with the same history get the same list.

    Example:
        >>> history = sp.csr_matrix(np.eye(2, 5, dtype=np.float32))
        >>> model = RandomModel(RandomConfig(seed=0))
        >>> everything = model.score(history, np.arange(5))
        >>> bool(model.score(history[1:], np.array([4])) == everything[1, 4])
        True
    """

    serves_cold: ClassVar[bool] = True

    def fit(self, data: TrainData) -> Self:
        """Remember which items are warm."""
        self.warm = data.warm
        return self

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Uniform scores in [0, 1)."""
        seed = _hash(np.array([(self.config.seed or 0) % 2**64], dtype=np.uint64))
        tokens = _hash(np.arange(history.shape[1], dtype=np.uint64) ^ seed)
        csr = sp.csr_matrix(history)
        sets = sp.csr_matrix((np.ones(csr.nnz, np.uint64), csr.indices, csr.indptr), csr.shape)
        users = _hash(sets @ tokens)  # a sum that wraps around is a hash of a set
        mixed = _hash(users[:, None] ^ tokens[items])
        return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24)

    def item_vectors(self) -> FloatArray:
        """``[I, 16]`` random directions."""
        rng = np.random.default_rng(self.config.seed or 0)
        return rng.standard_normal((len(self.warm), 16), dtype=np.float32)


def _hash(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each number (the finaliser of SplitMix64; Steele et al., 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
