"""Models with a closed form: baselines, and teachers of the neural ones. They fit in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import TrainingError
from mmalign.graph.sessions import session_gram
from mmalign.interfaces import BoolArray, FloatArray, IntArray
from mmalign.models.base import C, Model, TrainData
from mmalign.models.checks import check_positive, check_within
from mmalign.models.item_weights import ItemWeights
from mmalign.models.kernel import KernelConfig
from mmalign.models.ridge import ridge_map

__all__ = [
    "CollectiveConfig",
    "Ease",
    "EaseConfig",
    "KernelRidge",
    "KernelRidgeConfig",
    "RidgeConfig",
    "WarmWeights",
    "ease_weights",
    "pick_warm",
]


SINGLE_PRECISION = 10_000
"""Items above which EASE is solved in single precision, in half the time and memory."""


@dataclass(frozen=True)
class EaseConfig:
    """EASE.

    Attributes:
        l2: Ridge penalty, in interactions.

    Raises:
        ConfigError: ``l2`` is not positive.
    """

    l2: float = 150.0

    def __post_init__(self) -> None:
        check_positive(l2=self.l2)


class WarmWeights(Model[C]):
    """Score by the history times item-item weights, for warm items only.

    Shapes:
        weights: ``[W, W]``, from the warm items of a history to warm candidates.
    """

    learned: ClassVar[tuple[str, ...]] = ("warm", "weights")
    weights: FloatArray

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """History times weights; a cold item scores zero."""
        return pick_warm(self.warm_scores(history), self.warm, items)

    def warm_scores(self, history: sp.csr_matrix) -> FloatArray:
        """History times weights, ``[B, W]``."""
        return np.asarray(history[:, self.warm] @ self.weights, np.float32)

    def item_vectors(self) -> FloatArray:
        """``[I, W]``: the weights that point to each item, zero for cold ones."""
        vectors = np.zeros((len(self.warm), self.weights.shape[0]), np.float32)
        vectors[self.warm] = self.weights.T
        return vectors


def pick_warm(scores: FloatArray, warm: BoolArray, items: IntArray) -> FloatArray:
    """Scores of some items from those of the warm ones; a cold item scores zero.

    Shapes:
        scores: ``[B, W]``; warm: ``[I]``; items: ``[C]`` rows; returns: ``[B, C]``.

    Example:
        >>> warm = np.array([True, False, True])
        >>> pick_warm(np.array([[5.0, 7.0]]), warm, np.array([2, 1]))
        array([[7., 0.]])
    """
    columns = (np.cumsum(warm) - 1)[items]
    if np.array_equal(columns, np.arange(scores.shape[1])) and warm[items].all():
        return scores  # all of them in order: nothing to copy
    picked = np.take(scores, columns, axis=1)
    picked[:, ~warm[items]] = 0
    return picked


class Ease(WarmWeights[EaseConfig]):
    """EASE, an item-item regression with a zero diagonal (Steck 2019, arXiv 1905.03375)."""

    def fit(self, data: TrainData) -> Self:
        """Solve for the weights between warm items."""
        self.warm = data.warm
        large = data.warm.sum() > SINGLE_PRECISION
        dtype = np.float32 if large else np.float64
        self.weights = ease_weights(data.matrix[:, data.warm], self.config.l2, dtype=dtype)
        return self


@dataclass(frozen=True)
class KernelRidgeConfig:
    """EASE for warm items, kernel ridge from content to EASE scores for cold ones.

    Attributes:
        l2: EASE's penalty.
        regularization: Ridge penalty on content.
        kernel: How modalities make one similarity.
        content_weight: Weight of content next to interactions in EASE itself; 0 leaves it out.
        appeal: How far a cold item is moved, in the deviation of a user's own scores, for each
            deviation by which content lets expect more users than others have; 0 is plain ridge.
        session_weight: Weight in EASE of pairs that a user took shortly after each other, next to
            1 for any two of the user's items; 0 leaves times out.
        session_seconds: How shortly: after so many seconds the weight has fallen to 37%.

    Raises:
        ConfigError: A penalty or ``session_seconds`` is not positive, or a weight is negative.
    """

    l2: float = 150.0
    regularization: float = 5.0
    kernel: KernelConfig = field(default_factory=KernelConfig)
    content_weight: float = 0.0
    appeal: float = 0.0
    session_weight: float = 0.0
    session_seconds: float = 120.0

    def __post_init__(self) -> None:
        check_within(
            "[0, inf)",
            content_weight=self.content_weight,
            appeal=self.appeal,
            session_weight=self.session_weight,
        )
        check_positive(
            l2=self.l2,
            regularization=self.regularization,
            session_seconds=self.session_seconds,
        )


@dataclass(frozen=True)
class RidgeConfig(KernelRidgeConfig):
    """The same with a linear kernel: plain ridge on the concatenated modalities."""

    kernel: KernelConfig = field(default_factory=lambda: KernelConfig(kind="sum"))


@dataclass(frozen=True)
class CollectiveConfig(KernelRidgeConfig):
    """The same with content and sessions inside EASE: the strongest closed form, the teacher."""

    l2: float = 200.0
    content_weight: float = 10.0
    appeal: float = 0.25
    session_weight: float = 1.0


class KernelRidge(ItemWeights[KernelRidgeConfig]):
    """EASE, continued to cold items by ridge regression of each user's EASE scores on content.

    A user's scores over warm items, less their mean, are regressed on the kernel's features, so a
    cold item's score is ``mean + (scores - mean) Z (Z'Z + c I)^-1 z``; this equals kernel ridge
    with the same kernel (Saunders et al. 1998). With a ``content_weight`` items are regressed on
    content and interactions together: the kernel is added to the Gram matrix of interactions, as
    if every content feature were a further user (collective EASE: Jeunen, Van Balen and Goethals
    2020, "Closed-form models for collaborative filtering with side-information"). With a
    ``session_weight`` items taken within minutes of each other count for more in that matrix, see
    :func:`mmalign.graph.sessions.session_gram`. How many users an item has is known better than
    what one of them thinks of it, so the logarithm of that number is regressed on content too, and
    ``appeal`` adds it. Cold scores come out too small next to warm ones:
    :mod:`mmalign.models.calibration` finds their scale on valid.
    """

    learned = (*ItemWeights.learned, "popularity")
    popularity: FloatArray

    def fit(self, data: TrainData) -> Self:
        """Solve EASE, then the regression on content."""
        self.fit_content(data)
        matrix, z = data.matrix[:, data.warm], self.content[data.warm].astype(np.float64)
        self.weights = ease_weights(matrix, self.config.l2, self._prior(data, z))
        self.regress(self.config.regularization)
        users = np.log(matrix.getnnz(axis=0))
        popularity = (users - users.mean()) / (users.std() or 1)
        self.popularity = ridge_map(z, popularity[:, None], self.config.regularization)[:, 0]
        return self

    def _prior(self, data: TrainData, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """``[W, W]``: what content and sessions add to the Gram matrix of interactions."""
        config, prior = self.config, np.zeros((len(z), len(z)))
        if config.content_weight:
            prior += config.content_weight * (z @ z.T)
        if config.session_weight and data.times is not None:
            together = session_gram(data.times[:, data.warm], config.session_seconds)
            prior += config.session_weight * together
        return prior

    def shared_taste(self, warm_scores: FloatArray) -> FloatArray:
        """``[B, D]``: towards popular content, in the unit of each user's scores."""
        spread = warm_scores.std(axis=1, keepdims=True)
        return np.asarray(self.config.appeal * spread * self.popularity, np.float32)


