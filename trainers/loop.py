"""Run Lightning on any module: loggers, early stopping, the best checkpoint, resume."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mmalign.errors import ConfigError, TrainingError
from mmalign.experiment import ExperimentConfig, TrainingConfig
from mmalign.trainers.callbacks import (
    ConfigFile,
    Curve,
    CurvePoint,
    LastEpoch,
    Lines,
    quiet_lightning,
)
from mmalign.trainers.checkpoints import (
    FULL,
    Best,
    Last,
    WholeFiles,
    last_saved,
    refused,
    remove_parts,
)
from mmalign.trainers.options import TRAINER_DEFAULTS
from mmalign.trainers.resume import Origin, check_resumable, read_checkpoint

__all__ = ["run_lightning"]

KNOWN = (
    (
        "out of memory|allocate memory|not enough memory",
        "training ran out of memory",
        "lower batch_size, or set chunk_size of finetune",
    ),
    (
        "converted to type float without overflow",
        "a step of training is too large for a number",
        "lower learning_rate",
    ),
)
"""What torch says in a RuntimeError that is no bug, what it means, and what to do."""


def run_lightning(
    module: LightningModule,
    batches: LightningDataModule,
    *,
    seed: int,
    folder: Path,
    training: TrainingConfig,
    is_validated: bool,
    trainer_options: Mapping[str, Any],
    origin: Mapping[str, Any],
    config: ExperimentConfig | None = None,
    resume: str | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> list[CurvePoint]:
    """Train a module in place; it ends at its best validated weights, or at the last ones.

    Args:
        module: What is trained.
        batches: What it is trained on.
        seed: Of torch's global generator at the start.
        folder: For ``config.yaml``, logs (``csv``, ``tensorboard``) and ``checkpoints``:
            ``best.ckpt``, and ``last.ckpt`` of the last epoch, to resume from.
        training: What to watch, and how long.
        is_validated: Whether there is anything to validate on.
        trainer_options: Arguments of ``lightning.Trainer`` over the defaults here, checked.
        origin: What a checkpoint must share with the run that goes on from it.
        config: All that the run was told, kept as ``config.yaml`` in its folder.
        resume: A checkpoint to go on from.
        progress: Whether to show a bar, or a line per validation where there is no terminal.
        callbacks: More of Lightning's, such as one that prunes trials; called before those here.

    Returns:
        All that was logged, in order.

    Raises:
        ConfigError: An argument that ``Trainer`` does not take, or ``max_steps`` in a resumed run.
        TrainingError: The checkpoint cannot be read or is of another run, training was
            interrupted, the disk is full, or torch ran out of memory or of numbers.
    """
    given = {name: value for name, value in trainer_options.items() if value is not None}
    options = {**TRAINER_DEFAULTS, **given}
    if resume is not None:
        if options.get("max_steps", -1) != -1:  # Lightning would end the last epoch once more
            raise ConfigError(
                "a run goes on by whole epochs, not by steps",
                got=f"trainer.max_steps={options['max_steps']}",
                fix="set trainer.max_epochs instead, or start anew without --ckpt_path",
            )
        check_resumable(module, resume, origin)
    curve, checkpoints = Curve(), folder / "checkpoints"
    is_validated = is_validated and options.get("limit_val_batches") != 0
    best = Best(resume, checkpoints, training.monitor) if is_validated else None

    def go_on() -> str:
        saved = last_saved(trainer)
        return f"go on with --ckpt_path {saved}" if saved else "start again"

    every: list[Callback] = [*callbacks, LastEpoch(), curve, Origin(origin), Last(checkpoints)]
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
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not one of somebody else
            trainer.strategy.checkpoint_io = WholeFiles(go_on)
        if trainer.is_global_zero:
            remove_parts(checkpoints)
        torch.manual_seed(seed)
        module.train()  # whoever prepared it may have left it in evaluation mode
        with _one_line_errors(trainer, go_on):
            trainer.fit(module, datamodule=batches, ckpt_path=resume, weights_only=True)
    if best is not None and best.best_model_path:
        module.load_state_dict(read_checkpoint(best.best_model_path)["state_dict"])
    module.to("cpu")
    return curve.points


def _trainer(folder: Path, callbacks: list[Callback], options: Mapping[str, Any]) -> Trainer:
    try:
        return Trainer(
            logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
            callbacks=callbacks,
            **{
                **options,
                "default_root_dir": folder,
                "use_distributed_sampler": False,  # the data module shares rows out itself
            },
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(
            "lightning cannot train like this",
            got={name: options[name] for name in options if name not in TRAINER_DEFAULTS},
            fix=f"mend the trainer options: {error}",
        ) from None


@contextmanager
def _one_line_errors(trainer: Trainer, go_on: Callable[[], str]) -> Iterator[None]:
    """Say in one line why training stopped, and how to go on; a bug keeps its traceback."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning exits on Ctrl-C
        raise TrainingError("training was interrupted", fix=go_on()) from None
    except MisconfigurationException as error:
        raise ConfigError("lightning cannot train like this", fix=str(error)) from None
    except OSError as error:
        first = error.__context__
        if isinstance(first, TrainingError):  # after which a log could not be closed either
            raise first from first.__cause__
        if error.errno not in FULL:
            raise
        raise refused(f"could not write to {trainer.default_root_dir}", error, go_on()) from error
    except TrainingError:
        raise
    except RuntimeError as error:
        lines = str(error).splitlines()
        for pattern, problem, fix in KNOWN:
            said = [line for line in lines if re.search(pattern, line)]
            if said:
                got = said[-1].rpartition("] ")[2]  # without the place in torch's own source
                raise TrainingError(problem, got=got, fix=fix) from error
        if trainer.world_size == 1:
            raise
        raise TrainingError(
            f"process {trainer.global_rank} of {trainer.world_size} had to stop",
            got=lines[0] if lines else "",
            fix="see what the other processes say",
        ) from error
