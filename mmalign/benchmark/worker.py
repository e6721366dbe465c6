"""The child process of a benchmark: one job from standard input, JSON lines of events out.

Each job has a process of its own, so that its peak memory is its own and a job that is killed takes
nothing else with it. Started by :mod:`mmalign.benchmark.children`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmalign.benchmark.inputs import read_features
from mmalign.benchmark.measure import measure
from mmalign.benchmark.plan import Job
from mmalign.benchmark.results import write_run, write_tuned
from mmalign.benchmark.tuning import tune
from mmalign.config import from_dict
from mmalign.data.catalog import Catalog
from mmalign.errors import MissingDependencyError

__all__ = ["Assignment", "do", "main"]


@dataclass(frozen=True)
class Assignment:
    """A job and where its files are.

    Attributes:
        job: What to do.
        features: File of the features.
        output: JSON file of a search (its journal stands beside it), or folder of a run.
    """

    job: Job
    features: Path
    output: Path


def main() -> int:
    """Read an assignment, do it, and tell on the way."""
    # Events have the pipe for themselves: what libraries print goes to the log.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    assignment = from_dict(Assignment, json.loads(sys.stdin.readline()))
    tempfile.tempdir = str(assignment.features.parent)  # which goes, however this process ends
    threading.Thread(target=_end_with_parent, args=(0,), daemon=True).start()

    def tell(**event: Any) -> None:
        print(json.dumps(event), file=events, flush=True)

    try:
        do(assignment, tell)
    except Exception as error:  # the parent shows one line of it, the log has all
        traceback.print_exc()
        line = " ".join(str(error).split()) or type(error).__name__
        kind = "missing" if isinstance(error, MissingDependencyError) else "error"
        tell(event=kind, message=line)
        return 1
    return 0


def do(assignment: Assignment, tell: Callable[..., None]) -> None:
    """Do a job and write its files.

    Args:
        assignment: The job and its files.
        tell: Called with the fields of each event.
    """
    job = assignment.job
    catalog = Catalog.read(job.config.data)
    features = read_features(assignment.features, job.modalities)
    if job.kind == "measure":
        write_run(assignment.output, measure(job, catalog, features))
        return
    journal = assignment.output.with_suffix(".journal")
    tuned = tune(
        job.config,
        catalog,
        features,
        journal,
        lambda trial: tell(event="trial", **asdict(trial)),
    )
    write_tuned(assignment.output, tuned)


def _end_with_parent(pipe: int) -> None:
    """Wait for the end of a pipe that only the parent holds open: without it, work is in vain.

    The descriptor is read past ``sys.stdin``, whose lock Python wants to have when it exits.
    """
    while os.read(pipe, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
