"""iALS against its own objective, and the fold-in against the library."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from mmalign.errors import ConfigError, MissingDependencyError
from mmalign.interfaces import FloatArray
from mmalign.models import TrainData
from mmalign.models.ials import IALS, IALSConfig, fold_in

EVERYTHING, WARM = np.arange(14), np.ones(10, bool)
CONFIG = IALSConfig(embedding_dim=4, l2=0.5, alpha=3.0, iterations=200, regularization=0.7)


def solve(targets: FloatArray, factors: FloatArray, l2: float, alpha: float) -> FloatArray:
    """Weighted ridge of each row on the factors, by scikit-learn."""
    solved = [
        Ridge(alpha=l2, fit_intercept=False)
        .fit(factors, row > 0, sample_weight=1 + alpha * row)
        .coef_
        for row in targets
    ]
    return np.array(solved, np.float32)


def test_fold_in_is_a_weighted_ridge(shop: TrainData) -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((10, 4)).astype(np.float32)
    matrix = shop.matrix[:, :10].copy()
    matrix.data = rng.integers(1, 4, matrix.nnz).astype(np.float32)  # ratings count
    expected = solve(matrix.toarray(), factors, 0.5, 3.0)
    np.testing.assert_allclose(fold_in(matrix, factors, WARM, 0.5, 3.0), expected, atol=1e-4)


def test_fold_in_equals_the_library(shop: TrainData) -> None:
    als = pytest.importorskip("implicit.cpu.als")
    peer = als.AlternatingLeastSquares(factors=4, regularization=0.5, random_state=0)
    confidence = shop.matrix[:, :10] * 4
    peer.fit(confidence, show_progress=False)
    expected = peer.recalculate_user(np.arange(30), confidence)
    found = fold_in(shop.matrix[:, :10], peer.item_factors, WARM, 0.5, 3.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_absences_are_counted_over_warm_items_alone() -> None:
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((6, 3)).astype(np.float32)
    history = sp.csr_matrix(np.array([[1, 0, 1, 0, 0, 0]], np.float32))
    warm = np.array([1, 1, 1, 1, 0, 0], bool)
    alone = fold_in(history[:, :4], factors[:4], np.ones(4, bool), 1.0, 2.0)
    np.testing.assert_array_equal(fold_in(history, factors, warm, 1.0, 2.0), alone)


def test_factors_stand_at_a_minimum(shop: TrainData) -> None:
    """With users at their best for the items, the items are at their best for the users."""
    model = IALS(CONFIG).fit(shop)
    learned = model.factors[:10]
    matrix = shop.matrix[:, :10]
    users = fold_in(matrix, learned, WARM, 0.5, 3.0)
    assert np.abs(learned).max() > 0.1
    again = solve(matrix.T.toarray(), users, 0.5, 3.0)
    np.testing.assert_allclose(again, learned, atol=0.02)
    scores = model.score(shop.matrix, EVERYTHING)
    np.testing.assert_allclose(scores[:, :10], users @ learned.T, atol=1e-5)


def test_cold_factors_are_regressed_on_content(shop: TrainData) -> None:
    model = IALS(CONFIG).fit(shop)
    peer = Ridge(alpha=0.7).fit(model.content[:10], model.factors[:10])
    np.testing.assert_allclose(model.factors[10:], peer.predict(model.content[10:]), atol=1e-5)


def test_the_seed_decides(shop: TrainData) -> None:
    one, other = (
        IALS(IALSConfig(embedding_dim=4, iterations=2, seed=seed)).fit(shop) for seed in (0, 1)
    )
    assert (one.factors != other.factors).any()


def test_what_to_install(shop: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == "implicit"] + ["implicit"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign\[baselines\]'"):
        IALS(CONFIG).fit(shop)


def test_impossible_settings() -> None:
    for name in ("embedding_dim", "l2", "alpha", "iterations", "regularization"):
        with pytest.raises(ConfigError, match=f"{name} must be positive"):
            IALSConfig(**{name: 0})
