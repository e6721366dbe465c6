from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mmalign.errors import DataError
from mmalign.trainers.finetuning.pairs import CoInteractions, ItemPairs, StreamedPairs


def co(rows, popularity=0.5, neighbours=10, seed=0):
    matrix = sp.csr_matrix(np.asarray(rows, dtype=np.float32))
    return CoInteractions(matrix, popularity=popularity, neighbours=neighbours, seed=seed)


def log(seed=0, users=40, items=12, share=0.3):
    rng = np.random.default_rng(seed)
    taken = rng.random((users, items)) < share
    taken[:, -1] = False  # cold
    return taken


def test_likeness_by_hand():
    """Two users take items 0 and 1, one of whom takes 2 as well; item 3 stands alone."""
    found = co([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]], popularity=1.0)
    a, b = 1 / 2 + 1 / 3, 1 / 3  # the first pair is said by users of two and of three items
    expected = [[0, a / 2, b, 0], [a / 2, 0, b, 0], [b / 2, b / 2, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found.partners.toarray(), expected, rtol=1e-6)
    plain = co([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]], popularity=0.0)
    np.testing.assert_allclose(plain.partners.toarray()[0], [0, a, b, 0], rtol=1e-6)


def test_only_the_most_alike_stay():
    taken = log()
    every, few = co(taken).partners.toarray(), co(taken, neighbours=3).partners.toarray()
    assert ((few > 0).sum(axis=1) <= 3).all()
    for row in range(11):
        kept = np.flatnonzero(few[row])
        assert set(every[row][kept]) == set(np.sort(every[row])[-len(kept) :])


def test_partners_found_in_blocks_are_the_same(monkeypatch):
    taken = log(items=6)
    whole = co(taken).partners.toarray()
    monkeypatch.setattr("mmalign.trainers.finetuning.pairs.BLOCK_SIZE", 2)
    np.testing.assert_array_equal(co(taken).partners.toarray(), whole)
    assert not whole.diagonal().any()


@pytest.mark.parametrize("popularity", [0.0, 0.5, 1.0])
def test_pairs_come_as_often_as_they_should(popularity):
    taken = log()
    found = co(taken, popularity)
    likeness = found.partners.toarray()
    first = np.where(
        likeness.sum(axis=1) > 0, np.maximum(taken.sum(axis=0), 1) ** (1 - popularity), 0
    )
    expected = np.zeros_like(likeness)
    rows = likeness.sum(axis=1) > 0
    second = likeness[rows] / likeness[rows].sum(axis=1, keepdims=True)
    expected[rows] = (first / first.sum())[rows, None] * second
    pairs = found.draw(0, 200_000)
    counted = np.zeros_like(likeness)
    np.add.at(counted, (pairs[:, 0], pairs[:, 1]), 1 / len(pairs))
    np.testing.assert_allclose(counted, expected, atol=0.002)
    np.testing.assert_allclose(np.exp(found.log_q()), expected.sum(axis=0), rtol=1e-4)


@given(st.integers(0, 50), st.integers(1, 6), st.floats(0, 1))
def test_partners_are_different_warm_items_with_a_common_user(seed, neighbours, popularity):
    taken = log(seed, users=15)
    found = co(taken, popularity, neighbours, seed)
    pairs = found.draw(seed, 300)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert 11 not in pairs  # the cold item
    common = taken.T.astype(int) @ taken
    assert (common[pairs[:, 0], pairs[:, 1]] > 0).all()
    assert found.known(pairs[:, 0], pairs[:, 1]).diagonal().all()


def test_known_partners_count_in_either_direction():
    found = co(log(), neighbours=2)
    every = np.arange(12)
    either = (found.partners.toarray() > 0) | (found.partners.toarray().T > 0)
    assert np.array_equal(found.known(every, every), either)
    assert np.array_equal(found.known(every[:3], every[5:]), either[:3, 5:])


def test_an_epoch_is_told_by_seed_and_number():
    taken = log()
    assert np.array_equal(co(taken).draw(3, 50), co(taken).draw(3, 50))
    assert not np.array_equal(co(taken).draw(3, 50), co(taken).draw(4, 50))
    assert not np.array_equal(co(taken).draw(3, 50), co(taken, seed=1).draw(3, 50))


def test_users_of_one_item_each_say_nothing():
    with pytest.raises(DataError, match="no two items are taken by the same user"):
        co(np.eye(4))


def test_every_item_comes_once_before_any_comes_again():
    pairs = ItemPairs(np.asarray([2, 5, 7]), seed=0)
    drawn = pairs.draw(1, 8)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert sorted(drawn[:3, 0]) == sorted(drawn[3:6, 0]) == [2, 5, 7]
    assert np.array_equal(drawn, ItemPairs(np.asarray([2, 5, 7]), seed=0).draw(1, 8))


@pytest.mark.parametrize("rows", [[], [4]])
def test_fewer_than_two_items_are_refused(rows):
    with pytest.raises(DataError, match="contrast needs two items"):
        ItemPairs(np.asarray(rows, dtype=np.int64), seed=0)


def test_a_stream_of_one_item_is_refused():
    with pytest.raises(DataError, match=r"contrast needs two items.*got 1"):
        StreamedPairs(SimpleNamespace(num_train=1))
