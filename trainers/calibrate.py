"""Choose on valid how the parts of a model are weighed, and where cold scores stand among warm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.optimize import minimize

from mmalign.data.catalog import Catalog
from mmalign.evaluation.metrics import ndcg_at_k
from mmalign.evaluation.slices import build_slice
from mmalign.interfaces import BoolArray, FloatArray, IntArray
from mmalign.models import Model
from mmalign.models.calibration import Calibration, standardise
from mmalign.ranking import top_k

__all__ = ["choose_calibration"]

K = 20
SHARES = tuple(np.arange(0, 11) / 10)
RIDGE_SCALE = 4.0
"""Of cold scores where valid cannot tell: what a regression loses on the data measured."""
COLD_NETWORK = 0.3
"""Share of the network in cold scores unless valid is clear; chosen on folds of the films."""
COLD_SHARES = (0.0, 0.15, 0.3, 0.5, 0.7, 1.0)
CLEAR_GAIN = 0.02
"""By which another share must be better: valid's cold items are few, and small gains are chance."""
FAR = 20.0
"""Deviations beyond which a score counts as this far: of a user whose warm scores hardly differ."""
MAX_USERS = 2000
MAX_SCORES = 30_000_000
"""Users times items: what bounds time and memory for a large catalogue."""


def choose_calibration(model: Model[Any], catalog: Catalog, *, seed: int = 0) -> Calibration:
    """Choose shares by NDCG@20 of warm and of cold items, scale and shift by the lists' merger.

    The first 20 warm and the first 20 cold items of a user are merged into one list. What decides
    there is the cross entropy between its softmax and its hits (ListNet: Cao et al., Learning to
    rank: from pairwise approach to listwise approach, 2007), each over the user's ideal DCG: it
    depends less on which few cold items valid has than the best NDCG of a grid does.

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
    names = list(model.components(catalog.matrix("train")[:1]))
    chosen = Calibration(
        weights={name: 1 / len(names) for name in names},
        cold_weights=_shares(names, COLD_NETWORK) if len(names) == 2 else {},
        cold_scale=RIDGE_SCALE,
    )
    part = build_slice(catalog, "valid", "all")
    known = np.flatnonzero(part.history.getnnz(axis=1))  # others are shown what is popular
    if not len(known):
        return chosen
    count = min(MAX_USERS, max(1, MAX_SCORES // len(model.warm)))
    rows = np.random.default_rng(seed).permutation(known)[:count]
    scores = model.components(part.history[rows])
    standard = {
        name: standardise(raw, model.warm)[:, part.candidates] for name, raw in scores.items()
    }
    truth, exclude = part.truth[rows].tocsc(), part.exclude[rows].tocsc()
    is_warm = model.warm[part.candidates]
    warm, cold = (
        _Side({name: x[:, side] for name, x in standard.items()}, truth[:, side], exclude[:, side])
        for side in (is_warm, ~is_warm)
    )
    if len(names) == 2:
        chosen = replace(
            chosen,
            weights=_best_shares(warm, chosen.weights, SHARES),
            cold_weights=_best_shares(cold, chosen.cold_weights, COLD_SHARES, CLEAR_GAIN),
        )
    return _merge(warm, cold, part.history[rows].getnnz(axis=1), chosen)


def _shares(names: Sequence[str], share: float) -> dict[str, float]:
    """The weights of two parts that add up to one."""
    return dict(zip(names, (float(share), float(1 - share)), strict=True))


class _Side:
    """The warm or the cold candidates of valid, ranked among themselves."""

    def __init__(
        self, standard: dict[str, FloatArray], truth: sp.csc_matrix, exclude: sp.csc_matrix
    ) -> None:
        self._standard = standard
        self._truth, self._exclude = truth.toarray(), exclude.tocsr()
        self.truths: IntArray = self._truth.sum(axis=1)

    def first(self, weights: dict[str, float]) -> tuple[FloatArray, BoolArray]:
        """Weighed scores of the first K, ``[B, K]``, and whether they are hits."""
        weighed = sum(np.float32(weights.get(n, 1.0)) * x for n, x in self._standard.items())
        places, scores = top_k(np.asarray(weighed), K, self._exclude)
        if not self._truth.shape[1]:
            return scores, np.zeros(scores.shape, dtype=np.bool_)
        found = np.take_along_axis(self._truth, np.maximum(places, 0), axis=1)
        return scores, found & (places >= 0)

    def ndcg(self, weights: dict[str, float]) -> float:
        """Mean over the users with a truth, 0 if there is none."""
        asked = self.truths > 0
        if not asked.any():
            return 0.0
        _, hits = self.first(weights)
        return float(ndcg_at_k(hits[asked], self.truths[asked], K).mean())


def _best_shares(
    side: _Side, start: dict[str, float], tried: Sequence[float], clear: float = 0.0
) -> dict[str, float]:
    """The shares of the best NDCG, if it is better than the start's by ``clear`` of it."""
    best, score = start, (1 + clear) * side.ndcg(start)
    for weights in (_shares(list(start), share) for share in tried):
        if (found := side.ndcg(weights)) > score:
            best, score = weights, found
    return best


def _merge(warm: _Side, cold: _Side, taken: IntArray, start: Calibration) -> Calibration:
    """Move cold scores such that the hits of both sides come first in the merged list.

    Utilities are ``t z`` for warm scores z and ``t (scale z + shift)`` for cold ones; logarithms of
    t and scale, and shift itself, are linear in the logarithm of the user's history. The squares
    of what is added to the start are part of the loss, so that few users move it little.
    """
    (warm_scores, warm_hits), (cold_scores, cold_hits) = (
        side.first(weights) for side, weights in ((warm, start.weights), (cold, start.cold_weights))
    )
    if not (warm_hits.any() and cold_hits.any()):
        return start
    history = np.log1p(taken)
    usual = float(history.mean())
    ideal = (1 / np.log2(np.arange(2, K + 2))).cumsum()
    truths = np.clip(warm.truths + cold.truths, 1, K)
    gains = torch.from_numpy(np.hstack([warm_hits, cold_hits]) / ideal[truths - 1, None])
    allowed = torch.from_numpy(np.isfinite(np.hstack([warm_scores, cold_scores])))
    z_warm, z_cold = (
        torch.from_numpy(np.where(np.isfinite(x), x, 0).clip(-FAR, FAR).astype(np.float64))
        for x in (warm_scores, cold_scores)
    )
    ratio = torch.from_numpy(history - usual)[:, None]

    def loss(moved: FloatArray) -> tuple[float, FloatArray]:
        moves = torch.tensor(moved, requires_grad=True)
        level, level_slope, scale, power, shift, slope = moves
        cold_utility = start.cold_scale * torch.exp(scale + power * ratio) * z_cold
        utility = torch.cat([z_warm, cold_utility + shift + slope * ratio], dim=1)
        utility = torch.exp(level + level_slope * ratio) * utility
        utility = utility.masked_fill(~allowed, -1e9)
        value = moves.square().sum() - (gains * torch.log_softmax(utility, dim=1)).sum()
        (gradient,) = torch.autograd.grad(value, moves)
        return value.item(), gradient.numpy()

    _, _, scale, power, shift, slope = minimize(loss, np.zeros(6), jac=True, method="L-BFGS-B").x
    return replace(
        start,
        cold_scale=start.cold_scale * float(np.exp(scale)),
        cold_shift=float(shift),
        usual_history=float(np.expm1(usual)),
        scale_power=float(power),
        shift_slope=float(slope),
    )
