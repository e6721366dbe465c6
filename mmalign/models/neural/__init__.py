"""Published neural recommenders: short files over one base, one trainer and shared parts."""

from __future__ import annotations
