"""Train a network with Lightning: loggers, early stopping, the best checkpoint, resume."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, TrainingError, nearest
from mmalign.evaluation.slices import build_slice
from mmalign.experiment import ExperimentConfig, TrainingConfig
from mmalign.interfaces import SLICES
from mmalign.models.aligned import Aligned
from mmalign.models.base import TrainData
from mmalign.models.neural.base import NeuralModel
from mmalign.trainers.callbacks import (
    ConfigFile,
    Curve,
    CurvePoint,
    LastEpoch,
    Lines,
    quiet_lightning,
)
from mmalign.trainers.data import InteractionDataModule, UserDataModule
from mmalign.trainers.module import AlignedModule
from mmalign.trainers.options import TRAINER_DEFAULTS, check_trainer
from mmalign.trainers.pairwise import PairwiseModule
from mmalign.trainers.resume import Origin, check_resumable, describe, read_checkpoint
from mmalign.trainers.validation import monitors

__all__ = ["CurvePoint", "Trainable", "train"]

Trainable: TypeAlias = Aligned | NeuralModel[Any]
"""Models whose ``fit`` prepares a network that is trained here."""

LAST = "last"
BEST = "best"


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
    origin = describe(model, data.matrix, catalog.matrix("valid"), seed=seed)
    if resume is not None:
        check_resumable(module, resume, origin)
    given = {name: value for name, value in trainer_options.items() if value is not None}
    options = {**TRAINER_DEFAULTS, **given}
    curve = Curve()
    is_validated = bool(slices) and options.get("limit_val_batches") != 0
    best = _best(folder, training.monitor) if is_validated else None
    last = _last(folder)
    every: list[Callback] = [*callbacks, LastEpoch(), curve, Origin(origin), last]
    if config is not None:
        every.append(ConfigFile(config, folder))
    if best is not None:
        stop = EarlyStopping(training.monitor, patience=training.patience, mode="max")
        every += [best, stop]
    else:
        options["limit_val_batches"] = 0
    if progress and options.get("enable_progress_bar", True):
        on_terminal = sys.stderr.isatty()
        every.append(RichProgressBar(console_kwargs={"stderr": True}) if on_terminal else Lines())
        options["enable_progress_bar"] = on_terminal
    else:
        options["enable_progress_bar"] = False
    with quiet_lightning():
        trainer = _trainer(folder, every, options)
        torch.manual_seed(seed)
        model.network.train()  # freezing the prepared model left it in evaluation mode
        with _one_line_errors(trainer, last):
            trainer.fit(module, datamodule=batches, ckpt_path=resume, weights_only=True)
    if best is not None and best.best_model_path:
        module.load_state_dict(read_checkpoint(best.best_model_path)["state_dict"])
    model.network.to("cpu")
    model.freeze(data)
    return curve.points


def _modules(
    model: Trainable, data: TrainData, catalog: Catalog, seed: int
) -> tuple[LightningModule, LightningDataModule]:
    size = model.config.batch_size
    if isinstance(model, Aligned):
        users = UserDataModule(data, batch_size=size, seed=seed)
        return AlignedModule(model, data, catalog, seed=seed), users
    interactions = InteractionDataModule(data, batch_size=size, seed=seed)
    return PairwiseModule(model, data, catalog, seed=seed), interactions


def _trainer(folder: Path, callbacks: list[Callback], options: Mapping[str, Any]) -> Trainer:
    try:
        return Trainer(
            logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
            callbacks=callbacks,
            **{
                **options,
                "default_root_dir": folder,
                "use_distributed_sampler": False,  # the data module shares users out itself
            },
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(
            "lightning cannot train like this",
            got={name: options[name] for name in options if name not in TRAINER_DEFAULTS},
            fix=f"mend the trainer options: {error}",
        ) from None


def _best(folder: Path, monitor: str) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder / "checkpoints", BEST, monitor, mode="max", enable_version_counter=False
    )


def _last(folder: Path) -> ModelCheckpoint:
    # At the end of an epoch, after validation, all state is settled: resumed from there, a run
    # goes on as if it had never stopped.
    return ModelCheckpoint(
        folder / "checkpoints", LAST, save_on_train_epoch_end=True, enable_version_counter=False
    )


def _check_monitor(monitor: str, slices: list[str]) -> None:
    known = monitors(slices)
    if monitor not in known:
        raise ConfigError(
            "training.monitor names no metric that valid gives",
            got=monitor,
            fix=nearest(monitor, known),
        )


@contextmanager
def _one_line_errors(trainer: Trainer, last: ModelCheckpoint) -> Iterator[None]:
    """Say in one line why training stopped, and how to go on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning exits on Ctrl-C
        saved = last.best_model_path  # of this run: the folder may hold an earlier one's
        fix = f"go on with --ckpt_path {saved}" if saved else "start again"
        raise TrainingError("training was interrupted", fix=fix) from None
    except MisconfigurationException as error:
        raise ConfigError("lightning cannot train like this", fix=str(error)) from None
    except RuntimeError as error:
        if isinstance(error, TrainingError) or trainer.world_size == 1:
            raise
        raise TrainingError(
            f"process {trainer.global_rank} of {trainer.world_size} had to stop",
            got=str(error).partition("\n")[0],
            fix="see what the other processes say",
        ) from error
