"""Start a child process for a job and listen to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmalign.benchmark.worker import Assignment
from mmalign.config import to_dict
from mmalign.errors import MissingDependencyError, TrainingError

__all__ = ["run_child"]


def run_child(
    assignment: Assignment, log: Path, listen: Callable[[dict[str, Any]], None] = lambda _: None
) -> None:
    """Do a job in a process of its own; it ends when this one does.

    Args:
        assignment: The job and its files.
        log: What the process prints.
        listen: Called with each event but errors.

    Raises:
        MissingDependencyError: The model needs a library that is not installed.
        TrainingError: The job failed; the message is one line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    failure: tuple[str, str] | None = None
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, "-m", "mmalign.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for this process, which then ends the other
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(to_dict(assignment)) + "\n")
            child.stdin.flush()
            for line in child.stdout:
                event = json.loads(line)
                if event["event"] in ("error", "missing"):
                    failure = event["event"], event["message"]
                else:
                    listen(event)
            child.wait()
        except BrokenPipeError:  # it died before it read
            child.wait()
        finally:
            child.kill()
    if failure is not None:
        kind = MissingDependencyError if failure[0] == "missing" else TrainingError
        raise kind(failure[1])
    if child.returncode:
        raise TrainingError(_end(child.returncode) + _last_line(log))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f", after {said[-1]!r}" if said else ""


def _end(code: int) -> str:
    """Say how a process ended that could not say it itself.

    Example:
        >>> _end(-9)
        'the process was ended by SIGKILL, as when memory runs out'
    """
    if code >= 0:
        return f"the process ended with code {code}"
    name = signal.Signals(-code).name
    memory = ", as when memory runs out" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{memory}"
