"""The two floors."""

from __future__ import annotations

import numpy as np

from mmalign.models import TrainData
from mmalign.models.popularity import Popularity, PopularityConfig, RandomConfig, RandomModel

EVERYTHING = np.arange(14)


def test_popularity_counts_users(shop: TrainData) -> None:
    counts = [sum(1 for row in shop.matrix.toarray() if row[item]) for item in range(14)]
    for matrix in (shop.matrix, shop.matrix * 3):  # weights do not count
        model = Popularity(PopularityConfig()).fit(TrainData(matrix, {}))
        scores = model.score(shop.matrix[:2], EVERYTHING)
        np.testing.assert_array_equal(scores, [counts, counts])


def test_random_scores_are_even_and_repeatable(shop: TrainData) -> None:
    model = RandomModel(RandomConfig(seed=1)).fit(shop)
    scores = model.score(shop.matrix, EVERYTHING)
    np.testing.assert_array_equal(scores, model.score(shop.matrix, EVERYTHING))
    assert (
        scores != RandomModel(RandomConfig(seed=2)).fit(shop).score(shop.matrix, EVERYTHING)
    ).all()
    assert ((scores >= 0) & (scores < 1)).all()
    assert abs(scores.mean() - 0.5) < 0.05  # 420 draws, deviation .014


def test_random_scores_differ_between_users(shop: TrainData) -> None:
    scores = RandomModel(RandomConfig()).fit(shop).score(shop.matrix, EVERYTHING)
    histories = {tuple(row.indices.tolist()) for row in shop.matrix}
    assert len({row.tobytes() for row in scores}) == len(histories)


def test_the_order_of_a_history_says_nothing(shop: TrainData) -> None:
    model = RandomModel(RandomConfig()).fit(shop)
    row = shop.matrix[[0]]
    other = row.copy()
    other.indices, other.data = row.indices[::-1].copy(), row.data[::-1].copy()
    np.testing.assert_array_equal(model.score(row, EVERYTHING), model.score(other, EVERYTHING))
