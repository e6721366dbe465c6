"""One scale for warm and cold scores, and for the parts of a fused model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mmalign.interfaces import BoolArray, FloatArray

__all__ = ["Calibration", "standardise"]


@dataclass(frozen=True)
class Calibration:
    """How raw scores become the ones that are ranked and shown.

    Each part is standardised by the user's mean and deviation over warm items, and the parts are
    summed: warm scores by ``weights``, cold ones by ``cold_weights``. What is fused of cold items,
    whose scores a regression draws towards the mean, is multiplied by a scale and shifted. A
    calibrated score says how many of the user's own standard deviations an item stands above the
    average warm one. Scale and shift keep the order of cold items.

    Attributes:
        weights: Part to weight among warm scores; an unnamed part has weight 1.
        cold_weights: Part to weight among cold scores; an unnamed part has weight 1.
        cold_scale: The factor of fused cold scores.
        cold_shift: Added to cold scores then, in deviations.
    """

    weights: dict[str, float] = field(default_factory=dict)
    cold_weights: dict[str, float] = field(default_factory=dict)
    cold_scale: float = 1.0
    cold_shift: float = 0.0

    def apply(self, parts: Mapping[str, FloatArray], warm: BoolArray) -> FloatArray:
        """Fuse raw scores ``[B, I]`` of each part into calibrated ones ``[B, I]``."""
        standard = {name: standardise(scores, warm) for name, scores in parts.items()}
        return self.fuse(standard, warm)

    def fuse(self, standard: Mapping[str, FloatArray], warm: BoolArray) -> FloatArray:
        """Fuse scores that are standardised already; see :meth:`apply`."""
        fused: FloatArray | None = None
        for name, scores in standard.items():
            cold = self.cold_scale * self.cold_weights.get(name, 1.0)
            factor = np.where(warm, self.weights.get(name, 1.0), cold).astype(np.float32)
            weighted = scores * factor
            if fused is None:
                fused = weighted
            else:
                fused += weighted
        assert fused is not None
        if self.cold_shift:
            fused[:, ~warm] += np.float32(self.cold_shift)
        return fused


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
