"""The command line: the composition root, and the only room that may import everything."""

from __future__ import annotations

from mmalign.cli.main import main

__all__ = ["main"]
