"""A bar with rate and time left, for what takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["advancing", "progress_bar", "shows_bars"]


def shows_bars() -> bool:
    """Whether standard error is a terminal, the only place for a bar."""
    return sys.stderr.isatty()


@contextmanager
def advancing(what: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Draw a bar of its own while a block runs.

    Args:
        what: Label.
        total: Steps in all.
        shown: Whether to draw at all.

    Yields:
        A function that takes the number of steps that were done; any thread may call it.
    """
    if not shown or not total:
        yield lambda count: None
        return
    with progress_bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def progress_bar() -> Progress:
    """Make a bar on standard error, without tasks."""
    # Imported here because it takes a while, which a command without a bar need not pay for.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
