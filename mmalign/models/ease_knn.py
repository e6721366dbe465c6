"""EASE mixed with a graph of content neighbours, the strongest simple hybrid of the two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import scipy.sparse as sp

from mmalign.errors import ConfigError
from mmalign.graph.knn import content_knn
from mmalign.interfaces import Feature, FloatArray
from mmalign.models.base import TrainData
from mmalign.models.checks import check_positive
from mmalign.models.closed_form import ease_weights
from mmalign.models.item_weights import ItemWeights
from mmalign.models.kernel import KernelConfig
from mmalign.models.neighbours import normalised

__all__ = ["EaseKNN", "EaseKNNConfig", "mix"]


@dataclass(frozen=True)
class EaseKNNConfig:
    """EASE, one and two steps over content neighbours, and the steps of one after the other.

    Attributes:
        l2: EASE's penalty, in interactions.
        regularization: Ridge penalty on content, for cold items.
        kernel: How modalities make one similarity.
        neighbours: Warm content neighbours per warm item.
        content: Weight of ``S``, the normalised neighbour graph.
        ease_content: Weight of ``B S``: neighbours of what EASE recommends.
        content_ease: Weight of ``S B``: what EASE recommends for neighbours of the history.
        content_content: Weight of ``S S``: neighbours of neighbours.

    Raises:
        ConfigError: A penalty or ``neighbours`` is not positive, or a weight is not finite.
    """

    l2: float = 150.0
    regularization: float = 5.0
    kernel: KernelConfig = field(default_factory=KernelConfig)
    neighbours: int = 10
    content: float = 0.1
    ease_content: float = 0.3
    content_ease: float = 0.15
    content_content: float = 0.05

    def __post_init__(self) -> None:
        check_positive(l2=self.l2, regularization=self.regularization, neighbours=self.neighbours)
        for name in ("content", "ease_content", "content_ease", "content_content"):
            if not np.isfinite(getattr(self, name)):
                raise ConfigError(
                    f"{name} must be finite", got=getattr(self, name), fix="0 leaves the term out"
                )


class EaseKNN(ItemWeights[EaseKNNConfig]):
    """Score by ``r_u (B + a S + b B S + c S B + d S S)``, continued to cold items by ridge.

    ``B`` are EASE's weights (Steck 2019, arXiv 1905.03375)
    and ``S`` the symmetric, normalised top-k cosine graph of content between warm items, near the
    item graph of Zhang et al. 2021 ("Mining latent structures for multimedia recommendation",
    arXiv 2104.09036). Cold items are served by ridge regression of the mixed weights on
    content, with an intercept.
    """

    def fit(self, data: TrainData) -> Self:
        """Solve EASE, mix it with the content graph, and regress the mixture on content."""
        self.fit_content(data)
        z = self.content[data.warm]
        ease = ease_weights(data.matrix[:, data.warm], self.config.l2)
        graph = content_knn(Feature(z, (z != 0).any(axis=1)), self.config.neighbours)
        graph = graph.maximum(graph.T)  # neighbours if either is among the other's nearest
        self.weights = mix(ease, normalised(graph.tocsr()), self.config)
        self.regress(self.config.regularization)
        return self


def mix(ease: FloatArray, graph: sp.csr_matrix, config: EaseKNNConfig) -> FloatArray:
    """Add up ``B + a S + b B S + c S B + d S S``.

    Shapes:
        ease: ``[W, W]``; graph: ``[W, W]`` sparse and symmetric; returns ``[W, W]``.
    """
    mixed = ease + config.ease_content * (graph @ ease.T).T + config.content_ease * (graph @ ease)
    mixed += (config.content * graph + config.content_content * (graph @ graph)).toarray()
    return np.asarray(mixed, np.float32)
