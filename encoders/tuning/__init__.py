"""Encoders in training: towers that read raw content with gradients, and their folders."""

from __future__ import annotations

from mmalign.encoders.tuning.assemble import fits_open_clip, place_open_clip
from mmalign.encoders.tuning.export import (
    beyond_sentences,
    check_base_apart,
    is_pair,
    own_scale,
    save_pair,
)
from mmalign.encoders.tuning.merge import save_merged
from mmalign.encoders.tuning.modes import Tuning
from mmalign.encoders.tuning.towers import Tower, load_tower

__all__ = [
    "Tower",
    "Tuning",
    "beyond_sentences",
    "check_base_apart",
    "fits_open_clip",
    "is_pair",
    "load_tower",
    "own_scale",
    "place_open_clip",
    "save_merged",
    "save_pair",
]
