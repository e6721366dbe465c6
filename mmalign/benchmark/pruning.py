"""Validations of a network in training, reported to the study that may end it early."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["Pruning"]


class Pruning(Callback):
    """Ends a trial whose validations are below the median of earlier trials at the same epoch.

    A model without validations, such as a closed form, is never pruned.

    Args:
        trial: Of the study.
        monitor: Logged metric, higher is better.
    """

    def __init__(self, trial: Trial, monitor: str) -> None:
        self._trial, self._monitor = trial, monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and stop when the study says so.

        Raises:
            TrialPruned: The trial is not worth going on with.
        """
        value = trainer.callback_metrics.get(self._monitor)
        if trainer.sanity_checking or value is None or not math.isfinite(float(value)):
            return
        self._trial.report(float(value), trainer.current_epoch)
        if self._trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"{self._monitor} {float(value):.4f} is below the median")
