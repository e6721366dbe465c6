"""Train a network with Lightning: loggers, early stopping, the best checkpoint, resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mmalign.data.catalog import Catalog
from mmalign.errors import TrainingError
from mmalign.experiment import TrainingConfig
from mmalign.models.aligned import Aligned
from mmalign.models.base import TrainData
from mmalign.trainers.data import UserDataModule
from mmalign.trainers.module import AlignedModule
from mmalign.trainers.options import check_trainer

__all__ = ["CurvePoint", "train"]

DEFAULTS: Mapping[str, Any] = {
    "max_epochs": 300,
    "check_val_every_n_epoch": 10,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class CurvePoint:
    """One logged value: ``valid/ndcg@20`` at an epoch, say."""

    epoch: int
    name: str
    value: float


def train(
    model: Aligned,
    data: TrainData,
    catalog: Catalog,
    *,
    seed: int,
    folder: Path,
    training: TrainingConfig,
    trainer_options: Mapping[str, Any],
    resume: str | None = None,
    progress: bool = True,
) -> list[CurvePoint]:
    """Train ``model.network`` in place and freeze the model at its best validated weights.

    Args:
        model: Prepared by ``fit``.
        data: What it was prepared on.
        catalog: Its valid rows steer early stopping and the checkpoint; without any, all epochs
            run and the last weights stay.
        seed: Of every draw.
        folder: For logs (CSV, TensorBoard) and checkpoints.
        training: What to watch, and how long.
        trainer_options: Arguments of ``lightning.Trainer`` over the defaults here.
        resume: A checkpoint to go on from.
        progress: Whether to show a bar.

    Returns:
        All that was logged, in order.

    Raises:
        ConfigError: An argument that ``Trainer`` does not have, or an unknown metric to monitor.
        TrainingError: The checkpoint cannot be read, or the loss is not finite.
    """
    torch.manual_seed(seed)
    validated = catalog.matrix("valid").nnz > 0
    curve = _Curve()
    best = (
        ModelCheckpoint(folder / "checkpoints", monitor=training.monitor, mode="max")
        if (validated)
        else ModelCheckpoint(folder / "checkpoints")
    )
    callbacks: list[Callback] = [curve, best]
    if validated:
        callbacks.append(
            EarlyStopping(training.monitor, patience=training.patience, mode="max", strict=True)
        )
    check_trainer(trainer_options)
    options = {**DEFAULTS, **{k: v for k, v in trainer_options.items() if v is not None}}
    options["enable_progress_bar"] = progress and options.get("enable_progress_bar", True)
    options["default_root_dir"] = folder
    if options["enable_progress_bar"]:
        callbacks.append(RichProgressBar())
    if not validated:
        options["limit_val_batches"] = 0
    trainer = Trainer(
        logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
        callbacks=callbacks,
        **options,
    )
    module = AlignedModule(model, data, catalog, seed=seed)
    users = UserDataModule(data, batch_size=model.config.batch_size, seed=seed)
    trainer.fit(module, datamodule=users, ckpt_path=_readable(resume), weights_only=True)
    if validated and best.best_model_path:
        _load_best(module, Path(best.best_model_path))
    model.network.to("cpu")
    model.freeze(data)
    return curve.points


class _Curve(Callback):
    """Keeps what was logged, epoch by epoch."""

    def __init__(self) -> None:
        self.points: list[CurvePoint] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, "train/")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, ("valid/", "diagnostics/"))

    def state_dict(self) -> dict[str, Any]:
        return {"points": [[p.epoch, p.name, p.value] for p in self.points]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = [CurvePoint(*point) for point in state_dict["points"]]

    def _keep(self, trainer: Trainer, prefix: str | tuple[str, ...]) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefix):
                self.points.append(CurvePoint(trainer.current_epoch, name, float(value)))


def _readable(resume: str | None) -> str | None:
    if resume is not None and not Path(resume).is_file():
        raise TrainingError(
            "there is no checkpoint to resume from", got=resume, fix="check --ckpt_path"
        )
    return resume


def _load_best(module: AlignedModule, path: Path) -> None:
    stored = torch.load(path, weights_only=True, map_location="cpu")
    module.load_state_dict(stored["state_dict"])
