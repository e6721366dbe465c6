"""Exact content neighbours of every item, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import BoolArray, Feature, IntArray

__all__ = ["combine_knn", "content_knn", "interaction_knn"]

_POSITION = 0xFFFFFFFF
"""Largest lower half of a key; item rows are counted down from it: lower rows sort higher."""
_NOISE = float(np.finfo(np.float32).eps)
"""Cosines up to here are the rounding of zero: their sign means nothing."""


def content_knn(
    feature: Feature,
    k: int,
    sources: BoolArray | None = None,
    block_size: int = 1024,
    *,
    targets: BoolArray | None = None,
) -> sp.csr_matrix:
    """Find the ``k`` most similar items of every item by cosine similarity.

    The search is exact and deterministic: equal similarities go to the lower item row, whatever
    the block size. Memory beyond the feature and the result is ``O(block_size ** 2)``.

    An item takes part only with content of its own. Absent items, and items whose vector is zero
    and has no direction, are nobody's neighbours and have none: left in as zero rows they would
    tie with each other and fill the lists. Similarities that are not positive are dropped, so a
    row may hold fewer than ``k`` entries. An item is never its own neighbour.

    Args:
        feature: Content of all items.
        k: Neighbours per item, at least 1.
        sources: Items that may be neighbours, such as the warm ones; None means all. It limits
            the columns only: an item that is no source still gets neighbours.
        block_size: Items compared at once, in rows and in columns.
        targets: Items to find neighbours of, such as new ones; None means all.

    Shapes:
        feature: ``[I, D]``.
        sources, targets: ``[I]`` bool.
        returns: ``[I, I]`` sparse float32; row i holds the cosines in (0, 1] of i's neighbours.

    Raises:
        ConfigError: ``k`` or ``block_size`` is below 1.
        DataError: ``sources`` or ``targets`` has the wrong shape or type, or a present item has NaN
            or infinity.

    Example:
        >>> import numpy as np
        >>> values = np.array([[1, 0], [3, 4], [0, 1], [0, 0]], dtype=np.float32)
        >>> feature = Feature(values, present=np.array([True, True, True, False]))
        >>> content_knn(feature, k=1).toarray().round(1)
        array([[0. , 0.6, 0. , 0. ],
               [0. , 0. , 0.8, 0. ],
               [0. , 0.8, 0. , 0. ],
               [0. , 0. , 0. , 0. ]], dtype=float32)
    """
    _check(feature, k, block_size, sources=sources, targets=targets)
    num_items = len(feature.values)
    usable = feature.present & feature.values.any(axis=1)
    queries, candidates = (
        np.flatnonzero(usable if chosen is None else usable & chosen)
        for chosen in (targets, sources)
    )

    rows, columns, weights = [], [], []
    for query in _blocks(queries, block_size):
        best = np.zeros((len(query), 0), dtype=np.int64)
        left = _directions(feature, query)
        for candidate in _blocks(candidates, block_size):
            keys = _keys(left @ _directions(feature, candidate).T, query, candidate)
            best = _largest(np.concatenate([best, keys], axis=1), k)
        position, slot = np.nonzero(best)
        found = best[position, slot]
        rows.append(query[position])
        columns.append(_POSITION - (found & _POSITION))
        weights.append((found >> 32).astype(np.int32).view(np.float32))
    if not rows:
        return sp.csr_matrix((num_items, num_items), dtype=np.float32)
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    graph = sp.csr_matrix(entries, shape=(num_items, num_items), dtype=np.float32)
    graph.sort_indices()
    return graph


def interaction_knn(matrix: sp.csr_matrix, k: int, shrinkage: float = 0.0) -> sp.csr_matrix:
    """Find the ``k`` items of every item that most of the same users took.

    ``n_ij / (sqrt(n_i n_j) + shrinkage)`` for ``n_ij`` users who took both: the cosine of
    co-interaction, shrunk where few users stand behind it (Deshpande and Karypis 2004, TOIS 22(1)).
    An item is never its own neighbour.

    Args:
        matrix: Interactions; each counts once.
        k: Neighbours per item, at least 1.
        shrinkage: In interactions.

    Shapes:
        matrix: ``[U, I]``; returns ``[I, I]`` sparse float32, row i holds i's neighbours.

    Raises:
        ConfigError: ``k`` is below 1.

    Example:
        >>> import numpy as np
        >>> taken = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 1]], np.float32))
        >>> interaction_knn(taken, k=1).toarray().round(1)
        array([[0. , 1. , 0. ],
               [1. , 0. , 0. ],
               [0.7, 0. , 0. ]], dtype=float32)
    """
    if k < 1:
        raise ConfigError("k must be at least 1", got=k, fix="try 10")
    binary = sp.csr_matrix(matrix, dtype=np.float64, copy=True)
    binary.data[:] = 1
    together = (binary.T @ binary).tocsr()
    together.sort_indices()
    norms = np.sqrt(np.asarray(binary.sum(axis=0)).ravel())
    rows = np.repeat(np.arange(together.shape[0]), np.diff(together.indptr))
    together.data[rows == together.indices] = 0
    together.data = together.data / (norms[rows] * norms[together.indices] + shrinkage)
    return _strongest(together, k).astype(np.float32)


def combine_knn(graphs: Mapping[str, sp.csr_matrix], weights: Mapping[str, float]) -> sp.csr_matrix:
    """Add the neighbour graphs of several modalities, each times its weight.

    An item that lacks a modality simply has no term from it.

    Args:
        graphs: Modality to neighbour graph.
        weights: Modality to weight, not negative, such as ``{"text": 0.8, "image": 0.2}``;
            graphs that are not named are left out.

    Shapes:
        graphs: each ``[I, I]`` sparse.
        returns: ``[I, I]`` sparse float32.

    Raises:
        ConfigError: No weights, an unknown modality, or a weight that is negative or not finite.
        DataError: Graphs of different shapes.

    Example:
        >>> import scipy.sparse as sp
        >>> text, image = sp.eye_array(2).tocsr(), sp.csr_matrix([[0.0, 1.0], [0.0, 0.0]])
        >>> graph = combine_knn({"text": text, "image": image}, {"text": 0.75, "image": 0.25})
        >>> graph.toarray()
        array([[0.75, 0.25],
               [0.  , 0.75]], dtype=float32)
    """
    if not weights:
        raise ConfigError(
            "no modality weights", got=dict(weights), fix="name at least one modality"
        )
    for name, weight in weights.items():
        if name not in graphs:
            raise ConfigError(f"no neighbour graph of {name!r}", fix=nearest(name, graphs))
        if not 0 <= weight < np.inf:
            raise ConfigError(f"weight of {name!r} must be finite and >= 0", got=weight)
    shapes = {name: graphs[name].shape for name in weights}
    if len(set(shapes.values())) > 1:
        raise DataError("neighbour graphs differ in shape", got=shapes, fix="use the same items")
    total = sp.csr_matrix(next(iter(shapes.values())), dtype=np.float32)
    for name, weight in weights.items():
        total = total + sp.csr_matrix(graphs[name], dtype=np.float32) * np.float32(weight)
    total.eliminate_zeros()
    total.sort_indices()
    return total


def _blocks(rows: IntArray, size: int) -> Iterator[IntArray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _directions(feature: Feature, rows: IntArray) -> NDArray[np.float64]:
    # Double precision: the rounding of a float32 product depends on where in a block a pair
    # falls, which would make equal items unequal and ties a matter of the block size.
    values = feature.values[rows].astype(np.float64)
    directions: NDArray[np.float64] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return directions


def _keys(similarity: NDArray[np.float64], query: IntArray, candidate: IntArray) -> IntArray:
    """Pack each similarity and its item row into one integer that sorts as the pair would.

    The bits of a positive float32 sort like the number itself, so they form the upper half. All
    keys of a row differ, hence any selection algorithm breaks ties in the same way. Zero means
    no neighbour.
    """
    cosine = similarity.astype(np.float32)
    upper = cosine.view(np.int32).astype(np.int64) << 32
    keys: IntArray = upper | (_POSITION - candidate)
    keys[(cosine <= _NOISE) | (query[:, None] == candidate)] = 0
    return keys


def _largest(keys: IntArray, k: int) -> IntArray:
    if keys.shape[1] <= k:
        return keys
    return np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]


def _check(feature: Feature, k: int, block_size: int, **chosen: BoolArray | None) -> None:
    if k < 1:
        raise ConfigError("k must be at least 1", got=k, fix="pass the number of neighbours")
    if block_size < 1:
        raise ConfigError("block_size must be at least 1", got=block_size, fix="use the default")
    for name, marks in chosen.items():
        if marks is not None and (marks.dtype != np.bool_ or marks.shape != feature.present.shape):
            raise DataError(
                f"{name} must be one bool per item",
                got=(marks.dtype, marks.shape),
                fix=f"pass a bool array of shape {feature.present.shape}",
            )
    broken = feature.present & ~np.isfinite(feature.values).all(axis=1)
    if broken.any():
        raise DataError(
            "a present item has a feature that is NaN or infinite",
            got=f"item row {np.flatnonzero(broken)[0]}",
            fix="mark the item as absent or encode it again",
        )


def _strongest(matrix: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """Keep the ``k`` largest positive entries of each row."""
    data, indices, indptr = [], [], [0]
    for row in range(matrix.shape[0]):
        start, stop = matrix.indptr[row], matrix.indptr[row + 1]
        values, columns = matrix.data[start:stop], matrix.indices[start:stop]
        order = np.argsort(-values, kind="stable")[:k]
        order = order[values[order] > 0]
        data.append(values[order])
        indices.append(columns[order])
        indptr.append(indptr[-1] + len(order))
    return sp.csr_matrix(
        (np.concatenate(data), np.concatenate(indices), indptr), shape=matrix.shape
    )
