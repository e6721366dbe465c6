"""Choose on valid how warm and cold scores, and the parts of a fused model, are weighed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from mmalign.data.catalog import Catalog
from mmalign.evaluation.metrics import ndcg_at_k
from mmalign.evaluation.slices import Slice, build_slice
from mmalign.interfaces import SLICES, FloatArray, IntArray
from mmalign.models import Model
from mmalign.models.calibration import Calibration, standardise
from mmalign.ranking import top_k

__all__ = ["choose_calibration"]

K = 20
SHARES = tuple(np.arange(0, 11) / 10)
SCALES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0)
SHIFTS = tuple(np.arange(-6, 7) / 4)
RIDGE_SCALE = 4.0
"""Of cold scores where valid cannot tell: what a regression loses on the data measured."""
COLD_NETWORK = 0.3
"""Share of the network in cold scores unless valid is clear; chosen on folds of the films."""
COLD_SHARES = (0.0, 0.15, 0.3, 0.5, 0.7, 1.0)
CLEAR_GAIN = 0.01
"""By which another share must be better: valid's cold items are few, and small gains are chance."""
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
        The calibration. What valid cannot tell stays at its default: parts weigh the same among
        warm scores, the network has three tenths of cold ones, and those are scaled by 4.
    """
    if not (model.serves_cold and model.uses_content):
        return Calibration()  # its cold scores mean nothing, so no scale could
    slices = [build_slice(catalog, "valid", name) for name in SLICES]
    ranked = [_Ranked(model, part, seed) for part in slices if len(part.users)]
    names = list(model.components(catalog.matrix("train")[:1]))
    best = Calibration(
        weights={name: 1 / len(names) for name in names},
        cold_weights=_shares(names, COLD_NETWORK) if len(names) == 2 else {},
        cold_scale=RIDGE_SCALE,
    )
    if not ranked:
        return best
    has_cold = len(slices[1].users) > 0
    score, improved = _harmonic_mean(best, ranked), True
    while improved:
        improved = False
        for candidate in _steps(best, names, has_cold):
            found = _harmonic_mean(candidate, ranked)
            clear = candidate.cold_weights == best.cold_weights or found > score * (1 + CLEAR_GAIN)
            if found > score + 1e-6 and clear:
                best, score, improved = candidate, found, True
    return best


def _steps(start: Calibration, names: list[str], has_cold: bool) -> Iterator[Calibration]:
    if len(names) == 2:
        for share in SHARES:
            yield replace(start, weights=_shares(names, share))
    if has_cold:
        if len(names) == 2:
            for share in COLD_SHARES:
                yield replace(start, cold_weights=_shares(names, share))
        for scale in SCALES:
            yield replace(start, cold_scale=scale)
        for shift in SHIFTS:
            yield replace(start, cold_shift=float(shift))


def _shares(names: list[str], share: float) -> dict[str, float]:
    """The weights of two parts that add up to one."""
    return dict(zip(names, (float(share), float(1 - share)), strict=True))


class _Ranked:
    """A slice of valid with its standardised scores, ranked anew for each calibration.

    The first K are among the first K warm and the first K cold items, and each of the two lists
    depends on few of the settings, so both are kept: most steps only merge them.
    """

    def __init__(self, model: Model[Any], part: Slice, seed: int) -> None:
        count = min(MAX_USERS, max(1, MAX_SCORES // len(model.warm)))
        chosen = np.random.default_rng(seed).permutation(len(part.users))[:count]
        scores = model.components(part.history[chosen])
        standard = {name: standardise(raw, model.warm) for name, raw in scores.items()}
        is_warm, exclude = model.warm[part.candidates], part.exclude[chosen].tocsc()
        self._truth = part.truth[chosen].toarray()
        self._sides = [
            _Side(
                {name: scores[:, part.candidates[side]] for name, scores in standard.items()},
                np.flatnonzero(side),
                exclude[:, side].tocsr(),
                is_warm=warm,
            )
            for side, warm in ((is_warm, True), (~is_warm, False))
            if side.any()
        ]

    def ndcg(self, calibration: Calibration) -> float:
        lists = [side.first(calibration) for side in self._sides]
        positions, scores = (np.concatenate(arrays, axis=1) for arrays in zip(*lists, strict=True))
        order = np.lexsort((positions, -scores))[:, :K]
        best = np.take_along_axis(positions, order, axis=1)
        hits = np.take_along_axis(self._truth, np.maximum(best, 0), axis=1) & (best >= 0)
        return float(ndcg_at_k(hits, self._truth.sum(axis=1), K).mean())


class _Side:
    """The warm or the cold candidates of a slice."""

    def __init__(
        self,
        standard: dict[str, FloatArray],
        columns: IntArray,
        exclude: sp.csr_matrix,
        *,
        is_warm: bool,
    ) -> None:
        self._standard, self._columns, self._exclude = standard, columns, exclude
        self._is_warm = is_warm
        self._known: dict[tuple[float, ...], tuple[IntArray, FloatArray]] = {}

    def first(self, calibration: Calibration) -> tuple[IntArray, FloatArray]:
        """The first K, ``[B, K]`` columns of the slice and calibrated scores."""
        weights = calibration.weights if self._is_warm else calibration.cold_weights
        key = tuple(weights.get(name, 1.0) for name in self._standard)
        if key not in self._known:
            # Scale and shift move all cold items alike: they matter where the two lists are merged.
            plain = replace(calibration, cold_scale=1.0, cold_shift=0.0)
            warm = np.full(len(self._columns), self._is_warm)
            places, scores = top_k(plain.fuse(self._standard, warm), K, self._exclude)
            found = np.where(places >= 0, self._columns[np.maximum(places, 0)], -1)
            self._known[key] = found, scores
        positions, scores = self._known[key]
        if not self._is_warm:
            scores = np.float32(calibration.cold_scale) * scores
            scores += np.float32(calibration.cold_shift)
        return positions, scores


def _harmonic_mean(calibration: Calibration, ranked: list[_Ranked]) -> float:
    found = [part.ndcg(calibration) for part in ranked]
    return len(found) / sum(1 / max(value, 1e-9) for value in found)
