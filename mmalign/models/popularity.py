"""The two floors of every table: popularity and chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp

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
    """Rank at random, the same way each time a history is seen: the floor of every table."""

    serves_cold: ClassVar[bool] = True

    def fit(self, data: TrainData) -> Self:
        """Remember which items are warm."""
        self.warm = data.warm
        return self

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Uniform scores, drawn from the seed, the history's rows and the item's row."""
        csr = sp.csr_matrix(history)
        out = np.empty((csr.shape[0], len(items)), np.float32)
        for row in range(csr.shape[0]):
            seen = csr.indices[csr.indptr[row] : csr.indptr[row + 1]]
            rng = np.random.default_rng([self.config.seed or 0, *np.sort(seen).tolist()])
            out[row] = rng.random(len(self.warm), dtype=np.float32)[items]
        return out

    def item_vectors(self) -> FloatArray:
        """``[I, 16]`` random directions."""
        rng = np.random.default_rng(self.config.seed or 0)
        return rng.standard_normal((len(self.warm), 16), dtype=np.float32)
