"""Altered pictures of all items as the frozen part of a tower leaves them, computed once."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.errors import DataError, TrainingError
from mmalign.interfaces import IntArray, Media, Tower, TowerBatch
from mmalign.trainers.finetuning.seeding import seeded

__all__ = ["Views"]

BATCH_SIZE = 64
ABANDONED = 60 * 60
"""Seconds without a write after which an unfinished file is one of a process that died."""


class Views:
    """Serves one of some altered views of an item, drawn anew each time it is asked for.

    What the trained blocks of a tower are given is kept in half precision, one file per view, so
    that an interrupted run finds those it had. A picture that cannot be read is left out alone.

    Args:
        tower: Has a frozen part to run.
        values: Content of each item, None where there is none.
        rows: Items that are trained on.
        count: Views of each item.
        seed: Decides how pictures are altered.
        folder: For the files.
        name: Of the files; those of other names are deleted.
        progress: Whether to say how far it is.

    Raises:
        DataError: No picture can be read, or the files cannot be written.
        TrainingError: What the frozen part gives does not fit into half precision.
    """

    def __init__(
        self,
        tower: Tower,
        values: Sequence[Media | None],
        rows: IntArray,
        *,
        count: int,
        seed: int,
        folder: Path,
        name: str,
        progress: bool = True,
    ) -> None:
        self._folder = folder
        self._reasons: dict[int, str] = {}
        self._rows = np.sort([row for row in rows if values[row] is not None])
        paths = [folder / f"{name}-{number}.npy" for number in range(count)]
        for other in set(folder.glob("*.npy")) - set(paths):
            other.unlink(missing_ok=True)
        for left in folder.glob("*.tmp"):
            with suppress(FileNotFoundError):  # another process may be quicker
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()
        for number, path in enumerate(paths):
            if path.is_file():
                continue
            if progress:
                print(f"encoding view {number + 1} of {count} of each picture", file=sys.stderr)
            with seeded(seed, number):
                self._write(path, tower, values)
        self._views = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]

    def collate(self, rows: IntArray) -> TowerBatch:
        """Draw a view of each item by torch's global generator.

        Args:
            rows: Of items that have content.

        Shapes:
            rows: ``[N]``; ``inputs["hidden"]``: ``[N, ...]``.
        """
        drawn = torch.randint(len(self._views), (len(rows),)).tolist()
        places = np.searchsorted(self._rows, rows)
        found = [self._views[view][place] for view, place in zip(drawn, places, strict=True)]
        kept = [position for position, hidden in enumerate(found) if not np.isnan(hidden.flat[0])]
        problems = {
            position: self._reasons.get(int(rows[position]), "could not be read before")
            for position in set(range(len(found))) - set(kept)
        }
        if not kept:
            return TowerBatch(None, [], problems)
        hidden = torch.from_numpy(np.stack([found[position] for position in kept])).float()
        return TowerBatch({"hidden": hidden}, kept, problems)

    def remove(self) -> None:
        """Delete the files: nothing is going to resume."""
        self._views = []
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, path: Path, tower: Tower, values: Sequence[Media | None]) -> None:
        """Write the file of one view, whole or not at all.

        It is not mapped into memory, where a full disk would kill the process.
        """
        part = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        first: int | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                for start in range(0, len(self._rows), BATCH_SIZE):
                    block = self._rows[start : start + BATCH_SIZE]
                    hidden = self._hidden(tower, values, block)
                    if hidden is None:
                        continue
                    if first is None:
                        first = _reserve(file, (len(self._rows), *hidden.shape[1:]))
                    file.seek(first + start * hidden[0].nbytes)
                    file.write(hidden.tobytes())
                file.flush()
                os.fsync(file.fileno())
            if first is None:
                raise DataError(
                    "not one picture to train on can be read",
                    got=next(iter(self._reasons.values()), "no item has one"),
                    fix="check data.path and data.image",
                )
            part.replace(path)
        except OSError as error:
            raise DataError(
                f"could not keep views of pictures in {self._folder}",
                got=error.strerror or str(error),
                fix="free space, or lower finetune.image.views",
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _hidden(
        self, tower: Tower, values: Sequence[Media | None], block: IntArray
    ) -> NDArray[np.float16] | None:
        """Run the frozen part over some items; NaN where a picture cannot be read."""
        read = [value for row in block if (value := values[row]) is not None]
        batch = tower.collate(read, training=True)
        for place, reason in batch.problems.items():
            self._reasons[int(block[place])] = reason
        if not batch.kept:
            return None
        hidden = tower.lower(batch.inputs).cpu().numpy()
        if not np.abs(hidden).max() < np.finfo(np.float16).max:
            raise TrainingError(
                "what the frozen part of the picture tower gives is too large to be kept",
                got=float(np.abs(hidden).max()),
                fix="set finetune.image.views: 0",
            )
        rows = np.full((len(block), *hidden.shape[1:]), np.nan, np.float16)
        rows[batch.kept] = hidden
        return rows


def _reserve(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Fill a file with an array of NaN, so that a full disk shows before the long work.

    Returns:
        Where the array starts.
    """
    row = np.full(shape[1:], np.nan, np.float16)
    header = {"descr": row.dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    first = file.tell()
    for _ in range(shape[0]):
        file.write(row.tobytes())
    return first
