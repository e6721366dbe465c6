"""Look for a model's settings on valid: an Optuna study that can be broken off and gone on with."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.benchmark.fitting import fit_scorer
from mmalign.benchmark.objective import Objective
from mmalign.benchmark.pruning import Pruning
from mmalign.benchmark.space import Choices, Space, lay, search_space, setting
from mmalign.data.catalog import Catalog
from mmalign.errors import MissingDependencyError, TrainingError, in_one_line
from mmalign.evaluation.protocol import evaluate
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Features
from mmalign.models import MODELS

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = ["TrialReport", "Tuned", "tune"]

_STARTUP = 5  # trials drawn at random before the sampler and the pruner trust what they saw


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        values: Dotted setting to value; empty when nothing beat the configured settings.
        score: Of the best trial on valid.
        monitor: What was maximised.
        trials: Trials that ran, of which some were ``pruned`` and some ``failed``.
        seconds: In trials.
        budget: Trials and minutes that were allowed.
    """

    values: Mapping[str, Any]
    score: float
    monitor: str
    trials: int
    pruned: int
    failed: int
    seconds: float
    budget: Mapping[str, Any]


@dataclass(frozen=True)
class TrialReport:
    """One trial, as it is told to whoever waits.

    Attributes:
        number: Counted from 1.
        of: Trials that are allowed.
        state: ``complete``, ``pruned`` or ``fail``.
        score: On valid; None when there is none.
        best: Best so far.
        seconds: Wall time.
        problem: Why it failed.
    """

    number: int
    of: int
    state: str
    score: float | None
    best: float | None
    seconds: float
    problem: str = ""


def tune(
    config: ExperimentConfig,
    catalog: Catalog,
    features: Features,
    journal: Path,
    report: Callable[[TrialReport], None] = lambda _: None,
) -> Tuned:
    """Spend the budget of trials on the named model.

    The first trial is the model as it is configured, so tuning never loses to that on valid. Each
    later one draws from a sampler that is seeded by the trial's number, so a search that was
    broken off goes on as if it had not been. A model without a search space has one trial.

    Args:
        config: With the model named.
        catalog: Train and valid rows are read.
        features: Content for the model.
        journal: File of the study; trials in it are not repeated.
        report: Called after each trial.

    Raises:
        TrainingError: Every trial failed; the error is that of the first.
        MissingDependencyError: The model needs a library that is not installed.
    """
    from optuna import TrialPruned
    from optuna.trial import TrialState

    space = search_space(config, config.model.name)
    objective = Objective.parse(config.benchmark.monitor).for_model(MODELS[config.model.name])
    wanted = config.benchmark.trials if space else 1
    study = _open(journal)
    while len(done := _counted(study, wanted, config)) < wanted and not _is_late(done, config):
        trial, values = _ask(study, space, config, len(done))
        trial.set_user_attr("values", values)
        started, score, state, problem = time.perf_counter(), None, TrialState.COMPLETE, ""
        try:
            score = _score(config, values, catalog, features, objective, trial)
        except TrialPruned:
            state = TrialState.PRUNED
        except MissingDependencyError:
            raise
        except Exception as error:  # of whatever library: the next settings may work
            state = TrialState.FAIL
            problem = in_one_line(error)
        seconds = time.perf_counter() - started
        trial.set_user_attr("seconds", seconds)
        if problem:
            trial.set_user_attr("problem", problem)
        study.tell(trial, score, state)
        best = _best(_counted(study, wanted, config))
        report(
            TrialReport(
                len(done) + 1,
                wanted,
                state.name.lower(),
                score,
                None if best is None else best.value,
                seconds,
                problem,
            )
        )
    return _summary(_counted(study, wanted, config), objective, config)


