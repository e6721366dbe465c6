from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from mmalign.errors import ConfigError
from mmalign.models.neural.factors import Factors, FactorsConfig


@pytest.fixture
def matrix(rng):
    return sp.csr_matrix((rng.random((12, 9)) < 0.4).astype(np.float32))


def loss(matrix, users, items, config):
    taken = matrix.toarray() > 0
    error = np.square(taken - users @ items.T) * np.where(taken, 1 + config.alpha, 1)
    return error.sum() + config.l2 * (np.square(users).sum() + np.square(items).sum())


def test_users_and_items_are_a_minimum(matrix, rng):
    config = FactorsConfig(alpha=3, l2=0.5, iterations=200)
    factors = Factors.fit(matrix, config, dim=2)
    users, items = factors.users(matrix).astype(float), factors.items.astype(float)
    best = loss(matrix, users, items, config)
    for _ in range(30):
        step = 3e-2 * rng.normal(size=users.shape), 3e-2 * rng.normal(size=items.shape)
        assert loss(matrix, users + step[0], items, config) > best
        assert loss(matrix, users, items + step[1], config) > best - 1e-4


def test_a_user_without_items_is_at_zero_and_others_do_not_matter(matrix):
    factors = Factors.fit(matrix, FactorsConfig(), dim=3)
    alone = np.concatenate([factors.users(row) for row in matrix])
    np.testing.assert_allclose(alone, factors.users(matrix), rtol=1e-6)
    assert not factors.users(sp.csr_matrix((1, 9), dtype=np.float32)).any()


def test_the_seed_decides(matrix):
    first = Factors.fit(matrix, FactorsConfig(iterations=1), dim=3, seed=1).items
    np.testing.assert_array_equal(
        first, Factors.fit(matrix, FactorsConfig(iterations=1), dim=3, seed=1).items
    )
    other = Factors.fit(matrix, FactorsConfig(iterations=1), dim=3, seed=2).items
    assert not np.allclose(first, other)


@pytest.mark.parametrize("name", ["alpha", "l2", "iterations"])
def test_numbers_must_be_positive(name):
    with pytest.raises(ConfigError, match=f"factors.{name} must be positive"):
        FactorsConfig(**{name: 0})
