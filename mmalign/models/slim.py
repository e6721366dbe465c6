"""Sparse linear item-item weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError
from mmalign.interfaces import IntArray
from mmalign.models.base import TrainData
from mmalign.models.checks import check_positive
from mmalign.models.neighbours import ItemItem

__all__ = ["SLIM", "SLIMConfig", "slim_weights"]

BLOCK = 64
"""Items whose coordinates are visited between two large matrix products."""


@dataclass(frozen=True)
class SLIMConfig:
    """SLIM.

    Attributes:
        l1: Penalty on weights, which makes them few.
        l2: Penalty on their squares, in interactions, as EASE's.
        iterations: At most so many passes over all coordinates.
        tolerance: An item is done when none of its weights moved by more in a pass.

    Raises:
        ConfigError: ``l1`` is negative, or another number is not positive.
    """

    l1: float = 2.0
    l2: float = 50.0
    iterations: int = 100
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.l1 < np.inf:
            raise ConfigError("l1 must be finite and not negative", got=self.l1, fix="try 2")
        check_positive(l2=self.l2, iterations=self.iterations, tolerance=self.tolerance)


class SLIM(ItemItem[SLIMConfig]):
    """SLIM (Ning and Karypis 2011, ICDM): each item an elastic net of the others.

    ``min 1/2 |x_j - X w_j|^2 + l2/2 |w_j|^2 + l1 |w_j|_1`` with ``w_j >= 0`` and ``w_jj = 0``: what
    EASE becomes with weights that must be sparse and positive.
    """

    def fit(self, data: TrainData) -> Self:
        """Descend to the weights between warm items."""
        self.warm = data.warm
        matrix = data.matrix[:, data.warm]
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        config = self.config
        dense = slim_weights(
            gram, config.l1, config.l2, iterations=config.iterations, tolerance=config.tolerance
        )
        found = sp.coo_matrix(dense.astype(np.float32))
        rows = np.flatnonzero(data.warm)
        shape = (len(data.warm), len(data.warm))
        self.weights = sp.csr_matrix((found.data, (rows[found.row], rows[found.col])), shape=shape)
        return self


def slim_weights(
    gram: NDArray[np.float64], l1: float, l2: float, *, iterations: int, tolerance: float
) -> NDArray[np.float64]:
    """Coordinate descent on the Gram matrix, for all items at once.

    A pass visits the same coordinate of every item's regression together, a row of the weights:
    what would be ``W`` separate sweeps over vectors becomes products of matrices, a block of
    coordinates at a time. Regressions that have settled are left out of the next pass. The problem
    is strictly convex, so the order of visits does not change the solution.

    Shapes:
        gram: ``[W, W]``, ``X'X``; returns ``[W, W]``, column j holding the weights to item j.

    Example:
        >>> gram = np.array([[4.0, 2.0], [2.0, 2.0]])
        >>> slim_weights(gram, l1=1.0, l2=1.0, iterations=10, tolerance=1e-6).round(3)
        array([[0.   , 0.2  ],
               [0.333, 0.   ]])
    """
    weights = np.zeros_like(gram)
    targets = np.arange(len(gram))
    current = weights.copy()
    for _ in range(iterations):
        change = _descend(gram, targets, current, l1, l2)
        weights[:, targets] = current
        moving = change > tolerance
        if not moving.any():
            break
        targets, current = targets[moving], np.ascontiguousarray(current[:, moving])
    return weights


def _descend(
    gram: NDArray[np.float64],
    targets: IntArray,
    weights: NDArray[np.float64],
    l1: float,
    l2: float,
) -> NDArray[np.float64]:
    """Visit every coordinate once, in place.

    Shapes:
        targets: ``[T]``, the items regressed; weights: ``[W, T]``; returns ``[T]``, the largest
        change of each.
    """
    largest = np.zeros(len(targets))
    for start in range(0, len(gram), BLOCK):
        block = slice(start, min(start + BLOCK, len(gram)))
        # how the residuals agree with the items of the block, kept up to date below
        gradient = gram[block][:, targets] - gram[block] @ weights
        for offset, item in enumerate(range(block.start, block.stop)):
            old = weights[item].copy()
            pull = gradient[offset] + gram[item, item] * old - l1
            new = np.maximum(pull / (gram[item, item] + l2), 0)
            new[targets == item] = 0
            change = new - old
            weights[item] = new
            later = gram[item + 1 : block.stop, item, None]
            gradient[offset + 1 :] -= later * change
            np.maximum(largest, np.abs(change), out=largest)
    return largest