def _open(journal: Path) -> Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal.parent.mkdir(parents=True, exist_ok=True)
    _mend(journal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that journals are experimental in older releases
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name="tuning",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP),
            load_if_exists=True,
        )
    for trial in study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)):
        # Left by a process that died: it is run again, and counts for nothing.
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _mend(journal: Path) -> None:
    """Remove the lock of a process that was killed, and cut what cannot be read and what follows.

    A process that is killed leaves half a line, a machine that loses its power a line of zeros.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.is_file():
        lines = journal.read_bytes().split(b"\n")
        whole = list(takewhile(_is_entry, lines[:-1]))
        if len(whole) + 1 < len(lines) or lines[-1]:
            journal.write_bytes(b"".join(line + b"\n" for line in whole))


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _counted(study: Study, wanted: int, config: ExperimentConfig) -> list[FrozenTrial]:
    """Trials that ran to some end of their own, as far as the budget goes.

    A larger budget may have left more in the journal: they would make one model's search longer
    than another's.
    """
    counted: list[FrozenTrial] = []
    for trial in study.get_trials(deepcopy=False):
        if len(counted) == wanted or _is_late(counted, config):
            break
        if "seconds" in trial.user_attrs:
            counted.append(trial)
    return counted


def _is_late(done: list[FrozenTrial], config: ExperimentConfig) -> bool:
    spent = sum(trial.user_attrs["seconds"] for trial in done)
    minutes = config.benchmark.minutes
    return bool(done) and minutes is not None and spent >= 60 * minutes


def _ask(
    study: Study, space: Space, config: ExperimentConfig, number: int
) -> tuple[Trial, dict[str, Any]]:
    import optuna

    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, seed=seed)
    if number:
        trial = study.ask()
        return trial, {name: _suggest(trial, name, space) for name in space}
    # The sampler learns from the configured settings as far as they lie in the space.
    start = {name: setting(config, config.model.name, name) for name in space}
    start = {name: value for name, value in start.items() if _holds(space, name, value)}
    study.enqueue_trial(start)
    trial = study.ask()
    for name in start:
        _suggest(trial, name, space)
    return trial, {}


def _suggest(trial: Trial, name: str, space: Space) -> Any:
    entry = space[name]
    if isinstance(entry, Choices):
        return trial.suggest_categorical(name, entry.choices)
    if isinstance(entry.low, int) and isinstance(entry.high, int):
        return trial.suggest_int(name, entry.low, entry.high, log=entry.log)
    return trial.suggest_float(name, entry.low, entry.high, log=entry.log)


def _holds(space: Space, name: str, value: Any) -> bool:
    entry = space[name]
    if isinstance(entry, Choices):
        return value in entry.choices
    return isinstance(value, int | float) and entry.low <= value <= entry.high


def _score(
    config: ExperimentConfig,
    values: Mapping[str, Any],
    catalog: Catalog,
    features: Features,
    objective: Objective,
    trial: Trial,
) -> float:
    callbacks = [Pruning(trial, config.training.monitor)]
    laid = lay(config, config.model.name, values)
    scorer, _ = fit_scorer(laid, catalog, features, callbacks=callbacks)
    found = evaluate(
        scorer,
        catalog,
        "valid",
        ks=(objective.k,),
        slices=objective.slices,
        exclude_seen=config.evaluation.exclude_seen,
    )
    score = objective.value(found)
    if not np.isfinite(score):
        raise TrainingError(f"{objective} cannot be measured", got=score, fix="check valid")
    return score


def _best(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The best complete trial, the earliest of equal ones."""
    from optuna.trial import TrialState

    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def _summary(done: list[FrozenTrial], objective: Objective, config: ExperimentConfig) -> Tuned:
    from optuna.trial import TrialState

    best = _best(done)
    if best is None:
        raise TrainingError(
            f"all {len(done)} trials failed, the first with",
            got=done[0].user_attrs.get("problem", ""),
            fix=f"see mmalign fit --model.name {config.model.name}",
        )
    states = [trial.state for trial in done]
    assert best.value is not None
    return Tuned(
        values=best.user_attrs["values"],
        score=best.value,
        monitor=str(objective),
        trials=len(done),
        pruned=states.count(TrialState.PRUNED),
        failed=states.count(TrialState.FAIL),
        seconds=sum(trial.user_attrs["seconds"] for trial in done),
        budget={"trials": config.benchmark.trials, "minutes": config.benchmark.minutes},
    )
