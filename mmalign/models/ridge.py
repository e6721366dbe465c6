"""Ridge regression from content to whatever a model learned of warm items."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mmalign.interfaces import FloatArray

__all__ = ["ridge_map"]


def ridge_map(
    content: NDArray[np.floating], targets: NDArray[np.floating], penalty: float
) -> FloatArray:
    """Solve ``min |targets - content W|^2 + penalty |W|^2``, that is ``W = (Z'Z + cI)^-1 Z'T``.

    Content is centred on warm items by the kernel, so targets centred likewise need no intercept
    (Hoerl and Kennard 1970, "Ridge regression").

    Args:
        content: Features of the warm items.
        targets: What is to be told from content.
        penalty: Positive.

    Shapes:
        content: ``[W, D]``; targets: ``[W, T]``; returns ``[D, T]``.

    Example:
        >>> z = np.array([[1.0], [-1.0]], np.float32)
        >>> ridge_map(z, np.array([[3.0], [-3.0]]), penalty=1.0)
        array([[2.]], dtype=float32)
    """
    z = content.astype(np.float64)
    gram = z.T @ z
    gram[np.diag_indices_from(gram)] += penalty
    solved: FloatArray = scipy.linalg.solve(gram, z.T @ targets, assume_a="pos").astype(np.float32)
    return solved
