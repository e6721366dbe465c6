"""Libraries that only a benchmark needs."""

from __future__ import annotations

from importlib.util import find_spec

from mmalign.errors import MissingDependencyError

__all__ = ["require_extras"]


def require_extras() -> None:
    """Fail before any work when a library is missing.

    Raises:
        MissingDependencyError: The extra ``benchmark`` is not installed.
    """
    missing = [name for name in ("optuna", "matplotlib") if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"benchmark needs {' and '.join(missing)}", fix="pip install 'mmalign[benchmark]'"
        )
