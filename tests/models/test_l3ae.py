"""L3AE's two closed forms against regressions solved column by column."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from mmalign.errors import ConfigError
from mmalign.models import TrainData
from mmalign.models.closed_form import ease_weights
from mmalign.models.l3ae import L3AE, L3AEConfig, distilled_weights

EVERYTHING, WARM, COLD = np.arange(14), np.arange(10), np.arange(10, 13)


def content_by_regression(z: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Regress each item's features on those of all others."""
    weights = np.zeros((len(z), len(z)))
    for j in range(len(z)):
        others = [i for i in range(len(z)) if i != j]
        peer = Ridge(alpha=penalty, fit_intercept=False).fit(z[others].T, z[j])
        weights[others, j] = peer.coef_
    return weights


def distilled_by_regression(
    x: NDArray[np.float64], teacher: NDArray[np.float64], l2: float, distillation: float
) -> NDArray[np.float64]:
    """Stack data, penalty and teacher as rows of one least-squares problem per item."""
    count = x.shape[1]
    weights = np.zeros((count, count))
    for j in range(count):
        others = [i for i in range(count) if i != j]
        eye = np.eye(count)[:, others]
        stacked = np.vstack([x[:, others], np.sqrt(l2) * eye, np.sqrt(distillation) * eye])
        target = np.concatenate([x[:, j], np.zeros(count), np.sqrt(distillation) * teacher[:, j]])
        weights[others, j] = np.linalg.lstsq(stacked, target, rcond=None)[0]
    return weights


@pytest.mark.parametrize(("l2", "distillation"), [(1.0, 5.0), (20.0, 0.5)])
def test_both_steps(shop: TrainData, l2: float, distillation: float) -> None:
    model = L3AE(L3AEConfig(l2=l2, distillation=distillation, content_l2=2.0)).fit(shop)
    z = model.content.astype(np.float64)
    x = shop.matrix.toarray().astype(np.float64)
    teacher = content_by_regression(z[WARM], 2.0)
    expected = distilled_by_regression(x[:, WARM], teacher, l2, distillation)
    scores = model.score(shop.matrix, EVERYTHING)
    np.testing.assert_allclose(scores[:, WARM], x[:, WARM] @ expected, atol=1e-4)
    for item in COLD:  # regressed on warm items, then drawn to zero by l2 against distillation
        peer = Ridge(alpha=2.0, fit_intercept=False).fit(z[WARM].T, z[item])
        weights = distillation / (l2 + distillation) * peer.coef_
        np.testing.assert_allclose(scores[:, item], x[:, WARM] @ weights, atol=1e-4)


def test_a_negative_l2_still_stands_at_the_minimum() -> None:
    """The gradient vanishes everywhere off the diagonal."""
    rng = np.random.default_rng(0)
    x, teacher = rng.random((20, 6)), rng.random((6, 6)).astype(np.float32)
    np.fill_diagonal(teacher, 0)
    gram = x.T @ x
    b = distilled_weights(gram, teacher, l2=-3.0, distillation=8.0).astype(np.float64)
    gradient = gram @ b - gram - 3.0 * b + 8.0 * (b - teacher)
    assert np.abs(gradient[~np.eye(6, dtype=bool)]).max() < 1e-4
    assert not np.diag(b).any()


def test_without_a_teacher_it_is_ease(shop: TrainData) -> None:
    matrix = shop.matrix[:, :10]
    found = distilled_weights((matrix.T @ matrix).toarray(), np.zeros((10, 10), np.float32), 3, 4)
    np.testing.assert_allclose(found, ease_weights(matrix, 7.0), atol=1e-6)


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match=r"l2 \+ distillation must be positive"):
        L3AEConfig(l2=-150.0, distillation=150.0)
    with pytest.raises(ConfigError, match=r"l2 \+ distillation must be positive"):
        L3AEConfig(l2=float("nan"))
    with pytest.raises(ConfigError, match="distillation must be positive"):
        L3AEConfig(distillation=0)
    with pytest.raises(ConfigError, match="content_l2 must be positive"):
        L3AEConfig(content_l2=0)
