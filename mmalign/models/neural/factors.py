"""Weighted matrix factorisation: the collaborative vectors that cold-start methods start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from mmalign.interfaces import FloatArray
from mmalign.models.checks import check_positive
from mmalign.models.ials import fold_in

__all__ = ["Factors", "FactorsConfig"]


@dataclass(frozen=True)
class FactorsConfig:
    """Weighted matrix factorisation.

    Attributes:
        alpha: Confidence that an interaction adds to the 1 of everything not taken.
        l2: Penalty on users' and items' vectors.
        iterations: Alternations between users and items.

    Raises:
        ConfigError: A number that is not positive.
    """

    alpha: float = 2.0
    l2: float = 20.0
    iterations: int = 15

    def __post_init__(self) -> None:
        check_positive(
            **{f"factors.{name}": getattr(self, name) for name in ("alpha", "l2", "iterations")}
        )


class Factors:
    """Hu, Koren and Volinsky, 2008, "Collaborative filtering for implicit feedback datasets".

    ``min sum_ui c_ui (p_ui - <x_u, y_i>)^2 + l2 (|x|^2 + |y|^2)`` with ``p`` one for what was
    taken, else zero, and ``c = 1 + alpha p``, by alternating least squares. Given the items, a
    user is the solution for a history, so a user unseen in training is placed as a train user is.

    Args:
        config: Of the factorisation.
        items: ``[W, D]``, see :meth:`fit`.

    Example:
        >>> matrix = sp.csr_matrix(np.kron(np.eye(2), np.ones((3, 3))).astype(np.float32))
        >>> factors = Factors.fit(matrix, FactorsConfig(l2=0.1), dim=2)
        >>> (factors.users(matrix) @ factors.items.T).round(0).astype(int)[0].tolist()
        [1, 1, 1, 0, 0, 0]
    """

    def __init__(self, config: FactorsConfig, items: FloatArray) -> None:
        self.config, self.items = config, items

    @classmethod
    def fit(
        cls, matrix: sp.csr_matrix, config: FactorsConfig, dim: int, *, seed: int = 0
    ) -> Factors:
        """Factorise interactions ``[U, W]`` into ``dim`` dimensions."""
        sides = sp.csr_matrix(matrix), sp.csr_matrix(matrix.T)
        rng = np.random.default_rng(seed)
        items = rng.normal(scale=0.1, size=(matrix.shape[1], dim)).astype(np.float32)
        for _ in range(config.iterations):
            users = _solve(sides[0], items, config)
            items = _solve(sides[1], users, config)
        return cls(config, items)

    def users(self, history: sp.csr_matrix) -> FloatArray:
        """Solve for users by their histories, ``[B, W]`` to ``[B, D]``."""
        return _solve(sp.csr_matrix(history), self.items, self.config)


def _solve(taken: sp.csr_matrix, others: FloatArray, config: FactorsConfig) -> FloatArray:
    """Each row's vector, given those of the other side: the problem is the same both ways."""
    everything = np.ones(len(others), dtype=bool)
    return fold_in(taken, others, everything, config.l2, config.alpha)
