"""Train a network with Lightning: loggers, early stopping, the best checkpoint, resume."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, TrainingError, nearest
from mmalign.evaluation.slices import build_slice
from mmalign.experiment import TrainingConfig
from mmalign.interfaces import SLICES
from mmalign.models.aligned import Aligned
from mmalign.models.base import TrainData
from mmalign.trainers.callbacks import Curve, CurvePoint, Lines, quiet_lightning
from mmalign.trainers.data import UserDataModule
from mmalign.trainers.module import AlignedModule
from mmalign.trainers.options import TRAINER_DEFAULTS, check_trainer

__all__ = ["CurvePoint", "train"]

LAST = "last"
BEST = "best"


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
        folder: For logs (``csv``, ``tensorboard``) and ``checkpoints``: ``best.ckpt``, and
            ``last.ckpt`` to resume from.
        training: What to watch, and how long.
        trainer_options: Arguments of ``lightning.Trainer`` over the defaults here.
        resume: A checkpoint to go on from.
        progress: Whether to show a bar, or a line per validation where there is no terminal.

    Returns:
        All that was logged, in order.

    Raises:
        ConfigError: An argument that ``Trainer`` does not have or take, or an unknown metric to
            monitor.
        TrainingError: The checkpoint cannot be read, the loss is not finite, or training was
            interrupted.
    """
    check_trainer(trainer_options)
    slices = [name for name in SLICES if len(build_slice(catalog, "valid", name).users)]
    if slices:
        _check_monitor(training.monitor, slices)
    module = AlignedModule(model, data, catalog, seed=seed)
    if resume is not None:
        _check_fits(module, resume)
    given = {name: value for name, value in trainer_options.items() if value is not None}
    options = {**TRAINER_DEFAULTS, **given}
    curve = Curve()
    best = _best(folder, training.monitor) if slices else None
    last = _last(folder, options["check_val_every_n_epoch"])
    callbacks: list[Callback] = [curve, last]
    if best is not None:
        stop = EarlyStopping(training.monitor, patience=training.patience, mode="max")
        callbacks += [best, stop]
    else:
        options["limit_val_batches"] = 0
    if progress and options.get("enable_progress_bar", True):
        on_terminal = sys.stderr.isatty()
        callbacks.append(
            RichProgressBar(console_kwargs={"stderr": True}) if on_terminal else Lines()
        )
        options["enable_progress_bar"] = on_terminal
    else:
        options["enable_progress_bar"] = False
    with quiet_lightning():
        trainer = _trainer(folder, callbacks, options)
        users = UserDataModule(data, batch_size=model.config.batch_size, seed=seed)
        torch.manual_seed(seed)
        model.network.train()  # freezing the prepared model left it in evaluation mode
        with _one_line_errors(trainer, last):
            trainer.fit(module, datamodule=users, ckpt_path=resume, weights_only=True)
    if best is not None and best.best_model_path:
        module.load_state_dict(_read_checkpoint(best.best_model_path)["state_dict"])
    model.network.to("cpu")
    model.freeze(data)
    return curve.points


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


def _last(folder: Path, every_n_epochs: int | None) -> ModelCheckpoint:
    # At the end of an epoch, after validation, all state is settled: resumed from there, a run
    # goes on as if it had never stopped.
    return ModelCheckpoint(
        folder / "checkpoints",
        LAST,
        every_n_epochs=every_n_epochs or 1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _check_monitor(monitor: str, slices: list[str]) -> None:
    known = ["valid/ndcg@20", *(f"valid/{name}_ndcg@20" for name in slices)]
    if monitor not in known:
        raise ConfigError(
            "training.monitor names no metric that valid gives",
            got=monitor,
            fix=nearest(monitor, known),
        )


def _check_fits(module: AlignedModule, resume: str) -> None:
    weights = _read_checkpoint(resume).get("state_dict")
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if not isinstance(weights, dict) or {k: v.shape for k, v in weights.items()} != own:
        raise TrainingError(
            "the checkpoint is not one of this model on this data",
            got=resume,
            fix="resume with the config and the data that it was trained with",
        )


def _read_checkpoint(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise TrainingError("there is no checkpoint there", got=path, fix="check --ckpt_path")
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file fails in the archive, in the pickle or in torch
        first = str(error).strip().partition("\n")[0]
        raise TrainingError(
            f"cannot read the checkpoint {path}", got=first, fix="give another, or start anew"
        ) from None
    return stored if isinstance(stored, dict) else {}


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
