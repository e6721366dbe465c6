"""``mmalign fit``: from a config to an artefact."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.atomic import check_writable
from mmalign.cli.process import process_number
from mmalign.cli.setup import attribute_encoder, encode, load_encoders, resolve_paths, run_folder
from mmalign.data.audit import audit
from mmalign.data.catalog import Catalog
from mmalign.errors import DataError
from mmalign.evaluation.protocol import evaluate
from mmalign.evaluation.report import number
from mmalign.evaluation.result import Evaluation
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Encoder, Feature
from mmalign.models import MODELS, Aligned
from mmalign.models.neural.base import NeuralModel
from mmalign.recommender import Recommender
from mmalign.recommender.artefact import FILES
from mmalign.trainers.fit import FitResult, fit
from mmalign.trainers.options import parse_fit

if TYPE_CHECKING:
    from lightning.pytorch import Callback

__all__ = ["fit_recommender", "run"]


def run(arguments: list[str]) -> int:
    """Parse as LightningCLI does, fit, save, and print what valid says."""
    options = parse_fit(arguments)
    if options is None:  # --help or --print_config
        return 0
    output = Path(options.output)
    check_writable(output, FILES)
    started = time.perf_counter()
    is_first = process_number(options.config.trainer) == 0
    recommender, _, _ = fit_recommender(
        resolve_paths(options.config), options.output, resume=options.ckpt_path, progress=is_first
    )
    if is_first:
        recommender.save_pretrained(output)
        for name, metrics in recommender.measured.items():
            print(f"{name}: NDCG@20 {number(metrics['ndcg@20'], digits=4)}", file=sys.stderr)
        seconds = time.perf_counter() - started
        print(f"saved {output} after {seconds:.0f} s", file=sys.stderr)
    return 0


def fit_recommender(
    config: ExperimentConfig,
    output: str | None,
    *,
    catalog: Catalog | None = None,
    resume: str | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> tuple[Recommender, FitResult, Catalog]:
    """Read, audit, encode, fit, measure on valid, and fit anew on all rows if asked to.

    Args:
        config: The experiment.
        output: Where the artefact will go, for the folder of logs and checkpoints.
        catalog: The data; read as the config says where it is left out.
        resume: A checkpoint to go on from.
        callbacks: More of Lightning's for a network's training.
        progress: Whether to show bars and notes.
    """
    catalog = catalog or Catalog.read(config.data)
    found = audit(catalog)
    if progress:
        for notice in (*catalog.notices, *found.warnings):
            print(f"note: {notice}", file=sys.stderr)
    if found.errors:
        raise DataError(found.errors[0], fix="see mmalign validate for all that is wrong")
    folder = run_folder(config, output)
    if issubclass(MODELS[config.model.name], Aligned | NeuralModel):
        check_writable(folder)
        if progress:
            print(f"logs and checkpoints: {folder}", file=sys.stderr)
    encoders = load_encoders(config) if MODELS[config.model.name].uses_content else {}
    fit_on = partial(_fit, encoders=encoders, callbacks=callbacks, progress=progress)
    recommender, result = fit_on(config, catalog, folder=folder, resume=resume)
    if catalog.matrix("valid").nnz:
        recommender.measured = _measured(evaluate(recommender, catalog, "valid"))
    if config.training.refit:
        everything = replace(catalog, interactions=catalog.interactions.assign(split="train"))
        longest = replace(config, trainer={**config.trainer, **_best_length(result, config)})
        if progress:
            print("fitting anew on all rows", file=sys.stderr)
        again, _ = fit_on(longest, everything, folder=folder / "refit")
        again.config, again.calibration = config, recommender.calibration
        again.measured = recommender.measured
        return again, result, everything
    return recommender, result, catalog


def _fit(
    config: ExperimentConfig,
    catalog: Catalog,
    *,
    encoders: dict[str, Encoder],
    folder: Path,
    callbacks: Sequence[Callback],
    progress: bool,
    resume: str | None = None,
) -> tuple[Recommender, FitResult]:
    features: dict[str, Feature] = {}
    attributes = None
    if MODELS[config.model.name].uses_content:
        attributes = attribute_encoder(config.data)
        features, _ = encode(config, catalog, encoders, attributes, quiet=not progress)
    result = fit(
        config,
        catalog,
        features,
        folder=folder,
        resume=resume,
        progress=progress,
        callbacks=callbacks,
    )
    recommender = Recommender.from_catalog(
        result.model,
        result.calibration,
        config,
        catalog,
        features,
        encoders={modality: encoder.fingerprint for modality, encoder in encoders.items()},
        attributes=attributes.to_dict() if attributes else {},
    )
    return recommender, result


def _best_length(result: FitResult, config: ExperimentConfig) -> dict[str, int]:
    """Epochs until valid was best; nothing where valid told nothing."""
    watched = [point for point in result.curve if point.name == config.training.monitor]
    if not watched:
        return {}
    return {"max_epochs": max(watched, key=lambda point: point.value).epoch + 1}


def _measured(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    shown = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
    return {
        f"valid, {name}": {metric: float(part.metrics[metric]) for metric in shown}
        for name, part in evaluation.slices.items()
        if len(part.users)
    }
