"""A folder with an adapter alone and its base, written as one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mmalign.encoders.presets import read_preset
from mmalign.encoders.tuning.towers import open_tower
from mmalign.errors import EncoderError

__all__ = ["save_merged"]


def save_merged(folder: str | Path, output: str | Path) -> None:
    """Write the encoder of an adapter's folder as one that needs neither its base nor peft.

    It gives the same rows, loads in the library of its base without mmalign, and can be tuned on.

    Args:
        folder: What ``mmalign finetune`` wrote with ``merge: false``.
        output: Written whole or not at all; replaced if it holds such an encoder.

    Raises:
        EncoderError: There is no adapter, or its base is not there or not what it was.
        DataError: The output cannot be written; what was there is as it was.
        MissingDependencyError: A library is not installed.
    """
    preset = read_preset(folder)
    if preset.adapter is None:
        raise EncoderError(
            "there is no adapter to merge",
            got=str(folder),
            fix="name a folder that finetune wrote with merge: false",
        )
    tower = open_tower(folder, preset, _AsItIs())
    tower.origin = replace(tower.origin, preset=replace(preset, adapter=None))
    tower.save_pretrained(Path(output))


@dataclass(frozen=True)
class _AsItIs:
    """A tuning that trains and changes nothing."""

    mode: str = "frozen"
    last_n: int = 0
    rank: int = 0
    alpha: float = 0
    dropout: float = 0
    targets: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    dim: int | None = None
    hidden: int = 0
    checkpointing: bool = False
    test_views: Literal[1, 2, 4] | None = None
    views: int = 0
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    max_length: int | None = None
