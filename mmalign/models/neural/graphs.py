"""Graphs and their propagation as several neural baselines share them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from mmalign.errors import ConfigError, DataError, nearest
from mmalign.graph.knn import combine_knn, content_knn, interaction_knn
from mmalign.graph.propagation import SparseOperator, keep_edges, symmetric_normalise
from mmalign.interfaces import BoolArray
from mmalign.models.base import TrainData

__all__ = ["item_graphs", "mix", "propagate", "prune_edges", "taken_together"]


def propagate(
    users: Tensor, items: Tensor, graph: SparseOperator, num_layers: int
) -> tuple[Tensor, Tensor]:
    """Pass messages between users and items and average over the rounds, the start included.

    ``e^(k+1) = D^-1/2 A D^-1/2 e^(k)``, result ``mean_k e^(k)`` (LightGCN: He et al., 2020,
    arXiv:2002.02126).

    Shapes:
        users: ``[U, D]``; items: ``[W, D]``; graph: ``[U, W]``; returns both shapes again.
    """
    to_users, to_items = graph.symmetric, graph.T.symmetric
    user_sum, item_sum = users, items
    for _ in range(num_layers):
        users, items = to_users @ items, to_items @ users
        user_sum, item_sum = user_sum + users, item_sum + items
    return user_sum / (num_layers + 1), item_sum / (num_layers + 1)


def item_graphs(
    data: TrainData, k: int, modalities: tuple[str, ...] = ()
) -> dict[str, SparseOperator]:
    """Normalised neighbour graph of warm items, one per modality, ``[W, W]`` each.

    A row lists the item itself and its ``k - 1`` nearest by cosine, all with weight one, divided
    by the square roots of the numbers of neighbours on both sides (as in LATTICE: Zhang et al.,
    2021, arXiv:2104.09036). Neighbour lists that come with the data stand in for the search. An
    item without the modality has an empty row and is in nobody's.

    Args:
        data: Features, or given neighbours; only warm items enter.
        k: Neighbours per item, itself included.
        modalities: Those to use; empty means all that there are.

    Raises:
        DataError: Data without any content.
    """
    given: Mapping[str, sp.csr_matrix] = data.neighbours
    warm = data.warm
    graphs = {}
    for name in modalities or sorted({*given, *data.features}):
        if name in given:
            lists = sp.csr_matrix(given[name])
            near = lists[warm][:, warm]
            listed = ((lists.getnnz(axis=1) > 0) | (lists.getnnz(axis=0) > 0))[warm]
        elif name not in data.features:
            valid = sorted({*given, *data.features})
            raise ConfigError("no such modality", got=name, fix=nearest(name, valid))
        else:
            feature = data.features[name]
            listed = (feature.present & feature.values.any(axis=1))[warm]
            near = content_knn(feature.rows(warm), max(k - 1, 1))
        graphs[name] = _with_themselves(near, listed)
    if not graphs:
        raise DataError(
            "there is no content to link items by",
            fix="name text, image or attributes in data, or use a model without content",
        )
    return graphs


def taken_together(matrix: sp.csr_matrix, k: int) -> SparseOperator:
    """Link each item to itself and to the ``k`` that most of its users took too, normalised alike.

    Shapes:
        matrix: ``[U, W]``; returns: ``[W, W]``.
    """
    return _with_themselves(interaction_knn(matrix, k), np.ones(matrix.shape[1], bool))


def _with_themselves(near: sp.csr_matrix, listed: BoolArray) -> SparseOperator:
    """Link listed items to themselves too, forget how near, normalise by degree."""
    near = sp.csr_matrix(near + sp.diags_array(listed.astype(np.float32)), dtype=np.float32)
    near.eliminate_zeros()
    near.data[:] = 1
    degree = near.getnnz(axis=1).astype(np.float32)
    return SparseOperator(symmetric_normalise(near, degree, degree))


def mix(graphs: Mapping[str, SparseOperator], image_weight: float) -> SparseOperator:
    """Add the graphs of all modalities: ``image`` with its weight, the others share the rest.

    With images alone or without any there is nothing to weigh, and all count alike.

    Shapes:
        graphs: ``[W, W]`` each; returns: ``[W, W]``.
    """
    others = [name for name in graphs if name != "image"]
    if len(others) == len(graphs) or not others:
        image_weight = 1 / len(graphs) if not others else 0.0
    weights = {name: (1 - image_weight) / len(others) for name in others}
    if "image" in graphs:
        weights["image"] = image_weight
    return SparseOperator(combine_knn({name: graph.csr for name, graph in graphs.items()}, weights))


def prune_edges(matrix: sp.csr_matrix, share: float, rng: np.random.Generator) -> sp.csr_matrix:
    """Keep a share of the edges, those between popular nodes with the lowest probability.

    Edges are drawn without replacement with weights ``1 / sqrt(d_u d_i)`` (FREEDOM: Zhou and Shen,
    2023, arXiv:2211.06924).

    Args:
        matrix: Interactions, ``[U, W]``.
        share: Of the edges to keep, in (0, 1].
        rng: Source of randomness.

    Example:
        >>> whole = sp.csr_matrix(np.ones((4, 5), np.float32))
        >>> prune_edges(whole, 0.3, np.random.default_rng(0)).nnz
        6
    """
    users = np.maximum(matrix.getnnz(axis=1), 1)
    items = np.maximum(matrix.getnnz(axis=0), 1)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    log_weight = -0.5 * (np.log(users[rows]) + np.log(items[matrix.indices]))
    count = max(1, int(share * matrix.nnz))
    # The largest of log weight plus Gumbel noise are a draw without replacement.
    order = np.argsort(-(log_weight + rng.gumbel(size=matrix.nnz)), kind="stable")[:count]
    kept = np.zeros(matrix.nnz, dtype=bool)
    kept[order] = True
    return keep_edges(matrix, kept)
