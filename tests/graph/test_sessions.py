"""Items taken shortly after each other, against a sum over every pair by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mmalign.errors import ConfigError
from mmalign.graph.sessions import session_gram

LOGS = st.lists(
    st.dictionaries(st.integers(0, 5), st.integers(-2_000, 2_000), max_size=6),
    min_size=1,
    max_size=4,
)
"""One user each: item to the second it was taken in."""


def sparse(log: list[dict[int, int]]) -> sp.csr_matrix:
    rows = [user for user, taken in enumerate(log) for _ in taken]
    columns = [item for taken in log for item in taken]
    seconds = [float(time) for taken in log for time in taken.values()]
    return sp.coo_matrix((seconds, (rows, columns)), (len(log), 6)).tocsr()


@given(LOGS, st.sampled_from([1.0, 30.0, 900.0]))
def test_it_is_the_sum_over_users_and_pairs(log: list[dict[int, int]], seconds: float) -> None:
    expected = np.zeros((6, 6))
    for taken in log:
        for one, at in taken.items():
            for other, then in taken.items():
                expected[one, other] += math.exp(-abs(at - then) / seconds)
    found = session_gram(sparse(log), seconds)
    np.testing.assert_allclose(found, expected, atol=len(log) * math.exp(-10))
    np.testing.assert_array_equal(found, found.T)
    assert np.linalg.eigvalsh(found).min() > -1e-3


def test_the_second_zero_is_a_time_as_others_are() -> None:
    found = session_gram(sparse([{0: 0, 1: 60}]), seconds=60)
    assert found[0, 1] == pytest.approx(math.exp(-1))
    assert found[0, 0] == found[1, 1] == 1


def test_sessions_far_apart_do_not_meet() -> None:
    found = session_gram(sparse([{0: 0, 1: 1, 2: 86_400, 3: 86_401}]), seconds=60)
    assert found[:2, 2:4].sum() == 0
    assert found[0, 1] == found[2, 3] > 0.9


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_a_session_has_a_length(seconds: float) -> None:
    with pytest.raises(ConfigError, match="seconds of a session must be positive"):
        session_gram(sparse([{0: 0}]), seconds)
