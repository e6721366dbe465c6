"""mmalign: recommendations that know what an item is and what people do with it."""

from __future__ import annotations

__version__ = "0.1.0"
