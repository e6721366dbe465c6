"""A map of vectors: where every item lies, in two dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mmalign.errors import DataError
from mmalign.interfaces import FloatArray

__all__ = ["embedding_map"]

_MOST_FOR_TSNE = 5000  # beyond it t-SNE takes more than half a minute on one core
_FEWEST_FOR_TSNE = 50  # below it there are too few neighbours to arrange
_COMPONENTS = 30
_SAME = 1e-6  # single precision does not tell unit rows closer than that apart


def embedding_map(vectors: ArrayLike, *, seed: int = 0) -> FloatArray:
    """Lay vectors out on a plane so that those with a high cosine lie close together.

    Rows are scaled to unit length and reduced by PCA; then t-SNE (van der Maaten and Hinton, 2008)
    arranges neighbourhoods, 2,000 points in about 5 seconds on one core. With more than 5,000
    points, or fewer than 50, the map is the PCA alone.

    Args:
        vectors: One row per item, finite.
        seed: Same seed, same map.

    Shapes:
        vectors: ``[N, D]``; returns: ``[N, 2]`` float32, within -1 and 1.

    Raises:
        DataError: The vectors are no finite matrix.

    Example:
        >>> embedding_map(np.eye(3)).shape
        (3, 2)
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise DataError(
            "the vectors to map must be a finite matrix",
            got=f"shape {rows.shape}",
            fix="pass one row of numbers per item",
        )
    count, dim = rows.shape
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    components = min(count, dim, _COMPONENTS)
    plane = np.zeros((count, 2))
    if components > 0 and np.ptp(rows, axis=0).max() > _SAME:
        reduced = PCA(components, svd_solver="full").fit_transform(rows)
        if _FEWEST_FOR_TSNE <= count <= _MOST_FOR_TSNE and components > 2:
            # init by PCA keeps the large-scale order and makes the result repeatable
            tsne = TSNE(2, init="pca", max_iter=500, random_state=seed)
            plane = tsne.fit_transform(reduced.astype(np.float32)).astype(np.float64)
        else:
            plane[:, : min(2, components)] = reduced[:, :2]
        plane -= (plane.max(axis=0) + plane.min(axis=0)) / 2
        plane /= max(np.abs(plane).max(), 1e-12)
    return plane.astype(np.float32)
