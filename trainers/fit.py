"""Fit any model to a catalogue: ``mmalign fit``, or ``python trainers/fit.py`` with its options."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Features
from mmalign.models import Aligned, Model, TrainData, build_model
from mmalign.models.calibration import Calibration
from mmalign.models.neural.base import NeuralModel
from mmalign.trainers.calibrate import choose_calibration
from mmalign.trainers.options import check_plain
from mmalign.trainers.train import CurvePoint, train

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """A fitted model and how it got there.

    Attributes:
        model: Ready to rank.
        calibration: Chosen on valid.
        curve: What training logged; empty for closed forms.
        seconds: Step (``fit``, ``train``, ``calibrate``) to wall time.
    """

    model: Model[Any]
    calibration: Calibration
    curve: list[CurvePoint] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def fit(
    config: ExperimentConfig,
    catalog: Catalog,
    features: Features,
    *,
    folder: str | Path = ".mmalign/runs/default",
    resume: str | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Fit the configured model on the train rows and calibrate it on the valid rows.

    Args:
        config: ``model``, ``training``, ``trainer`` and ``seed`` are read.
        catalog: Interactions.
        features: Content of ``catalog``'s items, row by row.
        folder: Config, logs and checkpoints of a network.
        resume: A checkpoint of a network to go on from.
        progress: Whether to show a bar.
        callbacks: More of Lightning's for a network's training.

    Raises:
        ConfigError: There is a checkpoint to resume from, and nothing that is trained; or a
            ``trainer`` option is no plain value.
        MMAlignError: As the model, the trainer or the data say.
    """
    check_plain(config.trainer)
    seconds: dict[str, float] = {}
    model = build_model(config.model, seed=config.seed)
    if resume is not None and not isinstance(model, Aligned | NeuralModel):
        raise ConfigError(
            f"model {config.model.name!r} is not trained step by step",
            got=resume,
            fix="leave --ckpt_path out",
        )
    data = TrainData(catalog.matrix(), features, catalog.neighbours, catalog.times())
    with _Clock(seconds, "fit"):
        torch.manual_seed(config.seed)
        model.fit(data)
    curve: list[CurvePoint] = []
    if isinstance(model, Aligned | NeuralModel):
        with _Clock(seconds, "train"):
            curve = train(
                model,
                data,
                catalog,
                seed=config.seed,
                folder=Path(folder),
                training=config.training,
                trainer_options=config.trainer,
                config=config,
                resume=resume,
                progress=progress,
                callbacks=callbacks,
            )
    with _Clock(seconds, "calibrate"):
        calibration = choose_calibration(model, catalog, seed=config.seed)
    return FitResult(model, calibration, curve, seconds)


class _Clock:
    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = time.perf_counter() - self._start


if __name__ == "__main__":
    import sys

    from mmalign.cli.main import main

    sys.exit(main(["fit", *sys.argv[1:]]))
