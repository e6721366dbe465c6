from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmalign.errors import ConfigError, DataError
from mmalign.evaluation import metrics

TWO_OF_THREE = np.array([[True, False, True, False]])


@st.composite
def ranked_users(draw):
    """Hits and truth counts that can belong together."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(0, 8)))
    hits = draw(hnp.arrays(np.bool_, shape))
    missed = draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, 5)))
    return hits, hits.sum(axis=1) + missed


def loop_ndcg(hits, truths, k):
    """The oracle: gain over ideal gain by the textbook, one user."""
    if truths == 0:
        return math.nan
    gain = sum(1 / math.log2(i + 2) for i, hit in enumerate(hits[:k]) if hit)
    return gain / sum(1 / math.log2(i + 2) for i in range(min(k, truths)))


# Recall and NDCG


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 3), (2, 1 / 3), (3, 2 / 3), (9, 2 / 3)])
def test_recall_by_hand(k, expected):
    assert metrics.recall_at_k(TWO_OF_THREE, np.array([3]), k) == pytest.approx([expected])


def test_ndcg_by_hand():
    # Hits at ranks 1 and 3: 1 + 1/log2(4) = 1.5. Ideal of three: 1 + 1/log2(3) + 1/2 = 2.1309.
    assert metrics.ndcg_at_k(TWO_OF_THREE, np.array([3]), 4) == pytest.approx([1.5 / 2.130930])


def test_the_ideal_is_cut_at_k_and_at_the_number_of_truths():
    one_hit = np.array([[True, False]])
    assert metrics.ndcg_at_k(one_hit, np.array([50]), 1).tolist() == [1.0]
    assert metrics.ndcg_at_k(one_hit, np.array([1]), 2).tolist() == [1.0]
    assert metrics.ndcg_at_k(one_hit, np.array([2]), 2) == pytest.approx([1 / 1.630930])


@pytest.mark.parametrize("metric", [metrics.recall_at_k, metrics.ndcg_at_k])
def test_users_without_truths_are_undefined_and_users_without_hits_are_zero(metric):
    values = metric(np.zeros((2, 3), dtype=bool), np.array([0, 2]), 3)
    assert np.isnan(values[0])
    assert values[1] == 0.0


@given(ranked_users(), st.integers(1, 10))
def test_ndcg_equals_the_loop(users, k):
    hits, truths = users
    expected = [loop_ndcg(h, t, k) for h, t in zip(hits.tolist(), truths.tolist(), strict=True)]
    assert metrics.ndcg_at_k(hits, truths, k) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("metric", [metrics.recall_at_k, metrics.ndcg_at_k])
@given(users=ranked_users(), k=st.integers(1, 10))
def test_values_stay_within_zero_and_one(metric, users, k):
    values = metric(*users, k)
    defined = values[users[1] > 0]
    assert np.all((defined >= 0) & (defined <= 1))
    assert len(defined) == np.isfinite(values).sum()


@pytest.mark.parametrize("metric", [metrics.recall_at_k, metrics.ndcg_at_k])
@given(users=ranked_users(), k=st.integers(1, 10), data=st.data())
def test_each_user_is_measured_alone(metric, users, k, data):
    hits, truths = users
    order = data.draw(st.permutations(range(len(hits))))
    assert np.array_equal(
        metric(hits[order], truths[order], k), metric(hits, truths, k)[order], equal_nan=True
    )


@given(ranked_users(), st.integers(1, 9))
def test_recall_grows_with_k(users, k):
    hits, truths = users
    longer, shorter = metrics.recall_at_k(hits, truths, k + 1), metrics.recall_at_k(hits, truths, k)
    assert np.all((longer >= shorter) | (truths == 0))


@given(st.integers(1, 30), st.integers(1, 30))
def test_a_perfect_list_scores_exactly_one(truths, k):
    hits = np.arange(k)[None, :] < truths
    assert metrics.ndcg_at_k(hits, np.array([truths]), k).tolist() == [1.0]


@given(ranked_users(), st.integers(2, 8))
def test_a_hit_that_moves_up_raises_ndcg(users, k):
    hits, truths = users
    for row in range(len(hits)):
        for slot in range(1, min(k, hits.shape[1])):
            if hits[row, slot] and not hits[row, slot - 1]:
                better = hits.copy()
                better[row, [slot - 1, slot]] = [True, False]
                before, after = (
                    metrics.ndcg_at_k(hits, truths, k),
                    metrics.ndcg_at_k(better, truths, k),
                )
                assert after[row] > before[row]


@pytest.mark.parametrize("metric", [metrics.recall_at_k, metrics.ndcg_at_k])
def test_wrong_input_is_named(metric):
    with pytest.raises(ConfigError, match="k must be at least 1"):
        metric(TWO_OF_THREE, np.array([3]), 0)
    with pytest.raises(DataError, match=r"hits must be \[B, K\]"):
        metric(TWO_OF_THREE, np.array([3, 3]), 2)
    with pytest.raises(DataError, match="user row 0 has more hits than truths"):
        metric(TWO_OF_THREE, np.array([1]), 2)


# The lists as a whole


def test_recommendation_counts_leave_padding_out():
    positions = np.array([[0, 2], [2, -1], [-1, -1]])
    assert metrics.recommendation_counts(positions, 4).tolist() == [1, 0, 2, 0]


def test_coverage_by_hand():
    assert metrics.coverage(np.array([4, 0, 1])) == pytest.approx(2 / 3)
    assert np.isnan(metrics.coverage(np.array([], dtype=np.int64)))


def test_gini_by_hand():
    # Mean absolute difference over all ordered pairs, halved, over the mean: 20 / 16 / 2 / 2.5.
    assert metrics.gini(np.array([1, 4, 2, 3])) == pytest.approx(0.25)
    assert metrics.gini(np.array([7, 7])) == 0.0
    assert metrics.gini(np.array([0, 9, 0, 0, 0])) == pytest.approx(0.8)
    assert np.isnan(metrics.gini(np.array([0, 0])))
    assert np.isnan(metrics.gini(np.array([], dtype=np.int64)))


@given(hnp.arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 1000)), st.data())
def test_gini_equals_the_pairwise_definition_in_any_order(counts, data):
    order = data.draw(st.permutations(range(len(counts))))
    value = metrics.gini(counts[order])
    if counts.sum() == 0:
        assert np.isnan(value)
        return
    pairwise = np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean())
    assert value == pytest.approx(pairwise, abs=1e-12)
    assert 0 <= value <= 1 - 1 / len(counts) + 1e-12


def test_novelty_by_hand():
    interactions = np.array([5, 1, 0, 0])  # shares 6/10, 2/10, 1/10, 1/10
    expected = -(3 * math.log2(0.6) + math.log2(0.1)) / 4
    assert metrics.novelty(np.array([3, 0, 1, 0]), interactions) == pytest.approx(expected)


def test_novelty_of_items_without_any_interaction_is_that_of_an_even_choice():
    nothing = np.zeros(8, dtype=np.int64)
    assert metrics.novelty(np.arange(8), nothing) == pytest.approx(3.0)
    assert np.isnan(metrics.novelty(nothing, nothing))


def test_rarer_items_are_more_novel_and_cold_ones_most():
    interactions = np.array([100, 10, 1, 0])
    values = [metrics.novelty(row, interactions) for row in np.eye(4, dtype=np.int64)]
    assert values == sorted(values)
    assert np.isfinite(values).all()


def test_novelty_wants_counts_of_the_same_items():
    with pytest.raises(DataError, match="differ in shape"):
        metrics.novelty(np.array([1, 2]), np.array([1, 2, 3]))


# Popularity buckets


def names(interactions):
    return [metrics.BUCKETS[code] for code in metrics.popularity_buckets(np.array(interactions))]


def test_buckets_by_hand():
    # 12 interactions, so thirds of 4. Above the 5 lies nothing, above the 3s lie 5, above the 1 11.
    assert names([3, 0, 5, 1, 3]) == ["mid", "cold", "head", "tail", "mid"]


def test_a_bucket_starts_exactly_at_its_third():
    assert names([1, 2, 3]) == ["tail", "mid", "head"]  # 0, 3 and 5 of 6 lie above: 3 >= 2, 5 >= 4
    assert names([4, 4, 2, 2]) == ["head", "head", "tail", "tail"]  # 8 of 12 is two thirds: tail


def test_equal_items_share_a_bucket():
    assert names([2] * 9) == ["head"] * 9
    assert names([0, 0]) == ["cold", "cold"]
    assert names([]) == []


@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 50)), st.data())
def test_buckets_follow_popularity_in_any_order(interactions, data):
    order = data.draw(st.permutations(range(len(interactions))))
    codes = metrics.popularity_buckets(interactions)
    assert np.array_equal(metrics.popularity_buckets(interactions[order]), codes[order])
    assert np.array_equal(codes == metrics.BUCKETS.index("cold"), interactions == 0)
    by_popularity = codes[np.argsort(-interactions, kind="stable")]
    assert np.all(np.diff(by_popularity) >= 0)
    if interactions.any():
        assert by_popularity[0] == metrics.BUCKETS.index("head")


def test_recall_by_bucket_by_hand():
    hits = np.array([[True, True, False, True], [False, False, False, True]])
    slots = np.array([[0, 1, 0, 1], [2, 2, 2, 3]])
    truths = np.array([[2, 2, 0, 0], [0, 0, 1, 1]])
    values = metrics.recall_by_bucket(hits, slots, truths, k=3)
    expected = [[0.5, 0.5, np.nan, np.nan], [np.nan, np.nan, 0.0, 0.0]]
    assert np.array_equal(values, expected, equal_nan=True)
