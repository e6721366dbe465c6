"""Trained graph models and a closed form, ranked together from one artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.graph.knn import combine_knn
from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import Features, FloatArray, IntArray
from mmalign.models.base import Arrays, TrainData, part
from mmalign.models.calibration import Calibration
from mmalign.models.checks import check_positive, check_within
from mmalign.models.closed_form import pick_warm
from mmalign.models.graph_ease import GraphEase, GraphEaseConfig
from mmalign.models.neural.base import Triplets
from mmalign.models.neural.freedom import Freedom, FreedomConfig, FreedomNetwork, bpr
from mmalign.models.neural.graphs import taken_together
from mmalign.objectives import ranking

__all__ = ["Fused", "FusedConfig"]


Loss = Literal["bpr", "softmax"]
SHARED = 1024
"""Items of a batch that all its interactions are set against in the softmax."""


@dataclass(frozen=True)
class FusedConfig(FreedomConfig):
    """FREEDOM's settings, and those of the closed form beside it.

    Attributes:
        losses: Of the networks that are trained side by side from different starts: pairs of items
            (``bpr``) or a softmax over the batch's items (``softmax``). Their scores are added.
        temperature: Of the softmax's cosines.
        taken_together: Weight of links between items that the same users took, as many as
            ``neighbours`` and an item itself, next to content's; all of it where there is none.
        network_weight: Of the networks' scores next to the closed form's, both in the unit of
            their deviation over a user's warm items.
        closed_form: EASE with the item graph.

    Raises:
        ConfigError: A number is out of its range, or a loss is unknown.
    """

    embedding_dim: int = 128
    learning_rate: float = 3e-3
    batch_size: int = 4096
    l2: float = 2e-2
    losses: tuple[Loss, ...] = ("bpr", "bpr", "softmax")
    temperature: float = 0.2
    taken_together: float = 0.3
    network_weight: float = 2.7
    closed_form: GraphEaseConfig = field(default_factory=GraphEaseConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.losses or not set(self.losses) <= {"bpr", "softmax"}:
            raise ConfigError(
                "losses must name bpr or softmax, one or several",
                got=self.losses,
                fix="write [bpr, bpr, softmax]",
            )
        check_positive(temperature=self.temperature)
        check_within("[0, inf)", network_weight=self.network_weight)
        check_within("[0, 1]", taken_together=self.taken_together)


class Fused(Freedom):
    """FREEDOM networks and EASE with an item graph: what is learned and what is solved.

    They err differently, above all where interactions are few: networks differ by their start, by
    which edges are left out and by their loss, and from the closed form by much more. Standardised
    scores are added. Validation measures the sum, so the networks stop where they help most.
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
        graphs = {"content": super().link(data).csr, "together": together.csr}
        return SparseOperator(combine_knn(graphs, {"content": 1 - share, "together": share}))

    def build(self, num_users: int, num_items: int) -> nn.ModuleList:
        """All networks, each with its own start."""
        return nn.ModuleList([self.new_network(num_users, num_items) for _ in self.config.losses])

    def begin_epoch(self, rng: np.random.Generator) -> None:
        """Thin the interactions for each network."""
        self.graphs = [self.thin(rng) for _ in self.network]

    def loss(self, batch: Triplets) -> dict[str, Tensor]:
        """Terms of all networks, added up."""
        total: dict[str, Tensor] = {}
        for loss, network, graph in zip(
            self.config.losses, self.members(), self.graphs, strict=True
        ):
            rank = self._softmax if loss == "softmax" else bpr
            for name, term in self.loss_of(network, graph, batch, rank).items():
                total[name] = total[name] + term if name in total else term
        return total

    def _softmax(self, users: Tensor, items: Tensor, batch: Triplets) -> dict[str, Tensor]:
        """Set each positive against the same sample of items, by cosine."""
        rows, places = F.normalize(users[batch.users], dim=1), F.normalize(items, dim=1)
        shared = batch.negatives.flatten()[:SHARED]
        positive = (rows * places[batch.positives]).sum(dim=1)
        term = ranking.sampled_softmax(
            positive / self.config.temperature,
            rows @ places[shared].T / self.config.temperature,
            negative_is_positive=shared == batch.positives[:, None],
        )
        return {"softmax": term}

    def embed(self) -> tuple[Tensor, Tensor]:
        """Vectors of all networks side by side: inner products are the sum of theirs.

        A user's vectors are scaled such that the scores of each network deviate by one over items;
        the items' are as each network has them.
        """
        sides = []
        for loss, network in zip(self.config.losses, self.members(), strict=True):
            users, items = self.embed_by(network, self.graph)
            if loss == "softmax":
                items = F.normalize(items, dim=1)
            centred = items - items.mean(dim=0)
            variance = (users @ (centred.T @ centred / len(items)) * users).sum(dim=1, keepdim=True)
            deviation = variance.clamp_min(0).sqrt()
            sides.append((users / torch.where(deviation > 1e-6, deviation, 1.0), items))
        return torch.cat([u for u, _ in sides], dim=1), torch.cat([i for _, i in sides], dim=1)

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
