"""The aligned model: content projected into the interaction graph, fused with its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mmalign.graph.knn import content_knn
from mmalign.graph.operators import fold_in_degree
from mmalign.graph.propagation import SparseOperator
from mmalign.interfaces import BoolArray, Feature, Features, FloatArray, IntArray
from mmalign.models.base import Arrays, Model, TrainData, part
from mmalign.models.calibration import Calibration
from mmalign.models.checks import check_within
from mmalign.models.closed_form import CollectiveConfig, KernelRidge
from mmalign.models.kernel import ContentKernel
from mmalign.models.network import AlignedNetwork, ItemInput

__all__ = ["Aligned", "AlignedConfig"]

_RANGES = {
    "[1, inf)": (
        *("embedding_dim", "hidden_dim", "fused_dim", "num_layers"),
        *("batch_size", "settle_steps"),
    ),
    "[0, inf)": (
        *("negatives", "weight_decay", "appeal"),
        *("neighbours", "neighbour_weight"),
        *("content_weight", "alignment_weight", "distillation_weight"),
    ),
    "(0, inf)": ("learning_rate",),
    "[0, 1)": ("content_dropout", "modality_dropout", "cold_share", "average"),
    "[0, 1]": ("id_dropout",),
    "(0, 1)": ("supervision",),
    "[0.01, 1]": ("temperature",),
}


@dataclass(frozen=True)
class AlignedConfig:
    """The aligned network, its teacher, and how they are trained.

    Attributes:
        embedding_dim: Width of user and item vectors.
        hidden_dim: Width of the content tower's hidden layer.
        fused_dim: Leading directions of the teacher's content kernel that the tower sees.
        layer: Propagation layer.
        num_layers: Rounds of user-item message passing.
        neighbours: Warm items nearest in content that an item hears; 0 for none.
        neighbour_weight: Weight of their mean beside the item itself.
        content_dropout: Dropout on the tower's input.
        modality_dropout: Probability that an item's modality is hidden in a step.
        id_dropout: Probability that a warm item's id residual is hidden in a step.
        cold_share: Share of warm items that play cold in a step: no id, no edges.
        supervision: Share of a user's interactions that are predicted, and out of message passing.
        temperature: Of the cosine softmax, at the start.
        learn_temperature: Whether it is trained or stays fixed.
        negatives: Items sampled per step, with logQ correction; 0 is a softmax over all items.
        content_weight: Weight of ranking by content alone.
        alignment_weight: Weight of InfoNCE between each modality's projection and the graph.
        distillation_weight: Weight of matching the teacher's soft ranking.
        appeal: How far the network moves a cold item, in the deviation of a user's own scores, for
            each deviation of the popularity that content lets expect; the teacher has its own.
        learning_rate: Of AdamW.
        settle_steps: Steps after which the rate of all but ids falls, to ``settle_steps / step`` of
            ``learning_rate``: content is learned soon, and would go on to follow the ids.
        average: Share of the running mean of weights that stays at a step; the mean is what ranks.
        weight_decay: On projections.
        batch_size: Users per step.
        teacher: The closed form that is distilled and fused.

    Raises:
        ConfigError: A number is out of its range.
    """

    embedding_dim: int = 128
    hidden_dim: int = 512
    fused_dim: int = 768
    layer: Literal["lightgcn", "gcn", "gat", "sage"] = "lightgcn"
    num_layers: int = 2
    neighbours: int = 10
    neighbour_weight: float = 0.3
    content_dropout: float = 0.2
    modality_dropout: float = 0.1
    id_dropout: float = 0.5
    cold_share: float = 0.2
    supervision: float = 0.4
    temperature: float = 0.15
    learn_temperature: bool = True
    negatives: int = 0
    content_weight: float = 1.0
    alignment_weight: float = 0.1
    distillation_weight: float = 0.0
    appeal: float = 0.6
    learning_rate: float = 1e-3
    settle_steps: int = 120
    average: float = 0.95
    weight_decay: float = 1e-2
    batch_size: int = 1024
    teacher: CollectiveConfig = field(default_factory=CollectiveConfig)

    def __post_init__(self) -> None:
        for interval, names in _RANGES.items():
            check_within(interval, **{f"model.aligned.{n}": getattr(self, n) for n in names})


class Aligned(Model[AlignedConfig]):
    """Content and behaviour in one space, ranked together with a closed-form teacher.

    :meth:`fit` prepares teacher, content and an untrained network; :mod:`mmalign.trainers` trains
    it and calls :meth:`freeze`, which stores the item states that ranking reads. The parts of a
    score are ``network``, a cosine, and ``teacher``, kernel ridge; the weights between them and
    the scale of cold scores are chosen on valid.
    """

    serves_cold: ClassVar[bool] = True
    uses_content: ClassVar[bool] = True
    learned = ("warm", "degree", "contents", "vectors", "layers")
    degree: FloatArray
    contents: FloatArray
    vectors: FloatArray
    layers: FloatArray
    teacher: KernelRidge
    network: AlignedNetwork
    similar: sp.csr_matrix

    def fit(self, data: TrainData) -> Self:
        """Prepare all but the network's training; its weights start from torch's seed."""
        self.warm = data.warm
        self.teacher = KernelRidge(self.config.teacher).fit(data)
        self.degree = np.asarray(data.matrix.sum(axis=0), np.float32).ravel()
        self.network = self._new_network(int(self.warm.sum()))
        self.similar = self._find_similar(np.ones(len(self.warm), dtype=bool))
        self.freeze(data)
        return self

    @property
    def kernel(self) -> ContentKernel:
        """The content kernel, which the teacher owns."""
        return self.teacher.kernel

    def item_input(self, features: Features, fused: FloatArray) -> ItemInput:
        """Frozen content of items, as the network reads it.

        Shapes:
            features: Modality to ``[N, D]``; fused: ``[N, Z]``, the kernel's features of them.
        """
        unit = self.kernel.unit(features)
        leading = np.ascontiguousarray(fused[:, : self.config.fused_dim])
        return ItemInput(
            torch.from_numpy(leading),
            {name: torch.from_numpy(x.values) for name, x in unit.items()},
            {name: torch.from_numpy(x.present) for name, x in unit.items()},
        )

    @torch.no_grad()
    def freeze(self, data: TrainData) -> Self:
        """Store every item's states under the network's present weights and the train graph.

        Shapes:
            contents: ``[I, D]``, items by content before they hear anything.
            vectors: ``[I, D]`` unit rows.
            layers: ``[L, I, D]``, what users read in each round.
        """
        self.network.eval()
        items = self.item_input(data.features, self.teacher.content)
        content = self.network.content(items.to(self._device))
        self.contents = content.cpu().numpy()
        start = self.network.hear_neighbours(content, SparseOperator(self.similar))
        start[torch.from_numpy(self.warm)] += self.network.ids
        states = self.network.propagate(start, SparseOperator(data.matrix))
        self.vectors = states.items.cpu().numpy()
        self.layers = torch.stack(states.layers).cpu().numpy()
        return self

    @torch.no_grad()
    def user_vectors(self, history: sp.csr_matrix) -> FloatArray:
        """Place users by history, seen in training or not, ``[B, D]`` unit rows."""
        graph = SparseOperator(sp.csr_matrix(history), column_degree=fold_in_degree(self.degree))
        layers = tuple(torch.from_numpy(self.layers).to(self._device))
        return self.network.read_users(layers, graph).cpu().numpy()

    def network_scores(self, history: sp.csr_matrix) -> FloatArray:
        """Cosines of users and all items, ``[B, I]``; cold ones moved by ``appeal``."""
        scores = self.user_vectors(history) @ self.vectors.T
        spread = scores[:, self.warm].std(axis=1, keepdims=True)
        expected = self.teacher.content[~self.warm] @ self.teacher.popularity
        scores[:, ~self.warm] += self.config.appeal * spread * expected
        return scores

    def components(self, history: sp.csr_matrix) -> dict[str, FloatArray]:
        """Scores of all items by the network and by the teacher, ``[B, I]`` each."""
        everything = np.arange(len(self.warm))
        return {
            "network": self.network_scores(history),
            "teacher": self.teacher.score(history, everything),
        }

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Network and teacher in equal parts; a recommender applies what was chosen on valid."""
        return Calibration().apply(self.components(history), self.warm)[:, items]

    def item_vectors(self) -> FloatArray:
        """``[I, D]`` unit rows."""
        return self.vectors

    @torch.no_grad()
    def _append(self, features: Features, count: int) -> None:
        self.teacher.add_items(features, count)
        new = self.teacher.content[len(self.vectors) :]
        content = self.network.content(self.item_input(features, new))
        self.contents = np.concatenate([self.contents, content.numpy()])
        similar = SparseOperator(self._find_similar(np.arange(len(self.warm)) >= len(self.vectors)))
        start = self.network.hear_neighbours(torch.from_numpy(self.contents), similar)
        states = self.network.propagate(start, SparseOperator(sp.csr_matrix((1, count))))
        self.degree = np.concatenate([self.degree, np.zeros(count, np.float32)])
        self.vectors = np.concatenate([self.vectors, states.items.numpy()])
        self.layers = np.concatenate([self.layers, torch.stack(states.layers).numpy()], axis=1)

    @torch.no_grad()
    def _hear(self, history: sp.csr_matrix, items: IntArray, taken: sp.csr_matrix) -> None:
        """Pass messages to the items along the revealed edges; the users keep their states."""
        self.teacher._hear(history, items, taken)
        graph = SparseOperator(sp.csr_matrix(history), column_degree=fold_in_degree(self.degree))
        edges = SparseOperator(taken, column_degree=_sums(history))
        state = placed = torch.from_numpy(self.layers[0, items])
        users = torch.zeros(graph.shape[0], self.config.embedding_dim)
        layers = self.layers.copy()
        for number, stored in enumerate(torch.from_numpy(self.layers)):
            layers[number, items] = state.numpy()
            users = self.network.to_user[number](stored, users, graph)
            state = self.network.to_item[number](users, state, edges)
            placed = placed + state
        self.layers, self.vectors, self.degree = layers, self.vectors.copy(), self.degree.copy()
        self.vectors[items] = F.normalize(placed, dim=1).numpy()
        self.degree[items] = _sums(taken)

    def arrays(self) -> Arrays:
        """Item states, the network's weights and the teacher."""
        weights = {f"network.{k}": v.numpy() for k, v in self.network.state_dict().items()}
        teacher = {f"teacher.{k}": v for k, v in self.teacher.arrays().items()}
        return super().arrays() | weights | teacher

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        super().load_arrays(arrays)
        self.teacher = KernelRidge(self.config.teacher).load_arrays(part(arrays, "teacher."))
        weights = {k: torch.tensor(v) for k, v in part(arrays, "network.").items()}
        self.network = self._new_network(len(weights["ids"]))
        self.network.load_state_dict(weights)
        self.network.eval()
        return self

    def _find_similar(self, items: BoolArray) -> sp.csr_matrix:
        """Warm items nearest in content, ``[M, I]`` cosines for the M chosen items."""
        content = self.teacher.content[:, : self.config.fused_dim]
        if not self.config.neighbours:
            return sp.csr_matrix((int(items.sum()), len(items)), dtype=np.float32)
        feature = Feature(content, np.asarray(content.any(axis=1)))
        nearest = content_knn(feature, self.config.neighbours, sources=self.warm, targets=items)
        return nearest[items]

    @property
    def _device(self) -> torch.device:
        """Where the network is: on an accelerator while it trains there."""
        return self.network.ids.device

    def _new_network(self, num_warm: int) -> AlignedNetwork:
        widths = {name: len(self.kernel.means[name]) for name in self.kernel.modalities}
        fused = min(self.config.fused_dim, self.kernel.dim)
        return AlignedNetwork(self.config, num_warm, fused, widths)


def _sums(matrix: sp.csr_matrix) -> FloatArray:
    """``[N]`` sums of the rows."""
    return np.asarray(matrix.sum(axis=1), np.float32).ravel()
