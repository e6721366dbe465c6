"""Which of several processes of one training run this is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["process_number", "stated_number"]

_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def process_number(trainer: Mapping[str, Any]) -> int:
    """Number of this process: 0 when it is the only one, or the first, which prints and writes.

    A training on one device is alone whatever number it was given: a sweep is many of those.

    Args:
        trainer: Options of Lightning's trainer.
    """
    devices, nodes = str(trainer.get("devices", "auto")), int(trainer.get("num_nodes") or 1)
    if devices in ("auto", "-1"):
        import torch  # takes long to import

        count = torch.cuda.device_count()
    else:
        count = int(devices) if devices.isdigit() else devices.strip("[] ,").count(",") + 1
    return stated_number() if count > 1 or nodes > 1 else 0


def stated_number() -> int:
    """The number that this process was given.

    Lightning starts the command line anew in every further process and tells it its number by a
    variable, as ``torchrun`` and SLURM do.
    """
    for name in _VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0
