from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmalign.errors import ConfigError, DataError
from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import Feature
from mmalign.models.base import TrainData
from mmalign.models.neural.graphs import (
    item_graphs,
    mix,
    propagate,
    prune_edges,
    taken_together,
)


def test_propagate_is_the_mean_over_rounds_of_the_normalised_graph(rng):
    dense = (rng.random((4, 5)) < 0.5).astype(np.float32)
    dense[0] = 0  # a user without messages
    whole = np.zeros((9, 9))
    whole[:4, 4:], whole[4:, :4] = dense, dense.T
    degree = np.maximum(whole.sum(axis=1), 1e-9)
    normal = np.where(whole > 0, whole / np.sqrt(np.outer(degree, degree)), 0)
    start = rng.normal(size=(9, 3))
    rounds = [start, normal @ start, normal @ normal @ start]
    users, items = propagate(
        torch.tensor(start[:4]), torch.tensor(start[4:]), SparseOperator(sp.csr_matrix(dense)), 2
    )
    expected = np.mean(rounds, axis=0)
    np.testing.assert_allclose(torch.cat([users, items]).numpy(), expected, atol=1e-6)


@pytest.fixture
def data():
    """Items 0-3 are warm, 4 is cold and the twin of 0; item 3 has no image."""
    text = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0]], np.float32)
    image = np.array([[1, 1], [1, 0.9], [1, -1], [0, 0], [1, 1]], np.float32)
    present = np.array([True, True, True, False, True])
    features = {"text": Feature(text, np.ones(5, bool)), "image": Feature(image, present)}
    return TrainData(sp.csr_matrix(np.array([[1, 1, 1, 1, 0]], np.float32)), features)


def test_item_graphs_link_warm_items_and_themselves(data):
    text = item_graphs(data, k=2)["text"].csr.toarray()
    np.testing.assert_allclose(text, np.kron(np.eye(2), np.full((2, 2), 0.5)))


def test_an_item_without_the_modality_is_linked_to_nobody(data):
    image = item_graphs(data, k=3, modalities=("image",))["image"].csr.toarray()
    assert not image[3].any()
    assert not image[:, 3].any()
    assert image[0, 0] > 0


def test_a_graph_is_normalised_by_the_neighbours_on_both_sides(data):
    image = item_graphs(data, k=3)["image"].csr.toarray()
    # cosines: .998 of 0 and 1, 0 of 0 and 2, .05 of 1 and 2; so 2, 3 and 2 neighbours
    expected = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    degree = np.array([2, 3, 2, 1])
    np.testing.assert_allclose(image, expected / np.sqrt(np.outer(degree, degree)), rtol=1e-6)


def test_given_neighbours_stand_in_for_the_search(data):
    given = sp.csr_matrix(np.array([[1, 0, 1, 0, 1]] + [[0, 1, 0, 0, 0]] * 4, np.float32))
    replaced = SimpleNamespace(neighbours={"text": given}, features=data.features, warm=data.warm)
    graphs = item_graphs(replaced, k=2)
    # itself and item 2 of item 0, whose cold neighbour has gone; item 2 lists itself and item 1
    assert graphs["text"].csr.toarray()[0].nonzero()[0].tolist() == [0, 2]
    assert graphs["text"].csr.toarray()[2].nonzero()[0].tolist() == [1, 2]
    without = SimpleNamespace(neighbours={"text": given}, features={}, warm=data.warm)
    assert list(item_graphs(without, k=2)) == ["text"]


def test_an_item_whose_neighbours_are_all_cold_is_still_linked_to_itself():
    matrix = sp.csr_matrix(np.array([[1, 1, 1, 0]], np.float32))
    lists = sp.csr_matrix(
        np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], np.float32)
    )
    graph = item_graphs(TrainData(matrix, {}, {"text": lists}), k=3)["text"].csr.toarray()
    assert (graph > 0).tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 1]]


def test_an_item_that_others_list_is_linked_to_itself_and_an_item_that_nobody_lists_is_not():
    matrix = sp.csr_matrix(np.ones((1, 3), np.float32))
    lists = sp.csr_matrix(([1.0], ([1], [0])), shape=(3, 3), dtype=np.float32)
    graph = item_graphs(TrainData(matrix, {}, {"text": lists}), k=3)["text"].csr.toarray()
    assert (graph > 0).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_items_are_linked_to_themselves_and_to_those_taken_together():
    taken = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], np.float32)
    graph = taken_together(sp.csr_matrix(taken), k=1).csr.toarray()
    # 0 and 1 list each other, 2 lists 1; item 3 shares its user with nobody
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    degree = np.array([2, 2, 2, 1])
    np.testing.assert_allclose(graph, expected / np.sqrt(np.outer(degree, degree)), rtol=1e-6)


def test_no_content_is_refused(data):
    with pytest.raises(DataError, match="no content"):
        item_graphs(TrainData(data.matrix, {}), k=2)


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (("image", "text"), {"image": 0.1, "text": 0.9}),
        (("image", "text", "genres"), {"image": 0.1, "text": 0.45, "genres": 0.45}),
        (("text", "genres"), {"text": 0.5, "genres": 0.5}),
        (("image",), {"image": 1.0}),
    ],
)
def test_mix_weighs_images_and_shares_the_rest(names, weights):
    eye = {n: SparseOperator(sp.eye_array(3).tocsr()[[k, 0, 0]]) for k, n in enumerate(names)}
    expected = sum(weights[name] * eye[name].csr.toarray() for name in names)
    np.testing.assert_allclose(mix(eye, 0.1).csr.toarray(), expected, rtol=1e-6)


def test_pruning_keeps_the_share_and_favours_rare_nodes(rng):
    # user 0 takes all items, users 1.. one each: edges of users 1.. have the higher weight
    dense = np.zeros((11, 10), np.float32)
    dense[0] = 1
    dense[np.arange(1, 11), np.arange(10)] = 2
    matrix = sp.csr_matrix(dense)
    kept = np.zeros_like(dense)
    for _ in range(400):
        pruned = prune_edges(matrix, 0.3, rng)
        assert pruned.nnz == 6
        np.testing.assert_array_equal(pruned.toarray()[pruned.nonzero()], dense[pruned.nonzero()])
        kept += pruned.toarray() > 0
    popular, rare = kept[0].sum(), kept[1:].sum()
    assert rare / popular == pytest.approx(np.sqrt(10), rel=0.25)  # less, as draws use edges up


def test_the_first_edge_is_drawn_by_its_weight(rng):
    matrix = sp.csr_matrix(np.array([[1, 1, 1], [1, 0, 0]], np.float32))
    weights = np.array([[1 / np.sqrt(6), 1 / np.sqrt(3), 1 / np.sqrt(3)], [1 / np.sqrt(2), 0, 0]])
    drawn = sum(prune_edges(matrix, 0.25, rng).toarray() for _ in range(4000)) / 4000
    np.testing.assert_allclose(drawn, weights / weights.sum(), atol=0.03)


def test_a_misspelt_modality_names_the_nearest(data):
    with pytest.raises(ConfigError, match=r"no such modality \(got 'txt'\).*text"):
        item_graphs(data, k=2, modalities=("txt",))
