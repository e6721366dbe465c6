"""Every classical baseline finds what was planted, and none finds more than there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from mmalign.config import from_dict
from mmalign.evaluation.metrics import ndcg_at_k
from mmalign.interfaces import Feature, IntArray
from mmalign.models import MODELS, ModelConfig, TrainData, build_model

NUM_USERS, NUM_WARM, NUM_COLD, NUM_TASTES = 90, 45, 9, 3
WARM, COLD = np.arange(NUM_WARM), np.arange(NUM_WARM, NUM_WARM + NUM_COLD)
SETTINGS: dict[str, dict[str, Any]] = {
    "item_knn": {"neighbours": 15},
    "content_knn": {"neighbours": 10},
    "content_mean": {},
    "ease": {"l2": 10.0},
    "ease_knn": {"l2": 10.0},
    "kernel_ridge": {"l2": 10.0},
    "collective": {"l2": 10.0},
    "l3ae": {"l2": 5.0, "distillation": 10.0},
    "slim": {"l1": 0.5, "l2": 5.0},
    "ials": {"embedding_dim": 8, "l2": 2.0},
    "bpr": {"embedding_dim": 8},
}


@pytest.fixture(scope="module")
def planted() -> tuple[TrainData, sp.csr_matrix]:
    """Users of three tastes who took six of ten items of theirs and one in twenty of others.

    Returns what is known and what each would take next, warm and cold.
    """
    rng = np.random.default_rng(5)
    num_items = NUM_WARM + NUM_COLD
    taste, kind = np.arange(NUM_USERS) % NUM_TASTES, np.arange(num_items) % NUM_TASTES
    likes = rng.random((NUM_USERS, num_items)) < np.where(taste[:, None] == kind, 0.6, 0.05)
    shown = rng.random((NUM_USERS, num_items)) < 0.7
    shown[:, NUM_WARM:] = False
    values = np.eye(NUM_TASTES)[kind] + 0.4 * rng.standard_normal((num_items, NUM_TASTES))
    content = Feature(values.astype(np.float32), np.ones(num_items, bool))
    known = sp.csr_matrix((likes & shown).astype(np.float32))
    return TrainData(known, {"text": content}), sp.csr_matrix(likes & ~shown)


def ndcg(scores: np.ndarray[Any, Any], truth: sp.csr_matrix, items: IntArray) -> float:
    wanted = truth[:, items].toarray()
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    hits, counts = np.take_along_axis(wanted, order, axis=1), wanted.sum(axis=1)
    return float(ndcg_at_k(hits[counts > 0], counts[counts > 0], 5).mean())


@pytest.mark.parametrize("name", SETTINGS)
def test_band(planted: tuple[TrainData, sp.csr_matrix], name: str) -> None:
    data, truth = planted
    model = build_model(from_dict(ModelConfig, {"name": name, name: SETTINGS[name]})).fit(data)
    warm = model.score(data.matrix, WARM)
    warm[data.matrix[:, WARM].toarray() > 0] = -np.inf
    assert 0.36 < ndcg(warm, truth, WARM) < 0.47  # random .13, knowing the tastes .40
    if MODELS[name].serves_cold:
        cold = ndcg(model.score(data.matrix, COLD), truth, COLD)
        assert 0.72 < cold < 0.82  # random .41, knowing the tastes .80
