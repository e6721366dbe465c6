"""EASE against a constrained regression, kernel ridge against its dual form and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from sklearn.linear_model import Ridge as SklearnRidge

from mmalign.errors import ConfigError
from mmalign.graph.sessions import session_gram
from mmalign.models import TrainData
from mmalign.models.closed_form import (
    CollectiveConfig,
    Ease,
    EaseConfig,
    KernelRidge,
    KernelRidgeConfig,
    RidgeConfig,
    ease_weights,
)
from mmalign.models.kernel import KernelConfig

EVERYTHING, WARM, COLD = np.arange(14), np.arange(10), np.arange(10, 13)


def ease_by_regression(x: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """Regress each column on all others, ``min |x_j - X b|^2 + l2 |b|^2`` with ``b_j = 0``."""
    num_items = x.shape[1]
    weights = np.zeros((num_items, num_items))
    for j in range(num_items):
        others = [i for i in range(num_items) if i != j]
        stacked = np.vstack([x[:, others], np.sqrt(l2) * np.eye(len(others))])
        target = np.concatenate([x[:, j], np.zeros(len(others))])
        weights[others, j] = np.linalg.lstsq(stacked, target, rcond=None)[0]
    return weights


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_ease_regresses_each_item_on_the_others(shop: TrainData, l2: float) -> None:
    dense = shop.matrix.toarray().astype(np.float64)
    dense[:, :10] *= np.random.default_rng(0).integers(1, 5, (30, 10))  # ratings count as weights
    expected = ease_by_regression(dense[:, :10], l2)
    np.testing.assert_allclose(ease_weights(sp.csr_matrix(dense[:, :10]), l2), expected, atol=1e-5)
    model = Ease(EaseConfig(l2)).fit(TrainData(sp.csr_matrix(dense), {}))
    history = dense[:4]
    scores = model.score(sp.csr_matrix(history, dtype=np.float32), EVERYTHING)
    np.testing.assert_allclose(scores[:, :10], history[:, :10] @ expected, atol=1e-4)
    assert not scores[:, 10:].any()


def test_an_item_is_described_by_the_weights_that_point_to_it(shop: TrainData) -> None:
    model = Ease(EaseConfig(3.0)).fit(shop)
    assert not np.allclose(model.weights, model.weights.T)
    np.testing.assert_array_equal(model.item_vectors()[WARM], model.weights.T)
    assert not model.item_vectors()[10:].any()


def kernel_ridge_by_hand(
    model: KernelRidge, data: TrainData, history: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Dual form on the centred kernel of the model's own features, no shortcut taken."""
    weights = ease_by_regression(data.matrix.toarray()[:, :10], model.config.l2)
    z = model.content.astype(np.float64)
    k_ww, k_wc = z[WARM] @ z[WARM].T, z[WARM] @ z[COLD].T
    warm_scores = history[:, :10] @ weights
    mean = warm_scores.mean(axis=1, keepdims=True)
    dual = np.linalg.solve(k_ww + model.config.regularization * np.eye(10), (warm_scores - mean).T)
    return (k_wc.T @ dual).T + mean


@pytest.mark.parametrize("landmarks", [4000, 6])
@pytest.mark.parametrize("regularization", [0.1, 5.0])
def test_kernel_ridge_equals_its_dual_form(
    shop: TrainData, landmarks: int, regularization: float
) -> None:
    config = KernelRidgeConfig(
        l2=20.0, regularization=regularization, kernel=KernelConfig(landmarks=landmarks)
    )
    model = KernelRidge(config).fit(shop)
    history = shop.matrix.toarray().astype(np.float64)[:8]
    scores = model.score(shop.matrix[:8], EVERYTHING)
    np.testing.assert_allclose(
        scores[:, COLD], kernel_ridge_by_hand(model, shop, history), atol=1e-4
    )
    expected = history[:, :10] @ ease_by_regression(shop.matrix.toarray()[:, :10], 20.0)
    np.testing.assert_allclose(scores[:, WARM], expected, atol=1e-4)


