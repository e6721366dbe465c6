"""Checkpoints of a run: the last to go on from, the best to end at, each whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mmalign.errors import TrainingError

__all__ = ["FULL", "Best", "Last", "WholeFiles", "last_saved", "refused", "remove_parts"]

LAST = "last"
BEST = "best"
PART = ".part"
FULL = (errno.ENOSPC, errno.EDQUOT)


class Last(ModelCheckpoint):
    """Saves at the end of each whole epoch, after validation, where all state is settled.

    Resumed from there, a run goes on as if it had never stopped. From an epoch that ``max_steps``
    or ``max_time`` cut short it would not: of such a one the epoch before stays the last.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LAST, save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if the epoch came to its end."""
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)


def last_saved(trainer: Trainer) -> str | Path | None:
    """The checkpoint to go on from: of this run, else the one that it went on from itself."""
    # best_model_path is set before the file is saved, and comes from an earlier run too.
    own = (c._last_checkpoint_saved for c in trainer.checkpoint_callbacks if isinstance(c, Last))
    return next(filter(None, own), None) or trainer.ckpt_path


def remove_parts(folder: Path) -> None:
    """Remove what a killed run left of the checkpoint that it was saving."""
    for left in folder.glob(f"*{PART}"):
        shutil.rmtree(left, ignore_errors=True)


class WholeFiles(TorchCheckpointIO):
    """Saves a checkpoint whole or not at all, wherever the system keeps its temporary files.

    Args:
        go_on: Says how to go on where that fails.
    """

    def __init__(self, go_on: Callable[[], str]) -> None:
        self._go_on = go_on

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; what was there before stays until the new one is on the disk."""
        if "://" in str(path):  # of a callback that is not ours
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with _replacing(Path(path), self._go_on()) as part, _temporary_files_in(part.parent):
            super().save_checkpoint(checkpoint, part, storage_options)
            with part.open("rb+") as file:
                os.fsync(file.fileno())


@contextmanager
def _replacing(path: Path, go_on: str) -> Iterator[Path]:
    """Write a checkpoint in a folder beside it, out of which it takes its place at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(PART, dir=path.parent) as folder:
            part = Path(folder, path.name)
            yield part
            part.replace(path)
    except OSError as error:
        raise refused(f"could not save the checkpoint {path}", error, go_on) from error


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Lightning writes a temporary file and moves it; from another disk that is a copy."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


class Best(ModelCheckpoint):
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
        if before and self._resume is not None and not self._is_at_home(state_dict):
            beside = Path(self._resume).with_name(Path(before).name)
            own = Path(here, f"{BEST}.ckpt")
            if not beside.is_file():
                raise TrainingError(
                    "the best checkpoint of that run is not beside the one to resume from",
                    got=str(beside),
                    fix="copy both, or resume in the run's own folder",
                )
            with _replacing(own, f"go on with --ckpt_path {self._resume}") as part:
                shutil.copyfile(beside, part)
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

    def _is_at_home(self, state_dict: dict[str, Any]) -> bool:
        """Whether the run was here, and its last checkpoint still is: another may have followed."""
        assert self._resume is not None
        assert self.dirpath is not None
        lies_here = Path(self._resume).parent.resolve() == Path(self.dirpath).resolve()
        return lies_here and state_dict["dirpath"] == str(self.dirpath)


def refused(problem: str, error: OSError, go_on: str) -> TrainingError:
    """Say that the system refused to write, and how to go on once it would not."""
    remedy = "free space" if error.errno in FULL else "mend that"
    return TrainingError(problem, got=error.strerror or str(error), fix=f"{remedy}, then {go_on}")
