"""Frozen content encoders: what turns texts, pictures and attributes into feature rows.

Light to import: torch, transformers, open_clip and timm are only loaded with an encoder.
"""

from __future__ import annotations

if __name__ != "mmalign.encoders":
    raise ImportError(
        "this folder is the package mmalign.encoders: install the project (pip install -e .) "
        "and import mmalign.encoders"
    )

from mmalign.encoders.attributes import AttributeEncoder, AttributeSpec
from mmalign.encoders.presets import PresetConfig, available_presets, load_encoder, read_preset

__all__ = [
    "AttributeEncoder",
    "AttributeSpec",
    "PresetConfig",
    "available_presets",
    "load_encoder",
    "read_preset",
]
