"""Which models run, and the jobs that one benchmark is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from mmalign import __version__
from mmalign.benchmark.fitting import seeded
from mmalign.benchmark.inputs import Digest
from mmalign.benchmark.objective import Objective
from mmalign.benchmark.space import lay, search_space
from mmalign.config import to_dict
from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, DataError
from mmalign.evaluation.slices import build_slice
from mmalign.experiment import ExperimentConfig
from mmalign.models import MODELS, Aligned
from mmalign.models.neural.base import NeuralModel

__all__ = ["Job", "Plan", "make_plan", "measure_job", "tune_job"]

CODE_VERSION = 3
"""Raise it when the code changes what a model or its calibration gives: runs are made anew."""

Modalities = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Job:
    """What one child process does; it can be written as JSON.

    Attributes:
        kind: ``tune`` looks for settings on valid, ``measure`` fits once and measures on test.
        config: With the model named, and for ``measure`` with its tuned settings and seed.
        modalities: The features that the model gets.
        key: Digest of all that decides the outcome; equal keys need not run twice.
    """

    kind: Literal["tune", "measure"]
    config: ExperimentConfig
    modalities: tuple[str, ...]
    key: str

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.config.model.name

    @property
    def name(self) -> str:
        """Name of its files."""
        seed = f"-seed{self.config.seed}" if self.kind == "measure" else ""
        return f"{self.model}{seed}-{self.key[:12]}"


@dataclass(frozen=True)
class Plan:
    """What a benchmark is going to do.

    Attributes:
        config: The experiment.
        data: Digests of the data.
        modalities: Model to the features it gets; the models that run, in order.
        not_run: Model to the reason why it cannot.
    """

    config: ExperimentConfig
    data: Digest
    modalities: Modalities
    not_run: Mapping[str, str]


def make_plan(
    config: ExperimentConfig,
    catalog: Catalog,
    data: Digest | None = None,
    modalities: Modalities | None = None,
) -> Plan:
    """Check all that can be checked before hours are spent.

    Args:
        config: The experiment.
        catalog: Its valid and test rows must give something to measure.
        data: Digests of the data; None before anything is encoded.
        modalities: Model to the features there are for it; None before anything is encoded, when
            all models get what ``config.data`` names.

    Raises:
        ConfigError: A search space or the monitored metric is wrong, or the reference cannot run.
        DataError: A slice that is tuned or compared on has no users.
    """
    objective = Objective.parse(config.benchmark.monitor)

    def has_users(split: str, name: str) -> bool:
        return len(build_slice(catalog, split, name, config.evaluation.exclude_seen).users) > 0

    for split, name in (("valid", objective.slice or "all"), ("test", objective.slice or "all")):
        if not has_users(split, name):
            raise DataError(
                f"nobody has a {split} row in the slice {name!r}: nothing can be measured",
                fix="check the split column, data.split and benchmark.monitor",
            )
    has_warm = has_users("valid", "warm")
    running, not_run = {}, {}
    if modalities is None:
        named = [*config.data.text, *config.data.attributes]
        named += [config.data.image] if config.data.image is not None else []
        modalities = dict.fromkeys(MODELS, (*named, *catalog.features))
    for model in config.benchmark.models or tuple(MODELS):
        search_space(config, model)
        has_features, has_lists = bool(modalities.get(model)), bool(catalog.neighbours)
        if not MODELS[model].can_fit(features=has_features, neighbours=has_lists):
            not_run[model] = "it needs content, and data names no text, image or attribute"
        elif not (MODELS[model].serves_cold or has_warm):
            not_run[model] = "it ranks warm items alone, and nobody has a valid row of one"
        else:
            running[model] = modalities.get(model, ()) if MODELS[model].uses_content else ()
    if config.benchmark.reference in not_run:
        raise ConfigError(
            f"benchmark.reference {config.benchmark.reference} cannot run",
            got=not_run[config.benchmark.reference],
            fix="change data, or name another reference",
        )
    return Plan(config, data or Digest(), running, not_run)


def tune_job(plan: Plan, model: str) -> Job:
    """The search for a model's settings."""
    space = {name: to_dict(entry) for name, entry in search_space(plan.config, model).items()}
    objective = Objective.parse(plan.config.benchmark.monitor).for_model(MODELS[model])
    seen = plan.config.evaluation.exclude_seen
    return _job("tune", plan, lay(plan.config, model, {}), [space, str(objective), seen])


def measure_job(plan: Plan, model: str, values: Mapping[str, Any], seed: int) -> Job:
    """One final run under the tuned settings."""
    k = Objective.parse(plan.config.benchmark.monitor).k  # measured beside those of the protocol
    more = [] if k in plan.config.evaluation.ks else [k]
    evaluation = to_dict(plan.config.evaluation)
    return _job("measure", plan, seeded(lay(plan.config, model, values), seed), [evaluation, more])


def _job(kind: Literal["tune", "measure"], plan: Plan, config: ExperimentConfig, more: Any) -> Job:
    modalities = plan.modalities[config.model.name]
    is_trained = issubclass(MODELS[config.model.name], Aligned | NeuralModel)
    decisive = {
        "version": [__version__, CODE_VERSION],
        "data": plan.data.read_by(modalities),
        "modalities": modalities,
        "seed": config.seed,
        "model": [config.model.name, to_dict(getattr(config.model, config.model.name, {}))],
        "training": [to_dict(config.training), to_dict(config.trainer)] if is_trained else [],
        "more": more,
    }
    key = sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()
    return Job(kind, config, modalities, key)
