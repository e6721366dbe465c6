"""The two floors."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy import stats

from mmalign.models import TrainData
from mmalign.models.popularity import Popularity, PopularityConfig, RandomConfig, RandomModel

EVERYTHING = np.arange(14)
HISTORY = sp.csr_matrix(sp.random_array((40, 300), density=0.05, rng=0, dtype=np.float32))


def test_popularity_counts_users(shop: TrainData) -> None:
    counts = [sum(1 for row in shop.matrix.toarray() if row[item]) for item in range(14)]
    for matrix in (shop.matrix, shop.matrix * 3):  # weights do not count
        model = Popularity(PopularityConfig()).fit(TrainData(matrix, {}))
        scores = model.score(shop.matrix[:2], EVERYTHING)
        np.testing.assert_array_equal(scores, [counts, counts])


def test_a_random_score_depends_on_seed_history_and_item_only() -> None:
    scores = RandomModel(RandomConfig(seed=3)).score(HISTORY, np.arange(300))
    subset = RandomModel(RandomConfig(seed=3)).score(HISTORY[10:20], np.array([250, 7]))
    assert np.array_equal(subset, scores[10:20][:, [250, 7]])
    other = RandomModel(RandomConfig(seed=4)).score(HISTORY, np.arange(300))
    assert not np.array_equal(other, scores)
    assert len(np.unique(scores, axis=0)) == 40


def test_random_scores_are_uniform_and_unrelated_between_users_items_and_seeds() -> None:
    scores = RandomModel(RandomConfig(seed=0)).score(HISTORY, np.arange(300))
    other = RandomModel(RandomConfig(seed=1)).score(HISTORY, np.arange(300))
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() < 1
    assert stats.kstest(scores.ravel(), "uniform").pvalue > 0.01
    for a, b in [(scores[0], scores[1]), (scores[:, 0], scores[:, 1]), (scores[0], other[0])]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


def test_the_order_of_a_history_says_nothing(shop: TrainData) -> None:
    model = RandomModel(RandomConfig()).fit(shop)
    row = shop.matrix[[0]]
    other = row.copy()
    other.indices, other.data = row.indices[::-1].copy(), row.data[::-1].copy()
    np.testing.assert_array_equal(model.score(row, EVERYTHING), model.score(other, EVERYTHING))
