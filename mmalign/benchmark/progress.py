"""What a long run says on the way: a line per step, and about how long the rest takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TextIO

__all__ = ["Progress", "duration"]


class Progress:
    """Counts steps and guesses the time that is left from the steps of each model so far.

    Args:
        steps: Model to its number of steps.
        stream: Where lines go; standard error by default.
    """

    def __init__(self, steps: Mapping[str, int], stream: TextIO | None = None) -> None:
        self._left = dict(steps)
        self._total, self._done = sum(steps.values()), 0
        self._seconds: dict[str, list[float]] = {}
        self._stream = stream

    def step(self, model: str, text: str, seconds: float) -> None:
        """One step is done."""
        self._seconds.setdefault(model, []).append(seconds)
        self._count(model, 1)
        left = self.seconds_left()
        tail = f"; about {duration(left)} left" if left else ""
        self._print(f"[{self._done}/{self._total}] {model}: {text}, {duration(seconds)}{tail}")

    def skip(self, model: str, text: str, steps: int) -> None:
        """Steps that were done before, or are not going to be."""
        self._count(model, min(steps, self._left[model]))
        self._print(f"[{self._done}/{self._total}] {model}: {text}")

    def rest(self, model: str) -> int:
        """Steps of a model that are left."""
        return self._left[model]

    def seconds_left(self) -> float:
        """Steps that are left, each at its model's mean so far, or at the mean of all models."""
        means = {model: sum(times) / len(times) for model, times in self._seconds.items()}
        usual = sum(means.values()) / len(means) if means else 0.0
        return sum(count * means.get(model, usual) for model, count in self._left.items())

    def _count(self, model: str, steps: int) -> None:
        self._left[model] -= steps
        self._done += steps

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr if self._stream is None else self._stream, flush=True)


def duration(seconds: float) -> str:
    """Write a duration for people.

    Example:
        >>> duration(3.21), duration(75), duration(5400)
        ('3.2 s', '75 s', '1.5 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
