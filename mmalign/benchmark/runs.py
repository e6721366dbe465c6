"""Do a plan: tune each model, then run it under every seed; what is done already is kept."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmalign.benchmark.children import run_child
from mmalign.benchmark.inputs import write_features
from mmalign.benchmark.plan import Job, Plan, measure_job, tune_job
from mmalign.benchmark.progress import Progress
from mmalign.benchmark.results import Run, read_run, read_tuned
from mmalign.benchmark.space import search_space
from mmalign.benchmark.tuning import Tuned
from mmalign.benchmark.worker import Assignment
from mmalign.errors import MissingDependencyError, TrainingError
from mmalign.interfaces import Features

__all__ = ["Outcome", "run_plan"]

SCRATCH = ".features-"


@dataclass
class Outcome:
    """What came of a plan.

    Attributes:
        plan: The plan.
        tuned: Model to what its search found.
        runs: Model to its runs, one per seed.
        failed: Model to a line that says why.
        not_run: The same for models that cannot run here.
    """

    plan: Plan
    tuned: dict[str, Tuned] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)


def run_plan(plan: Plan, features: Features, output: Path) -> Outcome:
    """Run all jobs, one after the other, so that times are not those of a crowded machine.

    Args:
        plan: What to do.
        features: All that any model of the plan needs.
        output: Folder that keeps searches (``tuning``), runs (``runs``) and logs (``logs``).
    """
    outcome = Outcome(plan, not_run=dict(plan.not_run))
    settings = plan.config.benchmark
    steps = {
        model: (settings.trials if search_space(plan.config, model) else 1) + len(settings.seeds)
        for model in plan.modalities
    }
    progress = Progress(steps)
    output.mkdir(parents=True, exist_ok=True)
    with _written(features, output) as file:
        for model in plan.modalities:
            worker = _Worker(plan, model, file, output, progress)
            try:
                tuned = worker.tune()
                runs = [worker.measure(tuned, seed) for seed in settings.seeds]
            except MissingDependencyError as error:
                outcome.not_run[model] = str(error)
                progress.skip(model, f"not run: {error}", progress.rest(model))
            except TrainingError as error:
                outcome.failed[model] = str(error)
                progress.skip(model, f"failed: {error}", progress.rest(model))
            else:
                outcome.tuned[model], outcome.runs[model] = tuned, runs
    return outcome


@contextmanager
def _written(features: Features, output: Path) -> Iterator[Path]:
    """A file for the children to read; those that killed runs left go first."""
    for left in output.glob(f"{SCRATCH}*"):
        if not _is_running(left.name.removeprefix(SCRATCH).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-", dir=output) as folder:
        file = Path(folder, "features.safetensors")
        write_features(features, file)
        yield file


def _is_running(process: str) -> bool:
    """Whether a process of this number is there."""
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


class _Worker:
    """The jobs of one model."""

    def __init__(
        self, plan: Plan, model: str, features: Path, output: Path, progress: Progress
    ) -> None:
        self._plan, self._model = plan, model
        self._features, self._output, self._progress = features, output, progress
        self._since = time.perf_counter()

    def tune(self) -> Tuned:
        settings = self._plan.config.benchmark
        budget = {"trials": settings.trials, "minutes": settings.minutes}
        job = tune_job(self._plan, self._model)
        file = self._output / "tuning" / f"{job.name}.json"
        seeds, before = len(settings.seeds), self._progress.rest(self._model)
        tuned = read_tuned(file, budget)
        if tuned is None:
            self._run(job, file)
            tuned = read_tuned(file, budget)
            if tuned is None:
                raise TrainingError(f"{file} cannot be read", fix="remove it and run again")
        left = self._progress.rest(self._model) - seeds
        if left:  # trials of an earlier run, or that the time limit left out
            what = "tuned before" if left == before - seeds else "no further trials to run"
            self._progress.skip(self._model, f"{what}, {tuned.monitor} {tuned.score:.4f}", left)
        return tuned

    def measure(self, tuned: Tuned, seed: int) -> Run:
        job = measure_job(self._plan, self._model, tuned.values, seed)
        folder = self._output / "runs" / job.name
        run = read_run(folder, job.key)
        if run is not None:
            self._progress.skip(self._model, f"seed {seed} measured before", 1)
            return run
        self._run(job, folder)
        run = read_run(folder, job.key)
        if run is None:
            raise TrainingError(f"{folder} cannot be read", fix="remove it and run again")
        self._step(f"seed {seed} measured")
        return run

    def _run(self, job: Job, output: Path) -> None:
        self._since = time.perf_counter()
        assignment = Assignment(job, self._features, output)
        run_child(assignment, self._output / "logs" / f"{job.name}.log", self._tell)

    def _tell(self, trial: Mapping[str, Any]) -> None:
        what = "-" if trial["score"] is None else f"{trial['score']:.4f}"
        if trial["state"] != "complete":
            what = f"{trial['state']} {trial['problem']}".strip()
        best = "" if trial["best"] is None else f" (best {trial['best']:.4f})"
        self._step(f"trial {trial['number']}/{trial['of']} {what}{best}")

    def _step(self, text: str) -> None:
        now = time.perf_counter()
        self._progress.step(self._model, text, now - self._since)
        self._since = now
