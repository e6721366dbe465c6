"""Encoders in training: towers that read raw content with gradients, and their folders."""

from __future__ import annotations

from mmalign.encoders.tuning.export import save_pair
from mmalign.encoders.tuning.modes import Tuning
from mmalign.encoders.tuning.towers import Tower, load_tower

__all__ = ["Tower", "Tuning", "load_tower", "save_pair"]
