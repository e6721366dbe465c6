"""Joint training of an encoder and the interaction graph, with a memory of encoded items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmalign.errors import DataError
from mmalign.graph.operators import SparseOperator, keep_edges
from mmalign.interfaces import IntArray, Media, Tower
from mmalign.models.neural.graphs import propagate
from mmalign.objectives.contrast import behaviour_loss
from mmalign.trainers.finetuning.gather import gather_rows, share_of_mean
from mmalign.trainers.finetuning.halves import Half, Scale
from mmalign.trainers.finetuning.validation import encode_rows

__all__ = ["GraphContrast"]

LAYERS = 2


class GraphContrast(nn.Module):
    """Predicts who takes an item from what its content says, through the graph.

    Item rows pass the user-item graph as in AlphaRec (Sheng et al., 2024, arXiv:2407.05441): a user
    starts as the mean of their items, LightGCN spreads both, and a user is to find the item taken
    among those of the batch. The interaction that is asked for passes no message. Only the items of
    a batch are encoded; all others are remembered as they were when they last were in one. How old
    the memory is, and how far a remembered row lies from the new one, is in :attr:`reports`.

    Args:
        modality: Whose tower reads the items.
        weight: Of the term.
        matrix: Train interactions, ``[U, I]``.
        tower: Encodes all warm items once, at the start.
        content: Of each item.
        seed: Of the draws.

    Attributes:
        reports: ``memory_age`` in steps, and ``staleness``, 1 less the cosine of old and new rows.

    Shapes:
        memory: ``[I, D]``, unit rows; age: ``[I]``, steps.
    """

    memory: Tensor
    age: Tensor

    def __init__(
        self,
        modality: str,
        weight: float,
        matrix: sp.csr_matrix,
        tower: Tower,
        content: Sequence[Media | None],
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.name, self.weight, self.halves = f"graph.{modality}", weight, (modality,)
        warm = matrix.getnnz(axis=0) > 0
        shown = [value if is_warm else None for value, is_warm in zip(content, warm, strict=True)]
        rows, present, _ = encode_rows(tower, shown)
        self._readable = np.flatnonzero(present)
        if len(self._readable) < 2:
            raise DataError(
                f"the objective graph needs two warm items with {modality} that can be read",
                got=len(self._readable),
                fix="check the columns of the data section",
            )
        self.register_buffer("memory", rows)
        self.register_buffer("age", torch.zeros(len(rows), dtype=torch.long))
        self.size = len(self._readable)
        self._matrix = sp.csr_matrix(matrix)
        self._takers = sp.csc_matrix(matrix)
        count = matrix.getnnz(axis=0)
        self._log_q = torch.from_numpy(
            np.log(np.maximum(count, 1) / count.sum()).astype(np.float32)
        )
        self._seed = seed
        self.reports: dict[str, float] = {}

    def draw(self, epoch: int, count: int) -> IntArray:
        """Items in an order of the epoch's own, ``[count, 1]``."""
        rng = np.random.default_rng([self._seed, epoch])
        orders = [rng.permutation(self._readable) for _ in range(-(-count // self.size))]
        return np.concatenate(orders)[:count, None].astype(np.int64)

    def loss(self, scale: Scale, encoded: Sequence[Tensor], halves: Sequence[Half]) -> Tensor:
        """A taker of each item is to find it."""
        rows, fresh = halves[0].rows, F.normalize(encoded[0], dim=1)
        at = torch.from_numpy(rows).to(fresh.device)
        self._report(at, fresh)
        items = self.memory.index_copy(0, at, fresh)
        users, messages = self._ask(rows)
        graph = SparseOperator(messages)
        found, _ = propagate(graph.mean @ items, items, graph, LAYERS)
        answers, offset = gather_rows(fresh)
        all_at = gather_rows(at)[0]
        answer_rows = all_at.cpu().numpy()
        taken = torch.from_numpy((self._matrix[users][:, answer_rows] > 0).toarray())
        loss = behaviour_loss(
            found[torch.from_numpy(users).to(fresh.device)],
            answers,
            1 / scale.temperature(),
            positives=taken.to(fresh.device),
            log_q=self._log_q[answer_rows].to(fresh.device),
            offset=offset,
        )
        # Of all processes: each one's memory is the first one's again before the next step.
        self.memory[all_at] = answers.detach().to(self.memory)
        self.age += 1
        self.age[all_at] = 0
        return loss * share_of_mean(len(fresh), len(answers))

    def _ask(self, rows: IntArray) -> tuple[IntArray, sp.csr_matrix]:
        """A random taker of each item, and the interactions without those that are asked for."""
        starts, ends = self._takers.indptr[rows], self._takers.indptr[rows + 1]
        drawn = torch.rand(len(rows)).numpy()
        users = self._takers.indices[starts + (drawn * (ends - starts)).astype(np.int64)]
        edge_users = np.repeat(np.arange(self._matrix.shape[0]), np.diff(self._matrix.indptr))
        edges = edge_users.astype(np.int64) * self._matrix.shape[1] + self._matrix.indices
        asked = users.astype(np.int64) * self._matrix.shape[1] + rows
        return users.astype(np.int64), keep_edges(self._matrix, ~np.isin(edges, asked))

    def _report(self, at: Tensor, fresh: Tensor) -> None:
        old = self.memory[at]
        known = torch.from_numpy(self._readable).to(self.age.device)
        self.reports = {
            "memory_age": float(self.age[known].float().mean()),
            "staleness": float(1 - (old * fresh.detach()).sum(dim=1).mean()),
        }


def reports_of(objectives: Mapping[str, object]) -> dict[str, float]:
    """What objectives tell beside their loss, under ``<objective>/``."""
    return {
        f"{name}/{key}": value
        for name, objective in objectives.items()
        for key, value in getattr(objective, "reports", {}).items()
    }
