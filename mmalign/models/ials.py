"""Matrix factorisation of implicit feedback; users are folded in, cold items told by content."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import ClassVar, Self

import numpy as np
import scipy.sparse as sp

from mmalign.errors import MissingDependencyError
from mmalign.interfaces import BoolArray, Features, FloatArray, IntArray
from mmalign.models.base import TrainData
from mmalign.models.checks import check_positive
from mmalign.models.kernel import ContentModel, KernelConfig
from mmalign.models.ridge import ridge_map

__all__ = ["IALS", "IALSConfig", "fold_in"]


@dataclass(frozen=True)
class IALSConfig:
    """iALS.

    Attributes:
        embedding_dim: Factors per user and item.
        l2: Penalty on the squared length of every factor.
        alpha: How much more an interaction weighs than its absence: confidence ``1 + alpha r``.
        iterations: Alternations between users and items.
        regularization: Ridge penalty of item factors on content.
        kernel: How modalities make one similarity.
        seed: Of the factors at the start; None for the experiment's.

    Raises:
        ConfigError: A number is not positive.
    """

    embedding_dim: int = 64
    l2: float = 20.0
    alpha: float = 2.0
    iterations: int = 15
    regularization: float = 5.0
    kernel: KernelConfig = field(default_factory=KernelConfig)
    seed: int | None = None

    def __post_init__(self) -> None:
        check_positive(
            embedding_dim=self.embedding_dim,
            l2=self.l2,
            alpha=self.alpha,
            iterations=self.iterations,
            regularization=self.regularization,
        )


class IALS(ContentModel[IALSConfig]):
    """iALS (Hu, Koren and Volinsky 2008), trained by the library ``implicit``.

    It minimises ``sum c_ui (p_ui - x_u . y_i)^2 + l2 (|X|^2 + |Y|^2)`` over all pairs, with
    ``p_ui = 1`` and ``c_ui = 1 + alpha r_ui`` where there is an interaction, and 0 and 1 where
    there is none. A user is placed by the exact solution for their history, whether they were in
    training or not. Factors of cold items are regressed on content, which Gantner et al. 2010
    ("Learning attribute-to-feature mappings for cold-start recommendations") brought in.

    Shapes:
        factors: ``[I, embedding_dim]``, learned for warm items and told by content for cold ones.
        to_factors: ``[D, embedding_dim]``; mean: ``[embedding_dim]``.
    """

    serves_cold: ClassVar[bool] = True
    learned = ("warm", "content", "factors", "to_factors", "mean")
    factors: FloatArray
    to_factors: FloatArray
    mean: FloatArray

    def fit(self, data: TrainData) -> Self:
        """Factorise, then regress the factors on content.

        Raises:
            MissingDependencyError: ``implicit`` is absent.
        """
        learned = _item_factors(data.matrix[:, data.warm], self.config)
        self.fit_content(data)
        self.mean = learned.mean(axis=0)
        z = self.content[data.warm]
        self.to_factors = ridge_map(z, learned - self.mean, self.config.regularization)
        self.factors = self._told(self.content)
        self.factors[data.warm] = learned
        return self

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Inner products of candidates and the user that the history makes."""
        users = fold_in(
            sp.csr_matrix(history), self.factors, self.warm, self.config.l2, self.config.alpha
        )
        scores: FloatArray = users @ self.factors[items].T
        return scores

    def item_vectors(self) -> FloatArray:
        """``[I, embedding_dim]`` factors."""
        return self.factors

    def _append(self, features: Features, count: int) -> None:
        before = len(self.content)
        super()._append(features, count)
        self.factors = np.concatenate([self.factors, self._told(self.content[before:])])

    def _told(self, content: FloatArray) -> FloatArray:
        told: FloatArray = content @ self.to_factors + self.mean
        return told


def fold_in(
    history: sp.csr_matrix, factors: FloatArray, warm: BoolArray, l2: float, alpha: float
) -> FloatArray:
    """Solve each user's normal equations ``(Y'C Y + l2 I) x = Y'C p``.

    Absences are counted over warm items alone: nobody could have taken a cold one. A cold item of
    a history counts like any other.

    Shapes:
        history: ``[B, I]`` sparse; factors: ``[I, D]``; warm: ``[I]``; returns ``[B, D]``.

    Example:
        >>> history = sp.csr_matrix(np.array([[1.0, 0.0]]))
        >>> fold_in(history, np.eye(2, dtype=np.float32), np.ones(2, bool), l2=1.0, alpha=2.0)
        array([[0.75, 0.  ]], dtype=float32)
    """
    known = factors.astype(np.float64)
    base = known[warm].T @ known[warm]
    base[np.diag_indices_from(base)] += l2
    users = np.zeros((history.shape[0], factors.shape[1]))
    for user in range(history.shape[0]):
        row = slice(history.indptr[user], history.indptr[user + 1])
        taken, extra = known[history.indices[row]], alpha * history.data[row].astype(np.float64)
        users[user] = np.linalg.solve(base + (taken.T * extra) @ taken, taken.T @ (1 + extra))
    return users.astype(np.float32)


def _item_factors(matrix: sp.csr_matrix, config: IALSConfig) -> FloatArray:
    from threadpoolctl import threadpool_limits

    confidence = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    confidence.data = 1 + np.float32(config.alpha) * confidence.data
    model = _implicit().cpu.als.AlternatingLeastSquares(
        factors=config.embedding_dim,
        regularization=config.l2,
        alpha=1.0,  # it would multiply the confidence, which is complete already
        iterations=config.iterations,
        random_state=config.seed or 0,
    )
    with threadpool_limits(1, "blas"):  # its own threads and those of BLAS get in each other's way
        model.fit(confidence, show_progress=False)
    return np.array(model.item_factors, np.float32)


def _implicit() -> ModuleType:
    try:
        import implicit.cpu.als
    except ImportError as error:
        raise MissingDependencyError(
            "iALS is trained by the package implicit, which is absent",
            fix="pip install 'mmalign[baselines]'",
        ) from error
    module: ModuleType = implicit
    return module