def test_kernel_ridge_equals_scikit_learn_on_the_kernel_itself(shop: TrainData) -> None:
    """The kernel is written out from unit rows; no feature of ours is in it."""
    units = {}
    for name, x in shop.features.items():
        mean = x.values[:10][x.present[:10]].mean(axis=0)
        rows = x.values - mean
        units[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True) * x.present[:, None]
    gram = np.ones((14, 14))
    for name, weight in {"text": 1.0, "image": 0.25, "genre": 0.5}.items():
        gram *= 1 + weight * (units[name] @ units[name].T)
    towards = gram[:, :10].mean(axis=1)
    centred = gram - towards[:, None] - towards[None] + gram[:10, :10].mean()

    model = KernelRidge(KernelRidgeConfig(l2=20.0, regularization=0.7)).fit(shop)
    scores = model.score(shop.matrix, EVERYTHING).astype(np.float64)
    mean = scores[:, :10].mean(axis=1, keepdims=True)
    peer = SklearnKernelRidge(alpha=0.7, kernel="precomputed")
    peer.fit(centred[:10, :10], (scores[:, :10] - mean).T)
    np.testing.assert_allclose(
        scores[:, COLD], peer.predict(centred[COLD, :10]).T + mean, atol=1e-4
    )


def test_ridge_equals_scikit_learn_on_concatenated_features(shop: TrainData) -> None:
    """The sum kernel is a linear one on unit rows scaled by the square roots of the weights."""
    config = RidgeConfig(l2=20.0, regularization=0.7)
    assert config.kernel.kind == "sum"
    model = KernelRidge(config).fit(shop)
    blocks = []
    for name, weight in {"text": 1.0, "image": 0.25, "genre": 0.5}.items():
        x = shop.features[name]
        rows = x.values - x.values[:10][x.present[:10]].mean(axis=0)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True) * x.present[:, None]
        blocks.append(np.sqrt(weight) * unit)
    design = np.hstack(blocks)
    scores = model.score(shop.matrix, EVERYTHING)
    peer = SklearnRidge(alpha=0.7)  # its intercept is the centring and the mean
    peer.fit(design[:10], scores[:, :10].T)
    np.testing.assert_allclose(scores[:, COLD], peer.predict(design[COLD]).T, atol=1e-4)


def test_collective_ease_reads_content_features_as_further_users(shop: TrainData) -> None:
    config = CollectiveConfig(l2=20.0, content_weight=3.0, appeal=0.0)
    model = KernelRidge(config).fit(shop)
    z = model.content[WARM].astype(np.float64)
    stacked = np.vstack([shop.matrix.toarray()[:, :10], np.sqrt(3.0) * z.T])
    np.testing.assert_allclose(model.weights, ease_by_regression(stacked, 20.0), atol=1e-5)
    plain = KernelRidge(KernelRidgeConfig(l2=20.0)).fit(shop)
    assert np.abs(model.weights - plain.weights).max() > 1e-2
    # cold items are continued from its scores as from those of EASE
    scores = model.score(shop.matrix, EVERYTHING).astype(np.float64)
    mean = scores[:, :10].mean(axis=1, keepdims=True)
    dual = np.linalg.solve(z @ z.T + config.regularization * np.eye(10), (scores[:, :10] - mean).T)
    expected = (model.content[COLD] @ z.T @ dual).T + mean
    np.testing.assert_allclose(scores[:, COLD], expected, atol=1e-4)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_content_weight_must_not_be_negative(value: float) -> None:
    with pytest.raises(ConfigError, match="content_weight"):
        CollectiveConfig(content_weight=value)


def test_an_item_without_content_scores_the_users_mean(shop: TrainData) -> None:
    model = KernelRidge(KernelRidgeConfig(l2=20.0)).fit(shop)
    scores = model.score(shop.matrix, EVERYTHING)
    np.testing.assert_allclose(scores[:, 13], scores[:, :10].mean(axis=1), atol=1e-6)


