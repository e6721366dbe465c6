"""The steps of a long run on a terminal: a line each, with what came of it and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

__all__ = ["Steps"]


@dataclass
class Note:
    """What came of a step; set while it runs, printed when it ends."""

    text: str = ""


class Steps:
    """Times the steps of a run and prints each when it is done.

    Args:
        console: Where to print.

    Attributes:
        seconds: Step to wall time, in order.

    Example:
        >>> steps = Steps(Console(width=40))
        >>> with steps("count to three") as note:
        ...     note.text = "1, 2, 3"
        count to three                     0.0 s
          1, 2, 3
    """

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def __call__(self, name: str, *, draws: bool = False) -> Iterator[Note]:
        """Run one step.

        Args:
            name: What it does.
            draws: Whether it draws a bar of its own, so that no spinner may turn beside it.
        """
        started, note = time.perf_counter(), Note()
        turns = self._console.is_terminal and not draws
        with self._console.status(escape(name)) if turns else nullcontext():
            yield note
        self.seconds[name] = time.perf_counter() - started
        took = f"{self.seconds[name]:.1f} s"
        room = max(len(name) + 1, min(self._console.width, 80) - len(took))
        self._console.print(Text(name.ljust(room), "bold").append(took, "not bold"))
        if note.text:
            self._console.print(Padding(Text(note.text, "dim"), (0, 0, 0, 2), expand=False))
