"""Files of a benchmark: what a search found, what a run measured, each written whole or not."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.atomic import whole_folder
from mmalign.benchmark.tuning import Tuned
from mmalign.config import from_dict
from mmalign.errors import MMAlignError
from mmalign.evaluation.result import Evaluation

__all__ = ["Run", "per_user", "read_run", "read_tuned", "write_run", "write_text", "write_tuned"]

_RESULT, _PER_USER = "result.json", "per_user.npz"


@dataclass(frozen=True)
class Run:
    """One model under one seed, measured.

    Attributes:
        model: Its name.
        seed: Of the run.
        key: Of the job that made it.
        test: Plain values of the evaluation on test, see :meth:`Evaluation.to_dict`.
        valid: The same on valid.
        seconds: Step of fitting to wall time.
        memory: ``peak`` bytes of the process until it was fitted, and at the ``start``, before
            fitting, with libraries and data loaded.
        commit: Of the source, empty outside of git.
        date: When it ran, ISO.
        per_user: ``slice/metric`` to ``[B]`` values on test, and ``slice/users`` to their rows.
    """

    model: str
    seed: int
    key: str
    test: Mapping[str, Any]
    valid: Mapping[str, Any]
    seconds: Mapping[str, float]
    memory: Mapping[str, int]
    commit: str
    date: str
    per_user: Mapping[str, NDArray[Any]]

    def metric(self, slice_: str, name: str) -> float:
        """A metric on test; NaN where the slice is empty."""
        value = self.test["slices"][slice_]["metrics"][name]
        return float("nan") if value is None else float(value)


def write_run(folder: Path, run: Run) -> None:
    """Write a run's folder."""
    plain = {name: value for name, value in vars(run).items() if name != "per_user"}
    with whole_folder(folder, (_RESULT, _PER_USER)) as part:
        (part / _RESULT).write_text(_json(plain), encoding="utf-8")
        with (part / _PER_USER).open("wb") as file:
            np.savez_compressed(file, **run.per_user)  # type: ignore[arg-type]


def read_run(folder: Path, key: str) -> Run | None:
    """Read a run; None when there is none, it cannot be read, or it is of another job."""
    try:
        plain = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        with np.load(folder / _PER_USER, allow_pickle=False) as arrays:
            run = Run(**plain, per_user={name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return run if run.key == key else None


def per_user(evaluation: Evaluation) -> dict[str, NDArray[Any]]:
    """The arrays of an evaluation under flat names."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, result in evaluation.slices.items():
        arrays[f"{name}/users"] = result.users
        arrays |= {f"{name}/{metric}": values for metric, values in result.per_user.items()}
    return arrays


def write_tuned(path: Path, tuned: Tuned) -> None:
    """Write what a search found."""
    write_text(path, _json(asdict(tuned)))


def read_tuned(path: Path, budget: Mapping[str, Any]) -> Tuned | None:
    """Read what a search found; None when there is none, or it had another budget."""
    try:
        tuned = from_dict(Tuned, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, MMAlignError):
        return None
    return tuned if tuned.budget == budget else None


def write_text(path: Path, text: str) -> None:
    """Write a file through a temporary sibling, so that it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _json(values: Any) -> str:
    return json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
