"""The errors mmalign raises: each one line that says what was wrong, the value, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ArtefactError",
    "ConfigError",
    "DataError",
    "EncoderError",
    "MMAlignError",
    "MissingDependencyError",
    "TrainingError",
    "in_one_line",
    "nearest",
]

_UNSET = object()


class MMAlignError(Exception):
    """Base of all mmalign errors.

    Args:
        problem: What was wrong, without a final full stop.
        got: The offending value, shown with ``repr`` (shortened to 120 characters).
        fix: What the user should do.

    Example:
        >>> print(MMAlignError("k must be positive", got=0, fix="pass k >= 1"))
        k must be positive (got 0): pass k >= 1
    """

    def __init__(self, problem: str, *, got: object = _UNSET, fix: str = "") -> None:
        shown = "" if got is _UNSET else f" (got {_shorten(repr(got))})"
        remedy = f": {fix}" if fix else ""
        super().__init__(" ".join(f"{problem}{shown}{remedy}".split()))


class ConfigError(MMAlignError, ValueError):
    """A configuration key or value is wrong."""


class DataError(MMAlignError, ValueError):
    """The user's files or frames cannot be used as they are."""


class EncoderError(MMAlignError, RuntimeError):
    """An encoder cannot be resolved, loaded or run."""


class ArtefactError(MMAlignError, ValueError):
    """A saved recommender is incomplete, unsafe, or of another format version."""


class TrainingError(MMAlignError, RuntimeError):
    """Training cannot start or cannot go on."""


class MissingDependencyError(MMAlignError, ImportError):
    """An optional dependency is absent; the message names the exact ``pip install``."""


def in_one_line(error: BaseException) -> str:
    r"""Name another library's error, and give the first line of what it says.

    Example:
        >>> in_one_line(KeyError("no\nmore"))
        "KeyError: 'no\\nmore'"
        >>> in_one_line(ValueError("cut\nTraceback"))
        'ValueError: cut'
    """
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def nearest(name: str, choices: Iterable[str]) -> str:
    """Phrase a hint that names the closest valid choice, whatever its case, and lists them all.

    Example:
        >>> nearest("lerning_rate", ["learning_rate", "seed"])
        "did you mean 'learning_rate'? Valid: learning_rate, seed"
    """
    valid = sorted(choices)
    by_lower = {choice.lower(): choice for choice in valid}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    guess = f"did you mean {by_lower[close[0]]!r}? " if close else ""
    return f"{guess}Valid: {', '.join(valid)}"


def _shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
