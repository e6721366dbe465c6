"""The typed graph of users, items and attributes, as a PyG ``HeteroData``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

from mmalign.errors import DataError, nearest

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

__all__ = ["EdgeType", "adjacency", "build_graph"]

EdgeType = tuple[str, str, str]
"""Source node type, relation, target node type."""


def build_graph(
    matrix: sp.csr_matrix,
    knn: Mapping[str, sp.csr_matrix],
    attributes: Mapping[str, sp.csr_matrix],
) -> HeteroData:
    """Join interactions, content neighbours and attributes into one typed graph.

    Edges run the way messages run in PyG, from source to target, and each edge type carries an
    ``edge_weight``. Relations between two node types come with their reverse.

    ==================================  ==================================================
    edge type                           one edge per
    ==================================  ==================================================
    ``user, interacts, item``           entry of ``matrix``
    ``item, rev_interacts, user``       the same, reversed
    ``item, similar_<modality>, item``  entry of ``knn[modality]``; row i of that matrix
                                        lists whom item i hears, so the edge ends in i
    ``item, has_<name>, <name>``        entry of ``attributes[name]``
    ``<name>, rev_has_<name>, item``    the same, reversed
    ==================================  ==================================================

    Args:
        matrix: Train interactions and their weights.
        knn: Modality to neighbour graph, as ``content_knn`` makes it.
        attributes: Attribute to item-value incidence (categories and multi-valued attributes).

    Shapes:
        matrix: ``[U, I]``; knn: ``[I, I]``; attributes: ``[I, A]``, all sparse.

    Raises:
        DataError: A shape that does not fit, a weight that is negative, NaN or infinite, or an
            attribute that is called ``user`` or ``item``.

    Example:
        >>> import scipy.sparse as sp
        >>> matrix = sp.csr_matrix([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
        >>> genre = sp.csr_matrix([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> graph = build_graph(matrix, {}, {"genre": genre})
        >>> graph["user", "interacts", "item"].edge_weight
        tensor([1., 2., 1.])
        >>> graph["genre"].num_nodes
        2
    """
    # Imported here because loading PyG takes seconds, which an artefact must not pay for.
    from torch_geometric.data import HeteroData

    num_users, num_items = matrix.shape
    _check("matrix", matrix, (num_users, num_items))
    for name, neighbours in knn.items():
        _check(f"knn[{name!r}]", neighbours, (num_items, num_items))
    for name, incidence in attributes.items():
        if name in ("user", "item"):
            raise DataError("an attribute has the name of a node type", got=name, fix="rename it")
        _check(f"attributes[{name!r}]", incidence, (num_items, incidence.shape[1]))

    graph = HeteroData()
    graph["user"].num_nodes = num_users
    graph["item"].num_nodes = num_items
    _add_both_ways(graph, ("user", "interacts", "item"), matrix)
    for name, neighbours in knn.items():
        _add(graph, ("item", f"similar_{name}", "item"), neighbours.T)
    for name, incidence in attributes.items():
        graph[name].num_nodes = incidence.shape[1]
        _add_both_ways(graph, ("item", f"has_{name}", name), incidence)
    return graph


def adjacency(graph: HeteroData, edge_type: EdgeType) -> sp.csr_matrix:
    """Read one edge type back as the matrix that a ``SparseOperator`` takes.

    Shapes:
        returns: ``[T, S]`` sparse float32, a row per target node and a column per source node.

    Raises:
        DataError: The graph has no such edge type.

    Example:
        >>> import scipy.sparse as sp
        >>> graph = build_graph(sp.csr_matrix([[1.0, 0.0, 2.0]]), {}, {})
        >>> adjacency(graph, ("user", "interacts", "item")).toarray()
        array([[1.],
               [0.],
               [2.]], dtype=float32)
    """
    if edge_type not in graph.edge_types:
        known = map(str, graph.edge_types)
        raise DataError(f"no edge type {edge_type}", fix=nearest(str(edge_type), known))
    source, target = graph[edge_type].edge_index.cpu().numpy()
    shape = graph[edge_type[2]].num_nodes, graph[edge_type[0]].num_nodes
    weight = graph[edge_type].edge_weight.cpu().numpy()
    return sp.csr_matrix((weight, (target, source)), shape=shape, dtype=np.float32)


def _add_both_ways(graph: HeteroData, edge_type: EdgeType, weights: sp.csr_matrix) -> None:
    source, relation, target = edge_type
    _add(graph, edge_type, weights)
    _add(graph, (target, f"rev_{relation}", source), weights.T)


def _add(graph: HeteroData, edge_type: EdgeType, weights: sp.spmatrix) -> None:
    """Add the entries of a ``[S, T]`` matrix as edges, sorted by source, then target."""
    entries = sp.csr_matrix(weights, dtype=np.float32, copy=True)
    entries.sum_duplicates()
    entries.eliminate_zeros()
    entries = entries.tocoo()
    edges = np.stack([entries.row, entries.col]).astype(np.int64)
    graph[edge_type].edge_index = torch.from_numpy(edges)
    graph[edge_type].edge_weight = torch.from_numpy(entries.data)


def _check(name: str, weights: sp.csr_matrix, shape: tuple[int, int]) -> None:
    if weights.shape != shape:
        raise DataError(
            f"{name} has the wrong shape",
            got=weights.shape,
            fix=f"it must be {shape} here",
        )
    broken = ~(np.isfinite(weights.data) & (weights.data >= 0))
    if broken.any():
        raise DataError(
            f"{name} has a weight that is negative or not finite",
            got=float(weights.data[broken][0]),
            fix="edge weights must be finite and >= 0",
        )
