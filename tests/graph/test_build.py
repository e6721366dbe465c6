from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn import SAGEConv

from mmalign.errors import DataError
from mmalign.graph.build import adjacency, build_graph
from mmalign.graph.knn import content_knn
from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import Feature

MATRIX = sp.csr_matrix(np.array([[1, 0, 2, 0], [0, 0, 3, 0], [0, 0, 0, 0]], dtype=np.float32))
GENRE = sp.csr_matrix(np.array([[1, 1], [0, 1], [0, 0], [1, 0]], dtype=np.float32))
TEXT = sp.csr_matrix(
    np.array([[0, 0.5, 0, 0], [0.5, 0, 0, 0.2], [0, 0, 0, 0], [0, 0.2, 0.1, 0]], dtype=np.float32)
)


@pytest.fixture
def graph() -> HeteroData:
    return build_graph(MATRIX, {"text": TEXT}, {"genre": GENRE})


def test_the_graph_is_valid_and_has_the_documented_types(graph: HeteroData) -> None:
    assert graph.validate()
    assert {name: graph[name].num_nodes for name in graph.node_types} == {
        "user": 3,
        "item": 4,
        "genre": 2,
    }
    assert graph.edge_types == [
        ("user", "interacts", "item"),
        ("item", "rev_interacts", "user"),
        ("item", "similar_text", "item"),
        ("item", "has_genre", "genre"),
        ("genre", "rev_has_genre", "item"),
    ]


def test_edges_and_weights_by_hand(graph: HeteroData) -> None:
    interacts = graph["user", "interacts", "item"]
    assert interacts.edge_index.tolist() == [[0, 0, 1], [0, 2, 2]]
    assert interacts.edge_weight.tolist() == [1.0, 2.0, 3.0]
    reverse = graph["item", "rev_interacts", "user"]
    assert reverse.edge_index.tolist() == [[0, 2, 2], [0, 0, 1]]
    assert reverse.edge_weight.tolist() == [1.0, 2.0, 3.0]
    similar = graph["item", "similar_text", "item"]
    # Item 3 lists item 2 as a neighbour and not the other way round: 2 is heard by 3.
    assert [2, 3] in similar.edge_index.T.tolist()
    assert [3, 2] not in similar.edge_index.T.tolist()
    assert similar.edge_index.dtype == torch.int64
    assert similar.edge_weight.dtype == torch.float32


def test_adjacency_reads_back_what_was_built(graph: HeteroData) -> None:
    expected = {
        ("user", "interacts", "item"): MATRIX.T,
        ("item", "rev_interacts", "user"): MATRIX,
        ("item", "similar_text", "item"): TEXT,
        ("item", "has_genre", "genre"): GENRE.T,
        ("genre", "rev_has_genre", "item"): GENRE,
    }
    for edge_type, matrix in expected.items():
        np.testing.assert_array_equal(adjacency(graph, edge_type).toarray(), matrix.toarray())


def test_pyg_sends_messages_the_way_the_operators_do(graph: HeteroData) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    convolution = SAGEConv(5, 5, aggr="sum", root_weight=False, bias=False)
    torch.nn.init.eye_(convolution.lin_l.weight)
    edge_type = ("item", "similar_text", "item")
    pattern = adjacency(graph, edge_type).astype(bool)
    with torch.no_grad():
        theirs = convolution(x, graph[edge_type].edge_index)
    torch.testing.assert_close(SparseOperator(pattern) @ x, theirs)


def test_stored_zeros_and_duplicates_become_no_edges_and_one_edge() -> None:
    stored = sp.csr_matrix(([0.0, 1.0, 1.5], [0, 1, 1], [0, 3]), shape=(1, 2))
    graph = build_graph(stored, {}, {})
    assert graph["user", "interacts", "item"].edge_index.tolist() == [[0], [1]]
    assert graph["user", "interacts", "item"].edge_weight.tolist() == [2.5]
    assert stored.nnz == 3  # the input is left alone


def test_neighbours_of_content_fit_in() -> None:
    values = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    neighbours = content_knn(Feature(values, np.ones(4, dtype=bool)), 2)
    graph = build_graph(MATRIX, {"image": neighbours}, {})
    assert graph["item", "similar_image", "item"].num_edges == neighbours.nnz


def test_an_empty_log_makes_a_graph_without_edges() -> None:
    graph = build_graph(sp.csr_matrix((0, 4)), {}, {})
    assert graph["user"].num_nodes == 0
    assert graph["user", "interacts", "item"].num_edges == 0


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("where", ["matrix", "knn", "attributes"])
def test_weights_that_are_negative_or_not_finite_are_refused(weight: float, where: str) -> None:
    parts = {"matrix": MATRIX.copy(), "knn": TEXT.copy(), "attributes": GENRE.copy()}
    parts[where].data[0] = weight
    with pytest.raises(DataError, match=rf"{where}.* negative or not finite"):
        build_graph(parts["matrix"], {"text": parts["knn"]}, {"genre": parts["attributes"]})


def test_shapes_and_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"knn\['text'\] has the wrong shape"):
        build_graph(MATRIX, {"text": TEXT[:3, :3]}, {})
    with pytest.raises(DataError, match=r"attributes\['genre'\] has the wrong shape"):
        build_graph(MATRIX, {}, {"genre": GENRE[:3]})
    with pytest.raises(DataError, match="name of a node type"):
        build_graph(MATRIX, {}, {"user": GENRE})


def test_an_unknown_edge_type_names_the_nearest(graph: HeteroData) -> None:
    with pytest.raises(DataError, match="similar_text"):
        adjacency(graph, ("item", "similar_txt", "item"))