def ease_weights(
    matrix: sp.csr_matrix,
    l2: float,
    prior: NDArray[np.floating] | None = None,
    dtype: type[np.floating] = np.float64,
) -> FloatArray:
    """EASE's weights ``-P / diag(P)`` with ``P = (X'X + prior + l2 I)^-1`` and a zero diagonal.

    Shapes:
        matrix: ``[U, W]``; prior: ``[W, W]``, None for none; returns ``[W, W]``.

    Args:
        matrix: Interactions.
        l2: Ridge penalty.
        prior: What is added to their Gram matrix.
        dtype: Precision of the solve; single halves time and memory for tens of thousands of items.

    Raises:
        ConfigError: ``l2`` is not positive.
        TrainingError: The prior takes away more than ``l2`` adds.
    """
    check_positive(l2=l2)
    gram = (matrix.T @ matrix).toarray().astype(dtype, copy=False)
    if prior is not None:
        gram += prior
    gram[np.diag_indices_from(gram)] += l2
    try:
        inverse = scipy.linalg.inv(gram, overwrite_a=True, assume_a="pos")
    except scipy.linalg.LinAlgError:
        raise TrainingError(
            "EASE's matrix of items is not positive definite",
            got=f"l2={l2:g}",
            fix="raise l2, or lower graph_weight where the model has one",
        ) from None
    # LAPACK leaves columns together; a product with sparse rows would copy all of it each time.
    weights: FloatArray = np.ascontiguousarray(-inverse / np.diag(inverse), dtype=np.float32)
    np.fill_diagonal(weights, 0)
    return weights
