"""EASE with an item graph, and its fusion with a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmalign.errors import ConfigError, TrainingError
from mmalign.models import TrainData
from mmalign.models.calibration import standardise
from mmalign.models.closed_form import Ease, EaseConfig
from mmalign.models.fused import Fused, FusedConfig
from mmalign.models.graph_ease import GraphEase, GraphEaseConfig
from mmalign.models.neural.base import Triplets
from mmalign.models.neural.graphs import item_graphs, mix, taken_together

PLAIN = {"user_power": 0.0, "graph_weight": 0.0, "smoothing": 0.0, "low_rank": 0.0}


@pytest.fixture
def taken() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    matrix = (rng.random((40, 9)) < 0.35).astype(np.float32)
    matrix[:, 8] = 0
    return sp.csr_matrix(matrix)


@pytest.fixture
def lists() -> sp.csr_matrix:
    """Items 0 and 1 list each other, nobody else lists anybody."""
    return sp.csr_matrix(([1.0, 1.0], ([0, 1], [1, 0])), shape=(9, 9), dtype=np.float32)


def test_without_all_that_is_added_it_is_ease(taken: sp.csr_matrix, lists: sp.csr_matrix) -> None:
    data = TrainData(taken, {}, {"text": lists})
    found = GraphEase(GraphEaseConfig(l2=3.0, **PLAIN)).fit(data)
    expected = Ease(EaseConfig(l2=3.0)).fit(data)
    np.testing.assert_allclose(found.weights, expected.weights, atol=2e-5)


def test_weights_by_hand(taken: sp.csr_matrix, lists: sp.csr_matrix) -> None:
    settings = {"user_power": 0.5, "graph_weight": 4.0, "smoothing": 0.3, "low_rank": 0.0}
    found = GraphEase(GraphEaseConfig(l2=3.0, **settings)).fit(TrainData(taken, {}, {"t": lists}))
    x = taken.toarray()[:, :8].astype(np.float64)
    weight = np.maximum(x.sum(axis=1), 1) ** -0.5
    weight *= x.sum() / (weight @ x.sum(axis=1))
    link = np.zeros((8, 8))
    link[0, 1] = link[1, 0] = 1
    gram = x.T @ (weight[:, None] * x) + 4 * (link + 2 * link @ link) + 3 * np.eye(8)
    inverse = np.linalg.inv(gram)
    ease = -inverse / np.diag(inverse)
    np.fill_diagonal(ease, 0)
    np.testing.assert_allclose(found.weights, ease + 0.3 * link @ ease, rtol=1e-3, atol=1e-4)


def test_the_filter_projects_on_the_leading_direction(taken: sp.csr_matrix) -> None:
    data = TrainData(taken, {})
    settings = {"rank": 1, **PLAIN, "low_rank": 0.5}
    plain = GraphEase(GraphEaseConfig(**PLAIN)).fit(data).weights
    added = GraphEase(GraphEaseConfig(**settings)).fit(data).weights - plain
    x = taken.toarray()[:, :8].astype(np.float64)
    items = np.sqrt(x.sum(axis=0))
    normal = x / np.sqrt(np.maximum(x.sum(axis=1), 1))[:, None] / items
    v = np.linalg.svd(normal)[2][0]
    expected = np.outer(v / items, v * items)
    expected *= 0.5 * np.abs(plain).mean() / np.abs(expected).mean()
    np.testing.assert_allclose(added, expected, rtol=1e-3, atol=1e-5)


def test_the_filter_reads_interactions_spread_over_the_links(
    taken: sp.csr_matrix, lists: sp.csr_matrix
) -> None:
    data = TrainData(taken, {}, {"text": lists})
    plain = GraphEase(GraphEaseConfig(**PLAIN)).fit(data).weights
    settings = {"rank": 1, **PLAIN, "low_rank": 0.5}
    added = GraphEase(GraphEaseConfig(**settings)).fit(data).weights - plain
    x = taken.toarray()[:, :8].astype(np.float64)
    items = np.sqrt(x.sum(axis=0))
    normal = x / np.sqrt(np.maximum(x.sum(axis=1), 1))[:, None] / items
    link = np.zeros((8, 8))
    link[0, 1] = link[1, 0] = 1
    v = np.linalg.svd(normal + normal @ link / 2)[2][0]
    expected = np.outer(v / items, v * items)
    expected *= 0.5 * np.abs(plain).mean() / np.abs(expected).mean()
    np.testing.assert_allclose(added, expected, rtol=1e-3, atol=1e-5)


def test_links_make_listed_items_alike(taken: sp.csr_matrix, lists: sp.csr_matrix) -> None:
    alone = GraphEase(GraphEaseConfig(l2=3.0)).fit(TrainData(taken, {}))
    linked = GraphEase(GraphEaseConfig(l2=3.0)).fit(TrainData(taken, {}, {"text": lists}))
    assert linked.weights[0, 1] > alone.weights[0, 1]


@pytest.mark.parametrize("over", [{"l2": 0.0}, {"user_power": 1.5}, {"smoothing": -0.1}])
def test_settings_out_of_range(over: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(over))):
        GraphEaseConfig(**over)  # type: ignore[arg-type]


def test_fused_scores_are_the_weighted_sum(taken: sp.csr_matrix, lists: sp.csr_matrix) -> None:
    torch.manual_seed(0)
    config = FusedConfig(embedding_dim=4, network_weight=0.7)
    model = Fused(config).fit(TrainData(taken, {}, {"text": lists}))
    network = model.user_vectors(taken) @ model.vectors.T
    closed = model.closed_form.score(taken, np.arange(9))
    expected = 0.7 * standardise(network, model.warm) + standardise(closed, model.warm)
    expected[:, 8] = 0
    found = model.score(taken, np.arange(9))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_fused_links_items_by_content_and_by_who_took_them(
    taken: sp.csr_matrix, lists: sp.csr_matrix
) -> None:
    data = TrainData(taken, {}, {"text": lists})
    by_share = {
        share: Fused(FusedConfig(embedding_dim=4, taken_together=share)).fit(data).items_graph.csr
        for share in (0.0, 0.25, 1.0)
    }
    warm = data.warm
    content = mix(item_graphs(data, 10), 0.1).csr
    np.testing.assert_allclose(by_share[0.0].toarray(), content.toarray(), atol=1e-6)
    together = taken_together(taken[:, warm], 10).csr
    np.testing.assert_allclose(by_share[1.0].toarray(), together.toarray(), atol=1e-6)
    assert abs(content - together).max() > 0.1
    expected = 0.75 * by_share[0.0] + 0.25 * by_share[1.0]
    np.testing.assert_allclose(by_share[0.25].toarray(), expected.toarray(), atol=1e-6)


def test_networks_count_alike(taken: sp.csr_matrix, lists: sp.csr_matrix) -> None:
    torch.manual_seed(0)
    model = Fused(FusedConfig(embedding_dim=4)).fit(TrainData(taken, {}, {"text": lists}))
    users, items = (side.detach().numpy() for side in model.embed())
    for part in np.split(np.arange(12), 3):
        scores = users[:, part] @ items[:, part].T
        np.testing.assert_allclose(scores.std(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(items[:, 8:], axis=1), 1, rtol=1e-5)  # cosines


def test_a_user_of_whom_a_network_knows_nothing_has_no_vector_in_it(taken: sp.csr_matrix) -> None:
    alone = taken.copy()
    alone.data[: alone.indptr[1]] = 0
    alone.eliminate_zeros()
    model = Fused(FusedConfig(embedding_dim=4)).fit(TrainData(alone, {}))
    with torch.no_grad():
        model.members()[0].ids.users[0] = 0
    users = model.embed()[0].detach()
    assert not users[0, :4].any()
    assert users[0, 4:].abs().min() > 0


def test_each_network_leaves_out_interactions_of_its_own(taken: sp.csr_matrix) -> None:
    model = Fused(FusedConfig(embedding_dim=4)).fit(TrainData(taken, {}))
    model.begin_epoch(np.random.default_rng(0))
    first, second, third = (graph.csr.toarray() for graph in model.graphs)
    assert (first != second).any()
    assert (second != third).any()


def test_the_softmax_shares_the_first_negatives_only(
    taken: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Fused(FusedConfig(embedding_dim=4, losses=("softmax",))).fit(TrainData(taken, {}))
    model.begin_epoch(np.random.default_rng(0))
    users, positives = torch.tensor([0, 1]), torch.tensor([2, 3])
    few = Triplets(users, positives, torch.tensor([[6], [5]]))
    many = Triplets(users, positives, torch.tensor([[6, 5], [4, 7]]))
    expected = model.loss(few)["softmax"]
    assert model.loss(many)["softmax"] > expected
    monkeypatch.setattr("mmalign.models.fused.SHARED", 2)
    torch.testing.assert_close(model.loss(many)["softmax"], expected)


def test_the_softmax_sets_each_positive_against_the_same_items(taken: sp.csr_matrix) -> None:
    torch.manual_seed(0)
    config = FusedConfig(embedding_dim=4, losses=("softmax",), temperature=0.5, l2=0.0)
    model = Fused(config).fit(TrainData(taken, {}))
    model.begin_epoch(np.random.default_rng(0))
    batch = Triplets(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([[2], [5]]))
    users, items = model.embed_by(model.members()[0], model.graphs[0])
    expected = []
    for user, positive, others in ((0, 2, [5]), (1, 3, [2, 5])):  # 2 is the first's own positive
        cosines = [
            torch.cosine_similarity(users[user], items[item], dim=0) / 0.5
            for item in (positive, *others)
        ]
        expected.append(torch.logsumexp(torch.stack(cosines), 0) - cosines[0])
    found = model.loss(batch)
    assert set(found) == {"softmax"}
    torch.testing.assert_close(found["softmax"], torch.stack(expected).mean())


@pytest.mark.parametrize("losses", [(), ("hinge",), "bpr"])
def test_losses_are_known(losses: Any) -> None:
    with pytest.raises(ConfigError, match="losses must name"):
        FusedConfig(losses=losses)


def test_fused_does_without_content(taken: sp.csr_matrix) -> None:
    model = Fused(FusedConfig(embedding_dim=4)).fit(TrainData(taken, {}))
    together = taken_together(taken[:, model.warm], model.config.neighbours).csr
    assert (model.items_graph.csr != together).nnz == 0
    assert np.isfinite(model.score(taken, np.arange(9))).all()


def test_a_graph_that_outweighs_the_penalty_is_one_line(
    taken: sp.csr_matrix, lists: sp.csr_matrix
) -> None:
    config = GraphEaseConfig(l2=0.1, graph_weight=2000.0, user_power=0.0)
    ends, others = np.indices((4, 4)).reshape(2, -1)
    sides = sp.csr_matrix((np.ones(16), (ends, 4 + others)), shape=(9, 9), dtype=np.float32)
    with pytest.raises(TrainingError, match=r"not positive definite.*l2=0\.1.*graph_weight"):
        GraphEase(config).fit(TrainData(taken, {}, {"text": sides, "image": lists}))
