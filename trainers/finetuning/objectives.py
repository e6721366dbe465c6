"""What is asked of encoders: which items stand together, and how their rows are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mmalign.data.catalog import Catalog
from mmalign.data.stream import ItemStream
from mmalign.errors import ConfigError, DataError
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import IntArray, Tower
from mmalign.objectives.contrast import behaviour_loss, clip_loss, same_content, siglip_loss
from mmalign.trainers.finetuning.contents import Contents
from mmalign.trainers.finetuning.gather import gather_rows, share_of_mean
from mmalign.trainers.finetuning.graph import GraphContrast
from mmalign.trainers.finetuning.halves import Half, Objective, Scale
from mmalign.trainers.finetuning.pairs import CoInteractions, ItemPairs, StreamedPairs

__all__ = ["BehaviourContrast", "PairContrast", "make_objectives"]


class Pairs(Protocol):
    """Items that have both views."""

    size: int

    def draw(self, epoch: int, count: int) -> IntArray:
        """Item rows ``[count, 2]`` of an epoch."""
        ...


class PairContrast:
    """Two views of one item are partners, in both directions.

    Args:
        name: ``image_text`` or ``text_pairs``.
        weight: Of the term.
        halves: The views.
        pairs: Items that have both.
        sigmoid: Whether pairs are judged one by one (SigLIP) rather than against each other (CLIP).
    """

    def __init__(
        self, name: str, weight: float, halves: tuple[str, str], pairs: Pairs, *, sigmoid: bool
    ) -> None:
        self.name, self.weight, self.halves, self.size = name, weight, halves, pairs.size
        self._pairs, self._sigmoid = pairs, sigmoid

    def draw(self, epoch: int, count: int) -> IntArray:
        """Items of an epoch, each twice."""
        return self._pairs.draw(epoch, count)

    def loss(self, scale: Scale, encoded: Sequence[Tensor], halves: Sequence[Half]) -> Tensor:
        """Mean of both directions; equal texts or pictures are no negatives of each other."""
        left, right = _partners(halves)
        device = encoded[0].device
        mine = [encoded[0][torch.from_numpy(left)], encoded[1][torch.from_numpy(right)]]
        keys = [
            torch.from_numpy(half.keys[index]).to(device)
            for half, index in zip(halves, (left, right), strict=True)
        ]
        all_rows, offset = zip(*(gather_rows(rows) for rows in mine), strict=True)
        all_keys = [gather_rows(key)[0] for key in keys]
        ignore = same_content(keys[0], all_keys[0]) | same_content(keys[1], all_keys[1])
        factor = 1 / scale.temperature()
        terms = []
        for own, others in ((0, 1), (1, 0)):
            asked, answers = mine[own], all_rows[others]
            if self._sigmoid:
                term = siglip_loss(
                    asked, answers, factor, scale.bias, ignore=ignore, offset=offset[0]
                )
            else:
                term = clip_loss(asked, answers, factor, ignore=ignore, offset=offset[0])
            terms.append(term)
        return torch.stack(terms).mean() * share_of_mean(len(mine[0]), len(all_rows[0]))


class BehaviourContrast:
    """Items that the same users take are partners, as one encoder sees them.

    Args:
        modality: Whose tower reads both items.
        weight: Of the term.
        pairs: Items that are alike in who takes them.
    """

    def __init__(self, modality: str, weight: float, pairs: CoInteractions) -> None:
        self.name, self.weight = f"behaviour.{modality}", weight
        self.halves, self.size = (modality, modality), pairs.size
        self._pairs, self._log_q = pairs, torch.from_numpy(pairs.log_q())

    def draw(self, epoch: int, count: int) -> IntArray:
        """Pairs of different items."""
        return self._pairs.draw(epoch, count)

    def loss(self, scale: Scale, encoded: Sequence[Tensor], halves: Sequence[Half]) -> Tensor:
        """Each first item picks its second out of all seconds of the batch."""
        left, right = _partners(halves)
        device = encoded[0].device
        first, second = halves[0].rows[left], halves[1].rows[right]
        asked = encoded[0][torch.from_numpy(left)]
        answers, offset = gather_rows(encoded[1][torch.from_numpy(right)])
        rows = gather_rows(torch.from_numpy(second).to(device))[0].cpu().numpy()
        known = torch.from_numpy(self._pairs.known(first, rows)).to(device)
        itself = torch.from_numpy(first[:, None] == rows[None, :]).to(device)
        loss = behaviour_loss(
            asked,
            answers,
            1 / scale.temperature(),
            positives=known,
            log_q=self._log_q[rows].to(device),
            ignore=itself,
            offset=offset,
        )
        return loss * share_of_mean(len(asked), len(answers))


def _among(matrix: sp.csr_matrix, items: IntArray) -> sp.csr_matrix:
    """Interactions with these items alone, ``[U, I]``."""
    chosen = np.zeros(matrix.shape[1], matrix.dtype)
    chosen[items] = 1
    among = sp.csr_matrix(matrix @ sp.diags_array(chosen))
    among.eliminate_zeros()
    return among


def _own_pairs(contents: Contents, halves: Sequence[str], seed: int) -> ItemPairs:
    sides = [contents.plain[half] for half in halves]
    has_both = [row for row in contents.train if all(side[row] is not None for side in sides)]
    pairs = ItemPairs(np.asarray(has_both, dtype=np.int64), seed)
    for half, side in zip(halves, sides, strict=True):
        if len({side[row] for row in has_both}) == 1:
            raise DataError(
                f"{half} is the same for all items to train on, which leaves nothing to tell apart",
                got=side[has_both[0]],
                fix=f"check data.{half.partition('.')[0]}",
            )
    return pairs


def _partners(halves: Sequence[Half]) -> tuple[IntArray, IntArray]:
    """Where in either half the pairs are of which both sides could be read, ``[P]`` each."""
    first, second = halves
    _, left, right = np.intersect1d(
        first.positions, second.positions, assume_unique=True, return_indices=True
    )
    return left, right


def make_objectives(
    config: FinetuneConfig,
    catalog: Catalog,
    contents: Contents,
    towers: Mapping[str, Tower],
    *,
    seed: int,
    stream: ItemStream | None = None,
) -> list[Objective]:
    """Make the objectives that have some weight.

    Args:
        config: Which ones.
        catalog: Interactions.
        contents: What is read of each item, and which ones are trained on.
        towers: Modality to its tower.
        seed: Of the draws.
        stream: Serves the items to train on, where they do not fit into memory.

    Raises:
        ConfigError: An objective lacks its tower or its interactions.
        DataError: Fewer than two items are left for an objective, or none that its tower can read.
    """
    objectives: list[Objective] = []
    for name, weight in config.active().items():
        if name in ("image_text", "text_pairs"):
            halves = ("image", "text")
            if name == "text_pairs":
                halves = (f"text.{config.text_pairs[0]}", f"text.{config.text_pairs[1]}")
            for half in halves:
                if half.partition(".")[0] not in towers:
                    raise ConfigError(
                        f"the objective {name} has no tower for {half}",
                        fix=f"name data.{half.partition('.')[0]} and its encoder",
                    )
            pairs = StreamedPairs(stream) if stream else _own_pairs(contents, halves, seed)
            widths = {towers[half.partition(".")[0]].dim for half in halves}
            if len(widths) > 1:
                raise ConfigError(
                    f"the towers of the objective {name} give rows of different widths",
                    got=sorted(widths),
                    fix="set finetune.text.dim and finetune.image.dim to one number",
                )
            sigmoid = config.loss == "siglip"
            objectives.append(PairContrast(name, weight, halves, pairs, sigmoid=sigmoid))
        else:
            matrix = _among(catalog.matrix("train"), contents.train)
            if not matrix.nnz:
                raise ConfigError(
                    f"the objective {name} needs interactions",
                    fix="name data.interactions, or leave the objective out",
                )
            trained = {m: t for m, t in towers.items() if any(t.trainable().values())}
            for modality in trained:
                if all(contents.plain[modality][row] is None for row in contents.train):
                    raise DataError(
                        f"no item to train on has {modality}, which the objective {name} reads",
                        fix=f"check data.{modality}, or leave encoders.{modality} out",
                    )
            if name == "graph":
                objectives += [
                    GraphContrast(
                        m, weight / len(trained), matrix, tower, contents.plain[m], seed=seed
                    )
                    for m, tower in trained.items()
                ]
                continue
            known = CoInteractions(
                matrix,
                popularity=config.popularity,
                neighbours=config.neighbours,
                seed=seed,
            )
            objectives += [BehaviourContrast(m, weight / len(trained), known) for m in trained]
    return objectives
