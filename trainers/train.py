"""Train the network of a recommender on its interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, nearest
from mmalign.evaluation.slices import build_slice
from mmalign.experiment import ExperimentConfig, TrainingConfig
from mmalign.interfaces import SLICES
from mmalign.models.aligned import Aligned
from mmalign.models.base import TrainData
from mmalign.models.neural.base import NeuralModel
from mmalign.trainers.callbacks import CurvePoint
from mmalign.trainers.data import InteractionDataModule, UserDataModule
from mmalign.trainers.loop import run_lightning
from mmalign.trainers.module import AlignedModule
from mmalign.trainers.options import check_trainer
from mmalign.trainers.pairwise import PairwiseModule
from mmalign.trainers.resume import describe
from mmalign.trainers.validation import monitors

__all__ = ["CurvePoint", "Trainable", "train"]

Trainable: TypeAlias = Aligned | NeuralModel[Any]
"""Models whose ``fit`` prepares a network that is trained here."""


def train(
    model: Trainable,
    data: TrainData,
    catalog: Catalog,
    *,
    seed: int,
    folder: Path,
    training: TrainingConfig,
    trainer_options: Mapping[str, Any],
    config: ExperimentConfig | None = None,
    resume: str | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> list[CurvePoint]:
    """Train ``model.network`` in place and freeze the model at its best validated weights.

    Args:
        model: Prepared by ``fit``.
        data: What it was prepared on.
        catalog: Its valid rows steer early stopping and the checkpoint; without any, or with
            ``limit_val_batches`` 0, all epochs run and the last weights stay.
        seed: Of every draw.
        folder: For ``config.yaml``, logs (``csv``, ``tensorboard``) and ``checkpoints``:
            ``best.ckpt``, and ``last.ckpt`` of the last epoch, to resume from.
        training: What to watch, and how long.
        trainer_options: Arguments of ``lightning.Trainer`` over the defaults here.
        config: All that the run was told, kept as ``config.yaml`` in its folder.
        resume: A checkpoint to go on from.
        progress: Whether to show a bar, or a line per validation where there is no terminal.
        callbacks: More of Lightning's, such as one that prunes trials; called before those here.

    Returns:
        All that was logged, in order.

    Raises:
        ConfigError: An argument that ``Trainer`` does not have or take, or an unknown metric to
            monitor.
        TrainingError: The checkpoint cannot be read or is of another run, the loss is not finite,
            or training was interrupted.
    """
    check_trainer(trainer_options)
    served = SLICES if model.serves_cold else ("warm",)
    slices = [name for name in served if len(build_slice(catalog, "valid", name).users)]
    if slices:
        _check_monitor(training.monitor, slices)
    module, batches = _modules(model, data, catalog, seed)
    curve = run_lightning(
        module,
        batches,
        seed=seed,
        folder=folder,
        training=training,
        is_validated=bool(slices),
        trainer_options=trainer_options,
        origin=describe(model, data.matrix, catalog.matrix("valid"), seed=seed),
        config=config,
        resume=resume,
        progress=progress,
        callbacks=callbacks,
    )
    if isinstance(module, AlignedModule):
        module.finish()
    for part in (module, batches):  # circles in the trainer hold them, and they all that is large
        vars(part).clear()
    model.freeze(data)
    return curve


def _modules(
    model: Trainable, data: TrainData, catalog: Catalog, seed: int
) -> tuple[LightningModule, LightningDataModule]:
    size = model.config.batch_size
    if isinstance(model, Aligned):
        users = UserDataModule(data, batch_size=size, seed=seed)
        return AlignedModule(model, data, catalog, seed=seed), users
    interactions = InteractionDataModule(data, batch_size=size, seed=seed)
    return PairwiseModule(model, data, catalog, seed=seed), interactions


def _check_monitor(monitor: str, slices: list[str]) -> None:
    known = monitors(slices)
    if monitor not in known:
        raise ConfigError(
            "training.monitor names no metric that valid gives",
            got=monitor,
            fix=nearest(monitor, known),
        )
