"""SLIM against scikit-learn's elastic net."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import ElasticNet

from mmalign.errors import ConfigError
from mmalign.models import TrainData
from mmalign.models.slim import BLOCK, SLIM, SLIMConfig, slim_weights


@pytest.mark.parametrize(("l1", "l2"), [(0.01, 1.0), (1.5, 2.0), (1e6, 2.0)])
def test_each_item_is_an_elastic_net_of_the_others(l1: float, l2: float) -> None:
    """More items than a block holds, so that blocks must agree with each other."""
    rng = np.random.default_rng(0)
    num_users, num_items = 150, BLOCK + 15
    x = (rng.random((num_users, num_items)) < 0.2).astype(float)
    found = slim_weights(x.T @ x, l1, l2, iterations=500, tolerance=1e-9)
    penalty = (l1 + l2) / num_users  # scikit-learn divides the squared error by the rows
    peer = ElasticNet(
        penalty, l1_ratio=l1 / (l1 + l2), fit_intercept=False, positive=True, tol=1e-9,
        max_iter=10_000,
    )  # fmt: skip
    for item in (0, 7, BLOCK - 1, BLOCK, num_items - 1):
        others = np.delete(np.arange(num_items), item)
        expected = peer.fit(x[:, others], x[:, item]).coef_
        np.testing.assert_allclose(found[others, item], expected, atol=1e-5)
        assert found[item, item] == 0
    assert (found >= 0).all()
    assert (found == 0).all() == (l1 == 1e6)


def test_scores_are_the_history_times_the_weights(shop: TrainData) -> None:
    model = SLIM(SLIMConfig(l1=0.3, l2=2.0)).fit(shop)
    gram = (shop.matrix[:, :10].T @ shop.matrix[:, :10]).toarray().astype(float)
    expected = slim_weights(gram, 0.3, 2.0, iterations=100, tolerance=1e-4)
    scores = model.score(shop.matrix, np.arange(14))
    np.testing.assert_allclose(scores[:, :10], shop.matrix.toarray()[:, :10] @ expected, atol=1e-5)
    assert not scores[:, 10:].any()
    assert 0 < model.weights.nnz < 90


def test_warm_items_need_not_come_first(shop: TrainData) -> None:
    order = np.r_[10:14, 0:10]
    moved = SLIM(SLIMConfig(l1=0.3, l2=2.0)).fit(
        TrainData(sp.csr_matrix(shop.matrix[:, order]), {})
    )
    plain = SLIM(SLIMConfig(l1=0.3, l2=2.0)).fit(shop)
    np.testing.assert_allclose(
        moved.weights.toarray(), plain.weights.toarray()[np.ix_(order, order)], atol=1e-4
    )


def test_impossible_settings() -> None:
    for name, value in {"l1": -1.0, "l2": 0.0, "iterations": 0, "tolerance": 0.0}.items():
        with pytest.raises(ConfigError, match=name):
            SLIMConfig(**{name: value})  # type: ignore[arg-type]
