"""What a checkpoint was trained on and with, so that nothing else goes on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import scipy.sparse as sp
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mmalign.config import to_dict
from mmalign.errors import TrainingError
from mmalign.models import MODELS
from mmalign.models.base import Model

__all__ = ["Origin", "check_resumable", "describe", "digest", "flat", "read_checkpoint"]

_KEY = "mmalign"
_ROWS = ("train rows", "valid rows")
_HASHED = (*_ROWS, "train items")
_REMEDY = "resume with the config and the data that it was trained with"


class Origin(Callback):
    """Writes into every checkpoint what it was trained on and with.

    Args:
        values: As :func:`describe` gives them.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the values, all of them plain."""
        checkpoint[_KEY] = dict(self._values)


def describe(
    model: Model[Any], train: sp.csr_matrix, valid: sp.csr_matrix, *, seed: int
) -> dict[str, Any]:
    """Name all that a resumed run must share with the one that it goes on from.

    Returns:
        Dotted names to plain values: the seed, a digest of train and of valid rows, the model's
        name and its settings.
    """
    name = next(name for name, kind in MODELS.items() if kind is type(model))
    return {
        **{name: digest(rows) for name, rows in zip(_ROWS, (train, valid), strict=True)},
        "seed": seed,
        "model.name": name,
        **flat(to_dict(model.config), f"model.{name}"),
    }


def check_resumable(module: LightningModule, path: str, expected: Mapping[str, Any]) -> None:
    """Check that a checkpoint is one of this run, before any work.

    Args:
        module: What would go on.
        path: Of the checkpoint.
        expected: As :func:`describe` gives it for this run.

    Raises:
        TrainingError: The checkpoint cannot be read, or is of another run; what differs is named.
    """
    stored = read_checkpoint(path)
    origin = stored.get(_KEY)
    if isinstance(origin, dict):
        names = [n for n in {**expected, **origin} if expected.get(n) != origin.get(n)]
        if names:
            other = [f"other {n}" if n in _HASHED else f"{n} {origin.get(n)}" for n in names]
            raise TrainingError(
                f"the checkpoint was trained with {', '.join(other[:5])}", got=path, fix=_REMEDY
            )
    if _is_inside_an_epoch(stored.get("loops", {}).get("fit_loop", {})):
        raise TrainingError(
            "the checkpoint was saved inside an epoch, where training cannot go on",
            got=path,
            fix="give last.ckpt, which lies beside it and remembers the best as well",
        )
    weights = stored.get("state_dict")
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    is_same = isinstance(weights, dict) and {k: v.shape for k, v in weights.items()} == own
    if not isinstance(origin, dict) or not is_same:
        raise TrainingError(
            "the checkpoint is not one of this model on this data", got=path, fix=_REMEDY
        )


def _is_inside_an_epoch(loop: Mapping[str, Any]) -> bool:
    """Whether an epoch was still running, or was cut short, by the state of Lightning's loop."""
    if not loop:
        return False
    epochs = loop["epoch_progress"]["current"]
    is_running = epochs["processed"] < epochs["ready"]
    return bool(is_running or not loop["epoch_loop.batch_progress"]["is_last_batch"])


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Raises:
        TrainingError: There is none, or it cannot be read.
    """
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


def digest(matrix: sp.csr_matrix) -> str:
    """Tell interactions from others by a hash."""
    entries = sp.csr_matrix(matrix).sorted_indices()
    found = hashlib.sha256(repr(entries.shape).encode())
    for array in (
        entries.indptr.astype("<i8"),
        entries.indices.astype("<i8"),
        entries.data.astype("<f4"),
    ):
        found.update(array.tobytes())
    return found.hexdigest()


def flat(values: Any, path: str) -> dict[str, Any]:
    """Write nested values by dotted names under a path."""
    if not isinstance(values, Mapping):
        return {path: values}
    parts = [flat(value, f"{path}.{name}") for name, value in values.items()]
    return {name: value for part in parts for name, value in part.items()}
