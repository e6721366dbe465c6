"""Trained graph models and a closed form, ranked together from one artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import Features, FloatArray, IntArray
from mmalign.models.base import Arrays, TrainData
from mmalign.models.calibration import Calibration
from mmalign.models.checks import check_positive, check_within
from mmalign.models.closed_form import pick_warm
from mmalign.models.graph_ease import GraphEase, GraphEaseConfig
from mmalign.models.neural.base import Triplets, part
from mmalign.models.neural.freedom import Freedom, FreedomConfig, FreedomNetwork
from mmalign.models.neural.graphs import taken_together

__all__ = ["Fused", "FusedConfig"]


@dataclass(frozen=True)
class FusedConfig(FreedomConfig):
    """FREEDOM's settings, and those of the closed form beside it.

    Attributes:
        networks: Trained side by side from different starts; their scores are added.
        taken_together: Weight of links between items that the same users took, next to content's;
            all of it where there is no content.
        network_weight: Of the networks' scores next to the closed form's, both in the unit of
            their deviation over a user's warm items.
        closed_form: EASE with the item graph.

    Raises:
        ConfigError: A number is out of its range.
    """

    embedding_dim: int = 128
    learning_rate: float = 3e-3
    batch_size: int = 4096
    negatives: int = 4
    l2: float = 2e-2
    networks: int = 2
    taken_together: float = 0.3
    network_weight: float = 3.0
    closed_form: GraphEaseConfig = field(default_factory=GraphEaseConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(networks=self.networks)
        check_within("[0, inf)", network_weight=self.network_weight)
        check_within("[0, 1]", taken_together=self.taken_together)


class Fused(Freedom):
    """FREEDOM networks and EASE with an item graph: what is learned and what is solved.

    They err differently, above all where interactions are few: two networks differ by their start
    and by which edges are left out, and network and closed form by much more. Standardised scores
    are added. Validation measures the sum, so the networks stop where they help most.
    """

    config: FusedConfig
    network: nn.ModuleList  # type: ignore[assignment]
    graphs: list[SparseOperator]
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
        """Link warm items by content and by who took them, ``[W, W]``."""
        together = taken_together(data.matrix[:, self.warm], self.config.neighbours)
        if not (data.features or data.neighbours):
            return together
        share = self.config.taken_together
        mixed = (1 - share) * super().link(data).csr + share * together.csr
        return SparseOperator(sp.csr_matrix(mixed, dtype=np.float32))

    def build(self, num_users: int, num_items: int) -> nn.ModuleList:
        """All networks, each with its own start."""
        count = self.config.networks
        return nn.ModuleList([self.new_network(num_users, num_items) for _ in range(count)])

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Thin the interactions for each network."""
        self.graphs = [self.thin(rng) for _ in self.network]

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """Terms of all networks, added up."""
        every = [
            self.loss_of(network, graph, batch)
            for network, graph in zip(self.members(), self.graphs, strict=True)
        ]
        return {name: torch.stack([terms[name] for terms in every]).sum() for name in every[0]}

    def embed(self) -> tuple[Tensor, Tensor]:
        """Vectors of all networks side by side: inner products are the sum of theirs."""
        users, items = zip(*(self.embed_by(n, self.graph) for n in self.members()), strict=True)
        return torch.cat(users, dim=1), torch.cat(items, dim=1)

    def members(self) -> list[FreedomNetwork]:
        """The networks one by one."""
        return cast("list[FreedomNetwork]", list(self.network))

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """The weighted sum of network and closed form, standardised per user."""
        parts = {
            "network": self.user_vectors(history) @ self.vectors[self.warm].T,
            "closed_form": self.closed_form.warm_scores(history),
        }
        weights = Calibration({"network": self.config.network_weight, "closed_form": 1.0})
        fused = weights.apply(parts, np.ones(len(parts["network"].T), dtype=bool))
        return pick_warm(fused, self.warm, items)

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
