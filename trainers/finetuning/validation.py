"""What a fine-tuned encoder is measured by: retrieval of partners, and of what users take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.data.catalog import Catalog
from mmalign.errors import DataError
from mmalign.evaluation.protocol import evaluate
from mmalign.evaluation.slices import build_slice
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import SLICES, BoolArray, FloatArray, IntArray, Media, Tower
from mmalign.objectives.alignment import retrieval_at_k
from mmalign.trainers.finetuning.contents import Contents

__all__ = ["Profiles", "Retrieval", "encode_rows", "to_device"]

BATCH_SIZE = 128
KS = (1, 10)


class Rows(NamedTuple):
    """What a tower made of some items.

    Attributes:
        problems: Position to the reason why an item could not be read.

    Shapes:
        values: ``[N, D]``, unit rows, zero where absent or broken; present: ``[N]``.
    """

    values: Tensor
    present: BoolArray
    problems: dict[int, str]


@torch.no_grad()
def encode_rows(
    tower: Tower, values: Sequence[Media | None], *, below_projection: bool = False
) -> Rows:
    """Encode items as they are encoded after training: no dropout, no augmentation.

    Args:
        tower: Left in the mode it was in.
        values: Content of each item; None where there is none.
        below_projection: Whether a new projection is left out.

    Shapes:
        values: ``N``.
    """
    module = torch.nn.ModuleList([tower])  # type: ignore[list-item]
    was_training = [part.training for part in module.modules()]
    module.eval()
    device = next(module.parameters()).device
    encode = tower.below_projection if below_projection else tower
    rows = torch.zeros(len(values), tower.dim)
    present = np.zeros(len(values), dtype=bool)
    problems: dict[int, str] = {}
    given = [row for row, value in enumerate(values) if value is not None]
    for start in range(0, len(given), BATCH_SIZE):
        block = given[start : start + BATCH_SIZE]
        batch = tower.collate([values[row] for row in block], training=False)  # type: ignore[misc]
        problems |= {block[position]: reason for position, reason in batch.problems.items()}
        if not batch.kept:
            continue
        kept = [block[position] for position in batch.kept]
        encoded = encode(to_device(batch.inputs, device)).float().cpu()
        if not present.any():
            rows = rows.new_zeros(len(values), encoded.shape[1])
        rows[kept] = F.normalize(encoded, dim=1)
        present[kept] = True
    for part, mode in zip(module.modules(), was_training, strict=True):
        part.training = mode
    return Rows(rows, present, problems)


def to_device(inputs: object, device: torch.device) -> object:
    """Move a tensor, or the tensors of a mapping, to a device; None, no item at all, stays."""
    if inputs is None:
        return None
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    assert isinstance(inputs, Mapping)
    return {name: to_device(value, device) for name, value in inputs.items()}


class Retrieval:
    """Measures towers on items that they were not trained on.

    Called with ``valid`` or ``test`` it gives, for each objective of pairs, the share of items
    whose partner is among the 1 and the 10 nearest, in both directions
    (``image_to_text@1``); for objectives of behaviour the NDCG@20 of :class:`Profiles` by each
    tower (``text_cold_ndcg@20``); and ``retrieval``, the mean of the former and of each tower's
    harmonic mean over slices.

    Args:
        config: Which objectives there are.
        catalog: Interactions.
        contents: Content of the items.
        towers: Modality to its tower.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        catalog: Catalog,
        contents: Contents,
        towers: Mapping[str, Tower],
    ) -> None:
        self._catalog, self._contents, self._towers = catalog, contents, towers
        active = config.active()
        self._pairs = [("image", "text")] if "image_text" in active else []
        if "text_pairs" in active:
            first, second = config.text_pairs
            self._pairs.append((f"text.{first}", f"text.{second}"))
        self._has_behaviour = config.uses_behaviour()
        self._unread: dict[tuple[tuple[str, str], str], int] = {}

    def names(self, split: str) -> list[str]:
        """Name what a split is measured by; nothing where it has nothing to measure."""
        sides = [
            side
            for pair in self._pairs
            if len(self._rows_with(pair, split))
            for side in (pair, pair[::-1])
        ]
        names = [f"{a}_to_{b}@{k}" for k in KS for a, b in sides]
        if self._has_behaviour and self._catalog.matrix(split).nnz:
            slices = ("", *(f"{name}_" for name in self._slices(split)))
            names += [f"{tower}_{name}ndcg@20" for tower in self._towers for name in slices]
        return [*names, "retrieval"] if names else []

    def counts(self, split: str) -> dict[str, int]:
        """Say of how many items each pair is measured, which are each other's candidates.

        Those that could not be read are left out as soon as the split was measured once.
        """
        return {
            f"{a} and {b}": len(rows) - self._unread.get(((a, b), split), 0)
            for a, b in self._pairs
            if len(rows := self._rows_with((a, b), split))
        }

    def unread(self, split: str) -> dict[str, int]:
        """Say of how many items of a measured split a pair could not be read, where any."""
        return {
            f"{a} and {b}": count
            for (a, b), measured in self._unread
            if measured == split and (count := self._unread[(a, b), measured])
        }

    def __call__(self, split: str) -> dict[str, float]:
        """Encode what is to be measured, and rank."""
        found: dict[str, float] = {}
        means: list[float] = []
        for pair in self._pairs:
            rows = self._rows_with(pair, split)
            if len(rows):
                hits = self._partners(pair, rows, split)
                found |= hits
                means.append(float(np.mean(list(hits.values()))))
        if self._has_behaviour and self._catalog.matrix(split).nnz:
            for modality in self._towers:
                ndcg = self._profiles(modality, split)
                found |= {f"{modality}_{name}": value for name, value in ndcg.items()}
                means.append(ndcg["ndcg@20"])
        return found | ({"retrieval": float(np.mean(means))} if means else {})

    def _rows_with(self, pair: tuple[str, str], split: str) -> IntArray:
        """Items of a split that have both sides of a pair."""
        sides = [self._contents.plain[name] for name in pair]
        rows = self._contents.measured(split)
        return rows[[all(side[row] is not None for side in sides) for row in rows]]

    def _partners(self, pair: tuple[str, str], rows: IntArray, split: str) -> dict[str, float]:
        one, other = (self._encode(name, rows) for name in pair)
        both = torch.from_numpy(one.present & other.present)
        if not both.any():
            reasons = [*one.problems.values(), *other.problems.values()]
            raise DataError(
                f"{' and '.join(pair)} of none of {len(rows)} items to measure on can be read",
                got=reasons[0],
                fix="check data.path and the columns",
            )
        self._unread[pair, split] = len(rows) - int(both.sum())
        left, right = one.values, other.values
        found = {}
        for k in KS:
            found[f"{pair[0]}_to_{pair[1]}@{k}"] = retrieval_at_k(left, right, k, mask=both)
            found[f"{pair[1]}_to_{pair[0]}@{k}"] = retrieval_at_k(right, left, k, mask=both)
        return found

    def _profiles(self, modality: str, split: str) -> dict[str, float]:
        """NDCG@20 on the slices that the split has, and their harmonic mean.

        Rows are centred by the mean of warm items, which all likeness of content shares.
        """
        rows, present, _ = self._encode(modality, np.arange(self._catalog.num_items))
        known = torch.from_numpy(self._catalog.warm & present)
        centred = rows - rows[known].mean(dim=0)
        centred[torch.from_numpy(~present)] = 0
        scorer = Profiles(F.normalize(centred, dim=1).numpy())
        slices = self._slices(split)
        found = evaluate(scorer, self._catalog, split, ks=(20,), slices=slices)
        named = {f"{name}_ndcg@20": part["ndcg@20"] for name, part in found.metrics.items()}
        return named | {"ndcg@20": found.harmonic_mean("ndcg@20")}

    def _slices(self, split: str) -> list[str]:
        return [name for name in SLICES if len(build_slice(self._catalog, split, name).users)]

    def _encode(self, name: str, rows: IntArray) -> Rows:
        content = self._contents.plain[name]
        return encode_rows(self._towers[name.partition(".")[0]], [content[row] for row in rows])


@dataclass(frozen=True)
class Profiles:
    """Ranks by the cosine of an item and the mean of a user's items: content alone.

    Shapes:
        vectors: ``[I, D]``, unit rows, zero where an item has no content.
    """

    vectors: FloatArray
    serves_cold: bool = True

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Inner products with the sum of the history, ``[B, C]``."""
        scores: FloatArray = np.asarray(history @ self.vectors, np.float32) @ self.vectors[items].T
        return scores
