"""Losses as pure functions on tensors: ``ranking`` of items and ``alignment`` of modalities."""

from __future__ import annotations
