"""Run Lightning on any module: loggers, early stopping, the best checkpoint, resume."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

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
from mmalign.trainers.options import TRAINER_DEFAULTS
from mmalign.trainers.resume import Origin, check_resumable, read_checkpoint

__all__ = ["run_lightning"]

LAST = "last"
BEST = "best"


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
        ConfigError: An argument that ``Trainer`` does not take.
        TrainingError: The checkpoint cannot be read or is of another run, or training was
            interrupted.
    """
    if resume is not None:
        check_resumable(module, resume, origin)
    given = {name: value for name, value in trainer_options.items() if value is not None}
    options = {**TRAINER_DEFAULTS, **given}
    curve = Curve()
    is_validated = is_validated and options.get("limit_val_batches") != 0
    best = _Best(resume, folder / "checkpoints", training.monitor) if is_validated else None
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
        module.train()  # whoever prepared it may have left it in evaluation mode
        with _one_line_errors(trainer, last):
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


class _Best(ModelCheckpoint):
    """Takes over what was best in the run that is resumed, wherever that lies now.

    Lightning forgets the best score when the folder is another one, and the first epoch after
    would then pass for the best.

    Args:
        resume: The checkpoint to go on from; the best is looked for beside it.
        folder: Of this run's checkpoints.
        monitor: Metric to watch.
    """

    def __init__(self, resume: str | None, folder: Path, monitor: str) -> None:
        # Right after validation, before the last checkpoint, which remembers what was best so far.
        super().__init__(
            folder,
            BEST,
            monitor,
            mode="max",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._resume = resume

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best checkpoint into the folder of this run, and remember it by its score."""
        before, here = str(state_dict["best_model_path"]), str(self.dirpath)
        if before and self._resume is not None and state_dict["dirpath"] != here:
            beside = Path(self._resume).with_name(Path(before).name)
            own = Path(here, f"{BEST}.ckpt")
            if not beside.is_file():
                raise TrainingError(
                    "the best checkpoint of that run is not beside the one to resume from",
                    got=str(beside),
                    fix="copy both, or resume in the run's own folder",
                )
            own.parent.mkdir(parents=True, exist_ok=True)
            part = own.with_suffix(f".{os.getpid()}.part")
            shutil.copyfile(beside, part)
            part.replace(own)
            score = state_dict["best_model_score"]
            state_dict = {
                **state_dict,
                "dirpath": here,
                "best_model_path": str(own),
                "kth_best_model_path": str(own),
                "best_k_models": {str(own): score},
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)


def _last(folder: Path) -> ModelCheckpoint:
    # At the end of an epoch, after validation, all state is settled: resumed from there, a run
    # goes on as if it had never stopped.
    return ModelCheckpoint(
        folder / "checkpoints", LAST, save_on_train_epoch_end=True, enable_version_counter=False
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
