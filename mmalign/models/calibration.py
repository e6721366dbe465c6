"""One scale for warm and cold scores, and for the parts of a fused model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mmalign.interfaces import BoolArray, FloatArray, IntArray

__all__ = ["Calibration", "standardise"]


@dataclass(frozen=True)
class Calibration:
    """How raw scores become the ones that are ranked and shown.

    Each part is standardised by the user's mean and deviation over warm items, and the parts are
    summed: warm scores by ``weights``, cold ones by ``cold_weights``. What is fused of cold items,
    whose scores a regression draws towards the mean, is multiplied by a scale and shifted, both
    by how much the user has taken: the more, the less a regression is drawn. A calibrated score
    says how many of the user's own standard deviations an item stands above the average warm one.
    Scale and shift keep the order of cold items.

    Attributes:
        weights: Part to weight among warm scores; an unnamed part has weight 1.
        cold_weights: Part to weight among cold scores; an unnamed part has weight 1.
        cold_scale: The factor of fused cold scores, for a user of the usual history.
        cold_shift: Added to cold scores then, in deviations.
        usual_history: Number of items that such a user has taken.
        scale_power: Of the ratio between another user's history and the usual one, one added to
            both: the scale's factor.
        shift_slope: Added to the shift for each unit of that ratio's logarithm.
    """

    weights: dict[str, float] = field(default_factory=dict)
    cold_weights: dict[str, float] = field(default_factory=dict)
    cold_scale: float = 1.0
    cold_shift: float = 0.0
    usual_history: float = 0.0
    scale_power: float = 0.0
    shift_slope: float = 0.0

    def apply(
        self, parts: Mapping[str, FloatArray], warm: BoolArray, taken: IntArray | None = None
    ) -> FloatArray:
        """Fuse raw scores of each part into calibrated ones.

        Shapes:
            parts: ``[B, I]`` each; warm: ``[I]``; taken: ``[B]``, numbers of items in the users'
            histories, the usual one where it is left out; returns ``[B, I]``.
        """
        fused: FloatArray | None = None
        for name, raw in parts.items():
            shares = self.weights.get(name, 1.0), self.cold_weights.get(name, 1.0)
            weighted = standardise(raw, warm) * np.where(warm, *shares).astype(np.float32)
            if fused is None:
                fused = weighted
            else:
                fused += weighted
        assert fused is not None
        if not warm.all():
            fused[:, ~warm] = self._move_cold(fused[:, ~warm], taken)
        return fused

    def _move_cold(self, scores: FloatArray, taken: IntArray | None) -> FloatArray:
        """Scale and shift fused cold scores ``[B, C]`` by the users' ``[B]`` histories."""
        if taken is None:
            return np.float32(self.cold_scale) * scores + np.float32(self.cold_shift)
        ratio = np.log((1 + taken[:, None]) / (1 + self.usual_history))
        scale = self.cold_scale * np.exp(self.scale_power * ratio)
        shift = self.cold_shift + self.shift_slope * ratio
        return scale.astype(np.float32) * scores + shift.astype(np.float32)


def standardise(scores: FloatArray, warm: BoolArray) -> FloatArray:
    """Centre and scale each user's scores by the mean and deviation over warm items.

    Shapes:
        scores: ``[B, I]``; warm: ``[I]``; returns ``[B, I]``. A user whose warm scores are all
        alike, such as one without a history, keeps centred scores.

    Example:
        >>> standardise(np.array([[1.0, 3.0, 9.0]], np.float32), np.array([True, True, False]))
        array([[-1.,  1.,  7.]], dtype=float32)
    """
    known = scores if warm.all() else scores[:, warm]
    mean = known.mean(axis=1, keepdims=True)
    deviation = known.std(axis=1, keepdims=True)
    rounding = 1e-6 * np.abs(mean)  # the deviation that equal float32 numbers may seem to have
    return np.asarray((scores - mean) / np.where(deviation > rounding, deviation, 1), np.float32)
