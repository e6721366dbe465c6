from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmalign.errors import ConfigError, DataError
from mmalign.ranking import top_k


def loop_top_k(scores, k, excluded):
    """The oracle: sort every row by (score downwards, position upwards) in plain Python."""
    positions, best = [], []
    for row, out in zip(scores.tolist(), excluded.tolist(), strict=True):
        allowed = [
            (-score, position)
            for position, (score, gone) in enumerate(zip(row, out, strict=True))
            if not gone and score != -np.inf
        ]
        ranked = sorted(allowed)[:k]
        padding = k - len(ranked)
        positions.append([position for _, position in ranked] + [-1] * padding)
        best.append([-score for score, _ in ranked] + [-np.inf] * padding)
    return positions, best


# Few distinct values make ties likely, at the threshold and elsewhere.
SCORES = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 1.0, 3.0, np.inf])


@st.composite
def problems(draw):
    shape = draw(st.tuples(st.integers(0, 5), st.integers(0, 9)))
    scores = draw(hnp.arrays(np.float32, shape, elements=SCORES))
    excluded = draw(hnp.arrays(np.bool_, shape))
    return scores, draw(st.integers(1, 12)), excluded


@given(problems())
def test_equals_a_sort_in_plain_python(problem):
    scores, k, excluded = problem
    positions, best = top_k(scores, k, sp.csr_matrix(excluded))
    expected_positions, expected_best = loop_top_k(scores, k, excluded)
    assert positions.tolist() == expected_positions
    assert best.tolist() == expected_best
    assert positions.dtype == np.int64
    assert positions.shape == best.shape == (len(scores), k)


def test_hand_worked_with_ties_across_the_threshold():
    scores = np.array([[1.0, 2.0, 1.0, 1.0, 0.0]], dtype=np.float32)
    positions, best = top_k(scores, 3)
    assert positions.tolist() == [[1, 0, 2]]
    assert best.tolist() == [[2.0, 1.0, 1.0]]


def test_all_equal_scores_give_the_first_positions():
    positions, _ = top_k(np.zeros((3, 1000), dtype=np.float32), 4)
    assert positions.tolist() == [[0, 1, 2, 3]] * 3


def test_k_beyond_the_allowed_candidates_is_padded():
    scores = np.array([[0.5, 0.7, 0.9]])
    exclude = sp.csr_matrix(np.array([[0, 0, 1]]))
    positions, best = top_k(scores, 5, exclude)
    assert positions.tolist() == [[1, 0, -1, -1, -1]]
    assert best.tolist() == [[0.7, 0.5, -np.inf, -np.inf, -np.inf]]


def test_no_candidates_at_all_is_padding():
    positions, best = top_k(np.empty((2, 0), dtype=np.float32), 3)
    assert positions.tolist() == [[-1] * 3] * 2
    assert np.isneginf(best).all()


def test_an_excluded_entry_counts_whatever_its_value():
    stored_zero = sp.csr_matrix(
        (np.zeros(1), np.array([1]), np.array([0, 1])), shape=(1, 2), dtype=np.float32
    )
    positions, _ = top_k(np.array([[0.1, 0.9]]), 2, stored_zero)
    assert positions.tolist() == [[0, -1]]


def test_the_scores_are_left_as_they_were():
    scores = np.array([[3.0, 1.0, 2.0]], dtype=np.float32)
    top_k(scores, 2, sp.csr_matrix(np.array([[1, 0, 0]])))
    assert scores.tolist() == [[3.0, 1.0, 2.0]]


def test_float64_scores_keep_their_precision():
    close = np.array([[1.0, 1.0 + 1e-12]])
    positions, best = top_k(close, 1)
    assert positions.tolist() == [[1]]
    assert best.dtype == np.float64


def test_whole_numbers_rank_like_floats():
    assert top_k(np.array([[3, 9, 5]]), 2)[0].tolist() == [[1, 2]]


def test_larger_than_any_small_case_path_against_a_full_sort():
    scores = np.random.default_rng(0).integers(0, 300, size=(64, 2000)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :50]
    assert np.array_equal(top_k(scores, 50)[0], expected)


def test_nan_is_named_even_where_excluded():
    scores = np.zeros((2, 3), dtype=np.float32)
    scores[1, 2] = np.nan
    exclude = sp.csr_matrix(np.array([[0, 0, 0], [0, 0, 1]]))
    with pytest.raises(DataError, match="user row 1, candidate 2 is NaN"):
        top_k(scores, 1, exclude)


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="k must be at least 1"):
        top_k(np.zeros((1, 2)), 0)
    with pytest.raises(DataError, match="table"):
        top_k(np.zeros(3), 1)
    with pytest.raises(DataError, match="exclude must have the shape"):
        top_k(np.zeros((1, 2)), 1, sp.csr_matrix((1, 3)))
