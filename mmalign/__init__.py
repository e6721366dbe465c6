"""mmalign: recommendations that know what an item is and what people do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmalign.cli.api import fit
    from mmalign.recommender import Recommender

__all__ = ["Recommender", "__version__", "fit"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for and no sooner: ``import mmalign`` itself loads nothing."""
    if name == "fit":
        from mmalign.cli.api import fit

        return fit
    if name == "Recommender":
        from mmalign.recommender import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
