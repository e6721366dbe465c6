from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy import stats

from mmalign.evaluation.random_scorer import RandomScorer

HISTORY = sp.random_array((40, 300), density=0.05, format="csr", rng=0, dtype=np.float32)
HISTORY = sp.csr_matrix(HISTORY)


def test_a_score_depends_on_seed_history_and_item_only():
    scores = RandomScorer(seed=3).score(HISTORY, np.arange(300))
    subset = RandomScorer(seed=3).score(HISTORY[10:20], np.array([250, 7]))
    assert np.array_equal(subset, scores[10:20][:, [250, 7]])
    assert not np.array_equal(RandomScorer(seed=4).score(HISTORY, np.arange(300)), scores)
    assert len(np.unique(scores, axis=0)) == 40


def test_scores_are_uniform_and_unrelated_between_users_items_and_seeds():
    scores = RandomScorer(seed=0).score(HISTORY, np.arange(300))
    other = RandomScorer(seed=1).score(HISTORY, np.arange(300))
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() < 1
    assert stats.kstest(scores.ravel(), "uniform").pvalue > 0.01
    for a, b in [(scores[0], scores[1]), (scores[:, 0], scores[:, 1]), (scores[0], other[0])]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))
