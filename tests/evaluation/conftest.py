from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp


@dataclass(frozen=True)
class Log:
    """What the protocol reads of a Catalog, made from (user row, item row, split) triples."""

    rows: list[tuple[int, int, str]]
    num_users: int
    num_items: int

    def matrix(self, *splits):
        chosen = [(u, i) for u, i, split in self.rows if split in (splits or ("train",))]
        users, items = np.array(chosen, dtype=np.int64).reshape(-1, 2).T
        ones = np.ones(len(chosen), dtype=np.float32)
        return sp.csr_matrix((ones, (users, items)), shape=(self.num_users, self.num_items))

    @property
    def warm(self):
        return self.matrix("train").getnnz(axis=0) > 0


@dataclass(frozen=True)
class FixedScores:
    """Scores by item row, the same for everybody."""

    values: np.ndarray

    def score(self, history, items):
        return np.tile(self.values[items], (history.shape[0], 1)).astype(np.float32)


@pytest.fixture
def fixed_scores():
    return FixedScores


@pytest.fixture
def log():
    """Items 0 to 3 are warm, 4 only valid, 5 and 6 only test, 7 valid and test, 8 untouched."""
    rows = {
        "train": [(0, 0), (0, 1), (1, 0), (1, 2), (2, 3)],
        "valid": [(0, 2), (0, 4), (1, 4), (2, 7)],
        "test": [(0, 3), (0, 5), (1, 1), (1, 6), (1, 7), (3, 5)],
    }
    triples = [(u, i, split) for split, pairs in rows.items() for u, i in pairs]
    return Log(triples, num_users=4, num_items=9)


@pytest.fixture
def make_log():
    """Build a random log with cold items of both kinds and no repeated pair."""

    def make(num_users=300, num_items=200, num_cold=60, per_user=20, seed=0):
        rng = np.random.default_rng(seed)
        cold_items = num_items - num_cold + np.arange(num_cold)
        rows = []
        for user in range(num_users):
            for item in rng.choice(num_items, per_user, replace=False).tolist():
                kind = rng.choice(["train", "valid", "test"], p=[0.5, 0.2, 0.3])
                if item in cold_items:
                    kind = "test" if item % 2 else "valid"
                rows.append((user, item, str(kind)))
        return Log(rows, num_users, num_items)

    return make
