from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mmalign.models.neural.users import KnownUsers, history_keys


def histories(*rows, width=6):
    dense = np.zeros((len(rows), width), np.float32)
    for row, items in enumerate(rows):
        dense[row, list(items)] = 1
    return sp.csr_matrix(dense)


@pytest.fixture
def known(rng):
    matrix = histories([0, 1], [2], [3, 4, 5], [0, 1], [])
    vectors = rng.normal(size=(5, 3)).astype(np.float32)
    items = rng.normal(size=(6, 3)).astype(np.float32)
    return KnownUsers.fit(matrix, vectors, items), vectors, items


def test_a_train_user_is_found_by_what_was_taken(known):
    users, vectors, items = known
    found = users.find(histories([3, 4, 5], [2]), items)
    np.testing.assert_array_equal(found, vectors[[2, 1]])


def test_users_of_one_history_share_the_mean_of_their_vectors(known):
    users, vectors, items = known
    found = users.find(histories([0, 1]), items)
    np.testing.assert_allclose(found[0], (vectors[0] + vectors[3]) / 2, rtol=1e-6)


def test_order_weight_and_further_items_do_not_hide_a_user(known):
    users, vectors, items = known
    shuffled = sp.csr_matrix((np.array([5.0, 2.0, 1.0]), np.array([5, 3, 4]), [0, 3]), shape=(1, 9))
    grown = np.concatenate([items, np.ones((3, 3), np.float32)])
    np.testing.assert_array_equal(users.find(shuffled, grown)[0], vectors[2])


def test_nobody_is_mistaken_for_another(known):
    users, vectors, items = known
    for other in ([0], [1], [0, 1, 2], [3, 4], [4, 5], []):
        found = users.find(histories(other), items)[0]
        assert not np.isclose(found, vectors).all(axis=1).any()


def test_a_user_without_a_history_is_placed_as_any_such(known):
    users, _, items = known
    found = users.find(histories([], []), items)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], users.fold_in[-1])


def test_strangers_are_placed_by_the_map_that_train_users_obey(rng):
    matrix = sp.csr_matrix((rng.random((200, 30)) < 0.2).astype(np.float32))
    items = rng.normal(size=(30, 4)).astype(np.float32)
    through, constant = rng.normal(size=(4, 4)), rng.normal(size=4)

    def mapped(history):
        return (history @ items) / np.maximum(history.sum(axis=1), 1) @ through + constant

    active = matrix[np.asarray(matrix.getnnz(axis=1) > 0)]
    users = KnownUsers.fit(active, mapped(active).astype(np.float32), items)
    strangers = histories([0, 7, 9], [3], list(range(30)), width=30)
    np.testing.assert_allclose(users.find(strangers, items), mapped(strangers), atol=0.02)


def test_what_all_users_have_in_common_is_not_shrunk(rng):
    matrix = histories([0, 1], [2], [3, 4, 5])
    vectors, items = rng.normal(size=(3, 2)), rng.normal(size=(6, 2)).astype(np.float32)
    plain = KnownUsers.fit(matrix, vectors, items).fold_in
    moved = KnownUsers.fit(matrix, vectors + 100, items).fold_in
    np.testing.assert_allclose(moved[-1] - plain[-1], 100, rtol=1e-5)
    np.testing.assert_allclose(moved[:-1], plain[:-1], atol=1e-3)


def test_arrays_give_the_same_users(known):
    users, _, items = known
    again = KnownUsers(**users.arrays())
    asked = histories([0, 1], [0], [])
    np.testing.assert_array_equal(again.find(asked, items), users.find(asked, items))


def test_the_fold_in_minimises_the_ridge_loss_by_finite_differences(rng):
    matrix = sp.csr_matrix((rng.random((12, 6)) < 0.5).astype(np.float32))
    matrix = matrix[np.asarray(matrix.getnnz(axis=1) > 0)]
    vectors = rng.normal(size=(matrix.shape[0], 2)).astype(np.float32)
    items = rng.normal(size=(6, 2)).astype(np.float32)
    fold_in = KnownUsers.fit(matrix, vectors, items).fold_in.astype(float)
    mean = (matrix @ items) / matrix.getnnz(axis=1)[:, None]
    penalty = 1e-3 * np.square(mean).sum() / 2

    def loss(given):
        error = mean @ given[:-1] + given[-1] - vectors
        return np.square(error).sum() + penalty * np.square(given[:-1]).sum()

    for _ in range(20):
        assert loss(fold_in + 1e-2 * rng.normal(size=fold_in.shape)) > loss(fold_in)


@given(st.lists(st.sets(st.integers(0, 20)), min_size=1, max_size=12))
def test_keys_are_equal_exactly_where_the_sets_of_items_are(sets):
    keys = history_keys(histories(*sets, width=21))
    for one, left in enumerate(sets):
        for other, right in enumerate(sets):
            assert (keys[one] == keys[other]) == (left == right)
