"""What is validated, kept and said of a training run."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from mmalign.config import to_dict
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import SLICES

__all__ = ["ConfigFile", "Curve", "CurvePoint", "LastEpoch", "Lines", "quiet_lightning"]

_EXPECTED = (
    r"Checkpoint directory .* exists and is not empty",  # of an earlier run, meant to be replaced
    r"The '\w+_dataloader' does not have many workers",  # batches are row numbers
    r"Your `IterableDataset` has `__len__` defined",  # one process reads a stream
    r"Found \d+ module\(s\) in eval mode",  # what is frozen
    r"The dirpath has changed",  # the best checkpoint comes along
)


@dataclass(frozen=True)
class CurvePoint:
    """One logged value: ``valid/ndcg@20`` at an epoch, counted from 0 as in the logs."""

    epoch: int
    name: str
    value: float


class Curve(Callback):
    """Keeps what was logged, epoch by epoch, across a resume too."""

    def __init__(self) -> None:
        self.points: list[CurvePoint] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the means of the steps, and diagnostics."""
        self._keep(trainer, ("train/", "diagnostics/"))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep metrics."""
        self._keep(trainer, ("valid/",))

    def state_dict(self) -> dict[str, Any]:
        """Plain values, which a checkpoint may hold."""
        return {"points": [[p.epoch, p.name, p.value] for p in self.points]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.points = [CurvePoint(*point) for point in state_dict["points"]]

    def _keep(self, trainer: Trainer, prefixes: tuple[str, ...]) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefixes):
                self.points.append(CurvePoint(trainer.current_epoch, name, float(value)))


class ConfigFile(Callback):
    """Writes ``config.yaml``, all that a run was told, before its first step.

    Args:
        config: The experiment.
        folder: Of the run.
    """

    def __init__(self, config: ExperimentConfig, folder: Path) -> None:
        self._config, self._folder = config, folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write in one process of all."""
        if trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(to_dict(self._config), sort_keys=False, allow_unicode=True)
            (self._folder / "config.yaml").write_text(text, encoding="utf-8")


class LastEpoch(Callback):
    """Validates at the end of training too, whatever ``check_val_every_n_epoch`` says.

    Without it a training shorter than that would never be validated, and the epochs after its last
    multiple could never be chosen. How long training lasts is told by ``max_epochs`` or
    ``max_steps``; an end by ``max_time`` is not foreseen.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was asked for."""
        self._every = trainer.check_val_every_n_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the last epoch validated."""
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if is_last else self._every

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Have the last step validated, in the middle of an epoch: one that stops early is."""
        if trainer.global_step == trainer.max_steps:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True


class Lines(Callback):
    """Prints a line per validated epoch to standard error, for a log file."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print loss and metrics, or the loss alone where nothing is ever validated."""
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and epoch % (trainer.check_val_every_n_epoch or 1) == 0:
            found = trainer.callback_metrics
            names = {
                "loss": "train/loss",
                **{name: f"valid/{name}_ndcg@20" for name in SLICES},
                "harmonic": "valid/ndcg@20",
                "retrieval": "valid/retrieval",
            }
            shown = [f"{k} {float(found[name]):.4f}" for k, name in names.items() if name in found]
            print(f"epoch {epoch}/{trainer.max_epochs}: {', '.join(shown)}", file=sys.stderr)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which metric was best, and whether it ended training."""
        stop = trainer.early_stopping_callback
        if not (trainer.is_global_zero and isinstance(stop, EarlyStopping)):
            return
        if math.isinf(float(stop.best_score)):
            print("training ended before any validation: the last weights stay", file=sys.stderr)
        else:
            why = f", no better for {stop.wait_count} validations" if stop.stopped_epoch else ""
            print(f"best {stop.monitor} {float(stop.best_score):.4f}{why}", file=sys.stderr)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes and tips out of the output; its real warnings stay."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
