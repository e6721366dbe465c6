"""A folder with an adapter alone and its base, written as one encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmalign.encoders.presets import read_preset
from mmalign.encoders.tuning.modes import AsItIs
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
    tower = open_tower(folder, preset, AsItIs())
    tower.origin = replace(tower.origin, preset=replace(preset, adapter=None))
    tower.save_pretrained(Path(output))
