"""The hybrid of EASE and content neighbours, term by term."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from mmalign.errors import ConfigError
from mmalign.models import TrainData
from mmalign.models.closed_form import KernelRidge, KernelRidgeConfig, ease_weights
from mmalign.models.ease_knn import EaseKNN, EaseKNNConfig

EVERYTHING, WARM, COLD = np.arange(14), np.arange(10), np.arange(10, 13)
ONLY_EASE = {"content": 0.0, "ease_content": 0.0, "content_ease": 0.0, "content_content": 0.0}


def graph_by_loops(z: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Symmetric: an edge where either is among the other's nearest; degrees are summed weights."""
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    graph = np.zeros((len(z), len(z)))
    for item in range(len(z)):
        cosine = unit @ unit[item]
        cosine[item] = -np.inf
        for other in np.argsort(-cosine)[:neighbours]:
            if cosine[other] > 0:
                graph[item, other] = graph[other, item] = cosine[other]
    degree = graph.sum(axis=1)
    for item, other in np.argwhere(graph):
        graph[item, other] /= np.sqrt(degree[item] * degree[other])
    return graph


def test_the_formula(shop: TrainData) -> None:
    weights = {"content": 0.7, "ease_content": 0.5, "content_ease": 0.3, "content_content": 0.2}
    config = EaseKNNConfig(l2=5.0, neighbours=3, **weights)
    model = EaseKNN(config).fit(shop)
    z = model.content[WARM].astype(np.float64)
    B = ease_weights(shop.matrix[:, :10], 5.0).astype(np.float64)
    S = graph_by_loops(z, 3)
    mixed = B + 0.7 * S + 0.5 * B @ S + 0.3 * S @ B + 0.2 * S @ S
    history = shop.matrix.toarray()[:, :10]
    scores = model.score(shop.matrix, EVERYTHING).astype(np.float64)
    np.testing.assert_allclose(scores[:, WARM], history @ mixed, atol=1e-5)
    # cold items: the scores of warm ones regressed on content, with an intercept
    peer = Ridge(alpha=config.regularization).fit(z, scores[:, WARM].T)
    np.testing.assert_allclose(scores[:, COLD], peer.predict(model.content[COLD]).T, atol=1e-4)


def test_without_a_graph_it_is_kernel_ridge(shop: TrainData) -> None:
    plain = KernelRidge(KernelRidgeConfig(l2=5.0)).fit(shop)
    model = EaseKNN(EaseKNNConfig(l2=5.0, **ONLY_EASE)).fit(shop)
    np.testing.assert_allclose(
        model.score(shop.matrix, EVERYTHING), plain.score(shop.matrix, EVERYTHING), atol=1e-5
    )


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match="neighbours must be positive"):
        EaseKNNConfig(neighbours=0)
    with pytest.raises(ConfigError, match="content_ease must be finite"):
        EaseKNNConfig(content_ease=float("nan"))
    with pytest.raises(ConfigError, match="l2 must be positive"):
        EaseKNNConfig(l2=0)