def test_a_single_warm_item(shop: TrainData) -> None:
    matrix = sp.csr_matrix(([1.0], ([0], [0])), shape=(1, 14), dtype=np.float32)
    scores = KernelRidge(KernelRidgeConfig()).fit(TrainData(matrix, shop.features))
    assert np.isfinite(scores.score(matrix, EVERYTHING)).all()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_penalty_must_be_positive(value: float) -> None:
    with pytest.raises(ConfigError, match="l2 must be positive"):
        EaseConfig(value)
    with pytest.raises(ConfigError, match="l2 must be positive"):
        ease_weights(sp.csr_matrix(np.eye(2)), value)
    with pytest.raises(ConfigError, match="regularization must be positive"):
        KernelRidgeConfig(regularization=value)


def test_appeal_moves_cold_items_by_the_users_that_content_lets_expect(shop: TrainData) -> None:
    plain = KernelRidge(KernelRidgeConfig(appeal=0.0, regularization=0.5)).fit(shop)
    more = KernelRidge(KernelRidgeConfig(appeal=0.4, regularization=0.5)).fit(shop)
    before, after = plain.score(shop.matrix, COLD), more.score(shop.matrix, COLD)
    warm = plain.score(shop.matrix, WARM)
    users = np.log(shop.matrix.toarray()[:, WARM].sum(axis=0))
    peer = SklearnRidge(alpha=0.5).fit(more.content[WARM], (users - users.mean()) / users.std())
    expected = 0.4 * warm.std(axis=1, keepdims=True) * peer.predict(more.content[COLD])
    np.testing.assert_allclose(after - before, expected, atol=2e-5)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_array_equal(more.score(shop.matrix, WARM), warm)


def test_popularity_counts_users_and_not_how_much_they_weigh(shop: TrainData) -> None:
    heavy = shop.matrix.copy()
    heavy.data *= 1 + heavy.indices % 3
    config = KernelRidgeConfig(appeal=0.4)
    one, other = (KernelRidge(config).fit(replace(shop, matrix=m)) for m in (shop.matrix, heavy))
    np.testing.assert_array_equal(other.popularity, one.popularity)


def test_items_that_are_all_as_popular_have_no_appeal(shop: TrainData) -> None:
    matrix = sp.csr_matrix(np.tile(np.eye(5, 14, dtype=np.float32), (3, 1)))
    scores = [
        KernelRidge(KernelRidgeConfig(appeal=a)).fit(TrainData(matrix, shop.features))
        for a in (0.0, 2.0)
    ]
    one, other = (model.score(matrix, EVERYTHING) for model in scores)
    np.testing.assert_array_equal(one, other)


def timed(shop: TrainData) -> TrainData:
    """The shop, with every user's items taken a minute after each other."""
    times = shop.matrix.astype(np.float64)
    for user in range(times.shape[0]):
        row = slice(times.indptr[user], times.indptr[user + 1])
        times.data[row] = 60.0 * np.arange(row.stop - row.start)
    return replace(shop, times=times)


def test_sessions_are_further_users_of_the_regression(shop: TrainData) -> None:
    data = timed(shop)
    config = KernelRidgeConfig(l2=3.0, session_weight=2.0, session_seconds=90.0)
    together = 2.0 * session_gram(data.times[:, data.warm], 90.0)
    further = sp.csr_matrix(np.linalg.cholesky(together + 1e-9 * np.eye(10)).T)
    rows = sp.vstack([data.matrix[:, :10].astype(np.float64), further]).toarray()
    model = KernelRidge(config).fit(data)
    np.testing.assert_allclose(model.weights, ease_by_regression(rows, 3.0), atol=1e-4)


def test_without_times_there_are_no_sessions(shop: TrainData) -> None:
    weights = {
        (timely, weight): KernelRidge(KernelRidgeConfig(session_weight=weight)).fit(data).weights
        for timely, data in (("times", timed(shop)), ("none", shop))
        for weight in (0.0, 1.0)
    }
    np.testing.assert_array_equal(weights["none", 1.0], weights["none", 0.0])
    np.testing.assert_array_equal(weights["times", 0.0], weights["none", 0.0])
    assert not np.allclose(weights["times", 1.0], weights["none", 1.0])


@pytest.mark.parametrize("wrong", [{"session_weight": -1.0}, {"session_seconds": 0.0}])
def test_sessions_have_sensible_numbers(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(KernelRidgeConfig(), **wrong)
