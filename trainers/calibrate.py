"""Choose on valid how warm and cold scores, and the parts of a fused model, are weighed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmalign.data.catalog import Catalog
from mmalign.evaluation.metrics import ndcg_at_k
from mmalign.evaluation.slices import Slice, build_slice
from mmalign.interfaces import SLICES, BoolArray, FloatArray
from mmalign.models import Model
from mmalign.models.calibration import Calibration, standardise
from mmalign.ranking import top_k

__all__ = ["choose_calibration"]

K = 20
WEIGHTS = tuple(np.arange(0, 11) / 10)
SCALES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0)
SHIFTS = tuple(np.arange(-6, 7) / 4)
RIDGE_SCALE = 4.0
MAX_USERS = 2000
MAX_SCORES = 10_000_000
"""Users times items: what bounds time and memory for a large catalogue."""


def choose_calibration(model: Model[Any], catalog: Catalog, *, seed: int = 0) -> Calibration:
    """Climb to the best harmonic mean of NDCG@20 over the slices of valid, a setting at a time.

    Args:
        model: Fitted.
        catalog: Its valid rows are read, of at most 2,000 users drawn under the seed; of fewer
            where the items are many.
        seed: Of that draw.

    Returns:
        The calibration. What valid cannot tell stays at its default: parts weigh the same, cold
        scores of a regression are scaled by 4, which is what it loses on the data measured.
    """
    if not model.serves_cold:
        return Calibration()
    slices = [build_slice(catalog, "valid", name) for name in SLICES]
    ranked = [_Ranked.of(model, part, seed) for part in slices if len(part.users)]
    names = list(model.components(catalog.matrix("train")[:1]))
    best = Calibration(
        weights={name: 1 / len(names) for name in names},
        cold_scales={name: 1.0 if name == "network" else RIDGE_SCALE for name in names},
    )
    if not ranked:
        return best
    has_cold = len(slices[1].users) > 0
    score, improved = _harmonic_mean(best, ranked), True
    while improved:
        improved = False
        for candidate in _steps(best, names, has_cold):
            found = _harmonic_mean(candidate, ranked)
            if found > score + 1e-6:
                best, score, improved = candidate, found, True
    return best


def _steps(start: Calibration, names: list[str], has_cold: bool) -> Iterator[Calibration]:
    if len(names) == 2:
        first, second = names
        for weight in WEIGHTS:
            yield replace(start, weights={first: float(weight), second: float(1 - weight)})
    if has_cold:
        for name in names:
            for scale in SCALES:
                yield replace(start, cold_scales=start.cold_scales | {name: scale})
        for shift in SHIFTS:
            yield replace(start, cold_shift=float(shift))


@dataclass(frozen=True)
class _Ranked:
    """A slice of valid with its standardised scores, computed once."""

    parts: dict[str, FloatArray]
    part: Slice
    warm: BoolArray

    @classmethod
    def of(cls, model: Model[Any], part: Slice, seed: int) -> _Ranked:
        count = min(MAX_USERS, max(1, MAX_SCORES // len(model.warm)))
        chosen = np.random.default_rng(seed).permutation(len(part.users))[:count]
        scores = model.components(part.history[chosen])
        standard = {
            name: standardise(raw, model.warm)[:, part.candidates] for name, raw in scores.items()
        }
        drawn = replace(
            part,
            users=part.users[chosen],
            truth=part.truth[chosen],
            exclude=part.exclude[chosen],
            history=part.history[chosen],
        )
        return cls(standard, drawn, model.warm[part.candidates])

    def ndcg(self, calibration: Calibration) -> float:
        positions, _ = top_k(calibration.fuse(self.parts, self.warm), K, self.part.exclude)
        truth = self.part.truth.toarray()
        hits = np.take_along_axis(truth, np.maximum(positions, 0), axis=1) & (positions >= 0)
        return float(ndcg_at_k(hits, truth.sum(axis=1), K).mean())


def _harmonic_mean(calibration: Calibration, ranked: list[_Ranked]) -> float:
    found = [part.ndcg(calibration) for part in ranked]
    return len(found) / sum(1 / max(value, 1e-9) for value in found)
