"""mmalign: recommendations that know what an item is and what people do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmalign.cli.api import add_items, fit
    from mmalign.recommender import Recommender

__all__ = ["Recommender", "__version__", "add_items", "fit"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for and no sooner: ``import mmalign`` itself loads nothing."""
    if name in ("add_items", "fit"):
        from mmalign.cli import api

        return getattr(api, name)
    if name == "Recommender":
        from mmalign.recommender import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
