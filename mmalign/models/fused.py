"""A trained graph model and a closed form, ranked together from one artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import Features, FloatArray, IntArray
from mmalign.models.base import Arrays, TrainData
from mmalign.models.calibration import Calibration
from mmalign.models.checks import check_within
from mmalign.models.graph_ease import GraphEase, GraphEaseConfig
from mmalign.models.neural.base import part
from mmalign.models.neural.freedom import Freedom, FreedomConfig

__all__ = ["Fused", "FusedConfig"]


@dataclass(frozen=True)
class FusedConfig(FreedomConfig):
    """FREEDOM's settings, and those of the closed form beside it.

    Attributes:
        network_weight: Of the network's scores next to the closed form's, both in the unit of
            their deviation over a user's warm items.
        closed_form: EASE with the item graph.

    Raises:
        ConfigError: A number is out of its range.
    """

    embedding_dim: int = 128
    learning_rate: float = 3e-3
    batch_size: int = 4096
    l2: float = 2e-2
    network_weight: float = 1.5
    closed_form: GraphEaseConfig = field(default_factory=GraphEaseConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_within("[0, inf)", network_weight=self.network_weight)


class Fused(Freedom):
    """FREEDOM and EASE with an item graph: what is learned step by step and what is solved.

    The two err differently, above all where interactions are few: their standardised scores are
    added. Validation measures the sum, so the network stops where it helps the closed form most.
    """

    config: FusedConfig
    closed_form: GraphEase

    @classmethod
    def can_fit(cls, *, features: bool, neighbours: bool) -> bool:
        """Interactions alone will do."""
        return True

    def prepare(self, data: TrainData) -> None:
        """Solve the closed form, then build the network."""
        self.closed_form = GraphEase(self.config.closed_form).fit(data)
        super().prepare(data)

    def read_content(self, data: TrainData) -> None:
        """Fit the content input if there is content: the network does without as well."""
        if data.features:
            super().read_content(data)

    def link(self, data: TrainData) -> SparseOperator:
        """Link warm items by content, ``[W, W]``; no links without any."""
        if data.features or data.neighbours:
            return super().link(data)
        count = int(self.warm.sum())
        return SparseOperator(sp.csr_matrix((count, count), dtype=np.float32))

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """The weighted sum of network and closed form, standardised per user."""
        everything = np.arange(len(self.warm))
        parts = {
            "network": super().score(history, everything),
            "closed_form": self.closed_form.score(history, everything),
        }
        weights = Calibration({"network": self.config.network_weight, "closed_form": 1.0})
        fused = weights.apply(parts, self.warm)
        fused[:, ~self.warm] = 0
        return fused[:, items]

    def arrays(self) -> Arrays:
        """The network's vectors beside the closed form's weights."""
        closed = {f"closed_form.{name}": x for name, x in self.closed_form.arrays().items()}
        return super().arrays() | closed

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        super().load_arrays(arrays)
        self.closed_form = GraphEase(self.config.closed_form)
        self.closed_form.load_arrays(part(arrays, "closed_form."))
        return self

    def _append(self, features: Features, count: int) -> None:
        super()._append(features, count)
        self.closed_form.warm = self.warm
