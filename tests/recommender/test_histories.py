"""Rows of users, and what their histories say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mmalign.errors import ConfigError
from mmalign.recommender.histories import as_ids, pick, says_nothing, union

ROWS = st.lists(st.integers(-1, 4), max_size=12)


@given(rows=ROWS, seed=st.integers(0, 1000))
def test_pick_equals_dense_rows(rows: list[int], seed: int) -> None:
    dense = np.random.default_rng(seed).integers(0, 3, (5, 4)).astype(np.float32)
    index = np.array(rows, dtype=np.int64)
    picked = pick(sp.csr_matrix(dense), index)
    expected = np.where(index[:, None] >= 0, dense[np.maximum(index, 0)], 0)
    np.testing.assert_array_equal(picked.toarray(), expected.reshape(-1, 4))


def test_an_entry_of_zero_is_an_entry() -> None:
    matrix = sp.csr_matrix(([0.0, 1.0], ([0, 1], [2, 0])), shape=(2, 3))
    assert pick(matrix, np.array([0, -1])).nnz == 1
    assert union([matrix, matrix]).toarray().tolist() == [[0, 0, 2], [2, 0, 0]]
    assert union([matrix]).nnz == 2


def test_says_nothing() -> None:
    warm = np.array([True, True, False])
    history = sp.csr_matrix(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]], np.float32))
    scores = np.array([[1, 2, 3], [0, 0, 0], [5, 5, 9], [5, 6, 9]], np.float32)
    assert says_nothing(history, scores, warm).tolist() == [True, False, True, False]


def test_ids_are_texts() -> None:
    assert as_ids(iter([1, 2.0, "x", np.int64(3)]), "users") == ["1", "2", "x", "3"]
    assert as_ids([], "users") == []
    with pytest.raises(ConfigError, match=r"users must be a list of ids .got 'ann'.: pass"):
        as_ids("ann", "users")
