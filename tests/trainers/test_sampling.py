from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mmalign.trainers.sampling import UnseenItems, hold_out, sample_negatives


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    users, items = draw(st.integers(1, 8)), draw(st.integers(1, 9))
    dense = (rng.random((users, items)) < draw(st.floats(0, 1))) * rng.random((users, items))
    batch = rng.permutation(users)[: draw(st.integers(1, users))]
    cold = rng.random(items) < draw(st.floats(0, 1))
    return sp.csr_matrix(dense.astype(np.float32)), batch, draw(st.floats(0, 1)), cold, rng


@given(cases())
def test_hold_out_parts_what_passes_messages_from_what_is_predicted(case):
    matrix, users, share, cold, rng = case
    messages, targets = hold_out(matrix, users, share, cold, rng)
    whole, kept, predicted = matrix.toarray(), messages.toarray(), targets.toarray()
    assert messages.shape == matrix.shape
    assert predicted.shape == (len(users), matrix.shape[1])
    assert not (kept[users] * predicted).any()  # no pair in both
    np.testing.assert_array_equal(kept[users] + predicted, whole[users])  # and none lost
    assert not kept[:, cold].any()  # an item that plays cold passes no messages to anybody
    others = np.setdiff1d(np.arange(len(whole)), users)
    np.testing.assert_array_equal(kept[others][:, ~cold], whole[others][:, ~cold])


def test_hold_out_predicts_the_share_it_is_told():
    matrix = sp.csr_matrix(np.ones((200, 50), np.float32))
    none_cold = np.zeros(50, bool)
    _, targets = hold_out(matrix, np.arange(200), 0.3, none_cold, np.random.default_rng(0))
    assert targets.nnz / matrix.nnz == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 6)])
def test_hold_out_of_nothing_and_of_all(share, expected, rng):
    matrix = sp.csr_matrix(np.ones((2, 3), np.float32))
    messages, targets = hold_out(matrix, np.array([1, 0]), share, np.zeros(3, bool), rng)
    assert (targets.nnz, messages.nnz) == (expected, 6 - expected)


def test_hold_out_keeps_the_order_of_the_batch(rng):
    matrix = sp.csr_matrix(np.diag([1.0, 2.0, 3.0]).astype(np.float32))
    _, targets = hold_out(matrix, np.array([2, 0]), 1.0, np.zeros(3, bool), rng)
    np.testing.assert_array_equal(targets.toarray(), [[0, 0, 3], [1, 0, 0]])


def test_log_q_is_the_log_of_the_mean_number_of_draws(rng):
    popularity = np.array([6.0, 3.0, 0.0, 1.0])
    targets = sp.csr_matrix(np.array([[1, 0, 0, 0]], np.float32))
    known = sp.csr_matrix((1, 4), dtype=np.float32)
    count, rounds = 50, 2000
    draws = np.zeros(4)
    log_q = np.full(4, -np.inf)
    for _ in range(rounds):
        drawn = sample_negatives(targets, known, popularity, count, rng)
        draws += np.bincount(drawn.items, minlength=4)
        log_q[drawn.items] = drawn.log_q
    assert draws[2] == 0
    np.testing.assert_allclose(np.exp(log_q), draws / rounds, rtol=0.02)
    np.testing.assert_allclose(np.exp(log_q), count * popularity / 10, rtol=1e-6)


@given(st.integers(0, 10_000))
def test_negatives_know_what_is_positive(seed):
    rng = np.random.default_rng(seed)
    targets = sp.csr_matrix((rng.random((5, 7)) < 0.3).astype(np.float32))
    known = sp.csr_matrix((rng.random((5, 7)) < 0.3).astype(np.float32))
    drawn = sample_negatives(targets, known, rng.random(7) + 0.1, 11, rng)
    pairs = sorted(zip(drawn.users.tolist(), drawn.positives.tolist(), strict=True))
    assert pairs == sorted(zip(*(x.tolist() for x in targets.nonzero()), strict=True))
    liked = (targets + known).toarray() > 0
    for row, user in enumerate(drawn.users):
        for column, item in enumerate(drawn.items):
            assert drawn.is_positive[row, column] == liked[user, item]


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_unseen_items_are_none_that_the_user_took(seed, count):
    rng = np.random.default_rng(seed)
    matrix = sp.csr_matrix((rng.random((6, 7)) < rng.random()).astype(np.float32))
    taken = matrix.toarray() > 0
    users = rng.integers(6, size=11)
    items = UnseenItems(matrix).draw(users, count, rng)
    assert items.shape == (11, count)
    assert ((items >= 0) & (items < 7)).all()
    has_any = ~taken.all(axis=1)[users]
    assert not taken[users[:, None], items][has_any].any()


def test_each_unseen_item_is_as_likely_as_another(rng):
    matrix = sp.csr_matrix(np.array([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]], np.float32))
    items = UnseenItems(matrix).draw(np.array([0, 1]), 30_000, rng)
    for row, expected in enumerate([[0, 1 / 3, 0, 0, 1 / 3, 1 / 3], [1 / 6] * 6]):
        share = np.bincount(items[row], minlength=6) / 30_000
        np.testing.assert_allclose(share, expected, atol=0.015)


def test_somebody_who_took_every_item_gets_any_of_them(rng):
    drawn = UnseenItems(sp.csr_matrix(np.ones((2, 4)))).draw(np.array([0, 1]), 4000, rng)
    counts = np.stack([np.bincount(row, minlength=4) for row in drawn])
    assert counts.min() > 850
