"""Which of several processes of one training run this is."""

from __future__ import annotations

import os

__all__ = ["process_number"]

_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def process_number() -> int:
    """Number of this process: 0 when it is the only one, or the first.

    Lightning starts the command line anew in every further process and tells it its number by a
    variable, as ``torchrun`` and SLURM do. Only the first process prints and writes.
    """
    for name in _VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0
