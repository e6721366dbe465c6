"""The running mean of weights, which errs less than where training happens to stand.

Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["WeightAverage"]


class WeightAverage(nn.Module):
    """Follows parameters by an exponential moving mean.

    Args:
        parameters: What is trained.
        decay: Share of the mean that stays at a step, in [0, 1).
        ramp: Whether less stays in the first steps, ``n / (n + 9)`` at the most after n of them, so
            that the mean of a short run is of where it ended.

    Attributes:
        steps: How many were followed.
    """

    steps: Tensor

    def __init__(
        self, parameters: Sequence[nn.Parameter], decay: float, *, ramp: bool = False
    ) -> None:
        super().__init__()
        self._followed = tuple(parameters)
        self._decay, self._ramp = decay, ramp
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        for number, parameter in enumerate(parameters):
            self.register_buffer(f"mean_{number}", parameter.detach().clone())

    @torch.no_grad()
    def update(self) -> None:
        """Take in where the parameters are after a step; the first one sets the mean."""
        means, now = self._means(), [parameter.detach() for parameter in self._followed]
        if self.steps == 0:
            for mean, value in zip(means, now, strict=True):
                mean.copy_(value)
        else:
            taken = int(self.steps) + 1
            decay = min(self._decay, taken / (taken + 9)) if self._ramp else self._decay
            move: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            move(means, now, self.steps)
        self.steps += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are the mean inside, and what they were before afterwards."""
        before = [parameter.detach().clone() for parameter in self._followed]
        self.apply_mean()
        try:
            yield
        finally:
            self._set(before)

    def apply_mean(self) -> None:
        """Set the parameters to the mean; nothing changes before the first step."""
        if self.steps > 0:
            self._set(self._means())

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._followed, values, strict=True):
            parameter.copy_(value)

    def _means(self) -> list[Tensor]:
        return [self.get_buffer(f"mean_{number}") for number in range(len(self._followed))]
