"""What is kept and said of a training run: its curve, a line per validation, and no more."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from mmalign.interfaces import SLICES

__all__ = ["Curve", "CurvePoint", "Lines", "quiet_lightning"]

_EXPECTED = (
    r"Checkpoint directory .* exists and is not empty",  # of an earlier run, meant to be replaced
    r"The '\w+_dataloader' does not have many workers",  # batches are row numbers
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
        """Keep the means of the steps."""
        self._keep(trainer, ("train/",))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep metrics and diagnostics."""
        self._keep(trainer, ("valid/", "diagnostics/"))

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


class Lines(Callback):
    """Prints a line per validation to standard error, for a log file."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print loss and metrics of every validated epoch."""
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and epoch % (trainer.check_val_every_n_epoch or 1) == 0:
            found = trainer.callback_metrics
            names = {
                "loss": "train/loss",
                **{name: f"valid/{name}_ndcg@20" for name in SLICES},
                "harmonic": "valid/ndcg@20",
            }
            shown = [f"{k} {float(found[name]):.4f}" for k, name in names.items() if name in found]
            print(f"epoch {epoch}/{trainer.max_epochs}: {', '.join(shown)}", file=sys.stderr)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which metric was best, and whether it ended training."""
        stop = trainer.early_stopping_callback
        if trainer.is_global_zero and isinstance(stop, EarlyStopping):
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
