"""How the learning rate goes."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["warmup_cosine"]


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: float) -> LambdaLR:
    """Rise in a straight line over a share of all steps, then fall to zero as half a cosine.

    Args:
        optimizer: Its rates are the highest ones.
        steps: Steps of the optimizer in the whole run.
        warmup: Share of them, in [0, 1].
    """
    rising = int(warmup * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(steps - rising, 1)
        return (1 + math.cos(math.pi * min(done, 1.0))) / 2

    return LambdaLR(optimizer, factor)
