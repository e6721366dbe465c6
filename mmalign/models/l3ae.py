"""EASE whose weights are drawn towards those that content alone would give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError
from mmalign.interfaces import FloatArray
from mmalign.models.base import TrainData
from mmalign.models.checks import check_positive
from mmalign.models.closed_form import ease_weights
from mmalign.models.item_weights import ItemWeights
from mmalign.models.kernel import KernelConfig

__all__ = ["L3AE", "L3AEConfig", "distilled_weights"]


@dataclass(frozen=True)
class L3AEConfig:
    """L3AE.

    Attributes:
        l2: Penalty on the weights, in interactions; the authors go below zero too.
        distillation: Penalty on the distance to the weights of content.
        content_l2: Penalty on the weights of content themselves.
        kernel: How modalities make one similarity.

    Raises:
        ConfigError: ``distillation`` or ``content_l2`` is not positive, or ``l2`` takes away all
            that ``distillation`` adds.
    """

    l2: float = 50.0
    distillation: float = 150.0
    content_l2: float = 10.0
    kernel: KernelConfig = field(default_factory=KernelConfig)

    def __post_init__(self) -> None:
        check_positive(distillation=self.distillation, content_l2=self.content_l2)
        if not 0 < self.l2 + self.distillation < np.inf:
            raise ConfigError(
                "l2 + distillation must be positive",
                got=(self.l2, self.distillation),
                fix="raise l2",
            )


class L3AE(ItemWeights[L3AEConfig]):
    """L3AE (Moon, Park and Lee 2025, "LLM-enhanced linear autoencoders", arXiv 2508.13500).

    First EASE on content, each item regressed on the features of the others, gives weights ``C``.
    Then ``min |X - X B|^2 + l2 |B|^2 + distillation |B - C|^2`` with a zero diagonal, which has
    the closed form of :func:`distilled_weights`. The authors' content is the text embedding of a
    language model; here it is the kernel of all modalities.

    The paper has no cold items. The same two steps continue to them: content regresses a cold item
    on the warm ones, and without anybody who could have taken it the second step has its last two
    terms alone, hence ``distillation / (l2 + distillation) C``. (An empty column of ``X`` instead
    would read as the dislike of all users; on valid of the films it is far worse.)
    """

    def fit(self, data: TrainData) -> Self:
        """Solve both steps."""
        self.fit_content(data)
        config, z = self.config, self.content[data.warm].astype(np.float64)
        gram = z @ z.T
        teacher = ease_weights(sp.csr_matrix((0, len(z))), config.content_l2, prior=gram)
        matrix = data.matrix[:, data.warm]
        self.weights = distilled_weights(
            (matrix.T @ matrix).toarray(), teacher, config.l2, config.distillation
        )
        gram[np.diag_indices_from(gram)] += config.content_l2
        shrink = config.distillation / (config.l2 + config.distillation)
        regressed = scipy.linalg.solve(gram, z, assume_a="pos", overwrite_a=True)
        self.to_content = (shrink * regressed).astype(np.float32)
        self.average = np.zeros(len(z), np.float32)  # no intercept: nothing tells of no content
        return self


def distilled_weights(
    gram: NDArray[np.floating], teacher: FloatArray, l2: float, distillation: float
) -> FloatArray:
    """Solve ``min |X - X B|^2 + l2 |B|^2 + distillation |B - C|^2`` with a zero diagonal.

    With ``P = (X'X + (l2 + distillation) I)^-1`` and one multiplier per item for the diagonal,
    ``B = I + distillation P C - P diag((1 + distillation diag(P C)) / diag(P))``; without a
    teacher, EASE.

    Shapes:
        gram: ``[W, W]``, ``X'X``; teacher: ``[W, W]``, ``C``; returns ``[W, W]``.

    Example:
        >>> gram, teacher = np.array([[2.0, 1.0], [1.0, 2.0]]), np.zeros((2, 2), np.float32)
        >>> distilled_weights(gram, teacher, l2=1.0, distillation=1.0)
        array([[0.  , 0.25],
               [0.25, 0.  ]], dtype=float32)
    """
    penalised = gram.astype(np.float64)
    penalised[np.diag_indices_from(penalised)] += l2 + distillation
    inverse = scipy.linalg.inv(penalised, overwrite_a=True)
    pulled = distillation * (inverse @ teacher)
    multipliers = (1 + np.diag(pulled)) / np.diag(inverse)
    weights: FloatArray = (pulled - inverse * multipliers).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return weights
