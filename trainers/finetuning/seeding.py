"""Random draws that are a function of where training stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["seeded"]


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Draw by these numbers alone, and leave torch's generator where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng(numbers).integers(2**62)))
        yield
