"""Batches of raw content, put together by the objectives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from mmalign.interfaces import IntArray, Media, Tower
from mmalign.trainers.finetuning.contents import Contents
from mmalign.trainers.finetuning.halves import Half, Objective
from mmalign.trainers.finetuning.seeding import seeded
from mmalign.trainers.finetuning.views import Views

__all__ = ["Batch", "BatchModule", "FinetuneDataModule", "make_batch"]

Step = tuple[int, int]
Batch = list[tuple[str, list[Half]]]


class BatchModule(LightningDataModule):
    """Batches that are moved in chunks, and a validation that reads no batch."""

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Leave the batch where it is: a chunk is moved when its turn comes."""
        return batch

    def val_dataloader(self) -> DataLoader[int]:
        """One empty step: validation reads all valid items at once, in the Lightning module."""
        return DataLoader([0], batch_size=None)  # type: ignore[arg-type]


class FinetuneDataModule(BatchModule):
    """Serves, step by step, what every objective contrasts.

    All processes take the same number of steps; what they get is a function of the seed, the epoch
    and the step, so that a resumed run sees the batches that an unbroken one sees.

    Args:
        objectives: What stands together.
        contents: What is read of each item.
        towers: Modality to the tower that reads it.
        batch_size: Items, or pairs, per step and process.
        chunk_size: Items that pass a tower at a time.
        workers: Processes that decode and tokenize.
        seed: Of what is altered in training, together with epoch, step and process.
        views: Modality to what stands in for its raw content.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        contents: Contents,
        towers: Mapping[str, Tower],
        *,
        batch_size: int,
        chunk_size: int | None,
        workers: int,
        seed: int,
        views: Mapping[str, Views] | None = None,
    ) -> None:
        super().__init__()
        self._objectives, self._contents, self._towers = objectives, contents, towers
        self._batch_size, self._chunk_size = batch_size, chunk_size or batch_size
        self._workers, self._seed, self._views = workers, seed, views or {}

    @property
    def _rows(self) -> int:
        return max(objective.size for objective in self._objectives)

    @property
    def num_steps(self) -> int:
        """Batches of an epoch in each process."""
        processes = 1 if self.trainer is None else self.trainer.world_size
        return max(1, self._rows // (self._batch_size * processes))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of one process."""
        processes = 1 if self.trainer is None else self.trainer.world_size
        process = 0 if self.trainer is None else self.trainer.global_rank
        size = min(self._batch_size, -(-self._rows // processes))
        served = _Steps(
            self._objectives,
            self._contents,
            self._towers,
            size=size,
            chunk_size=self._chunk_size,
            share=(process, processes),
            steps=self.num_steps,
            seed=self._seed,
            views=self._views,
        )
        epoch = 0
        if self.trainer is not None:
            # Workers read ahead before Lightning says which epoch a resumed run comes to.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            epoch = progress.processed
        return DataLoader(
            served,
            batch_size=None,
            sampler=_StepNumbers(self.num_steps, epoch),
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
        )


class _StepNumbers(Sampler[Step]):
    """Epoch and step; Lightning calls ``set_epoch``."""

    def __init__(self, steps: int, epoch: int) -> None:
        self._steps, self._epoch = steps, epoch

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Step]:
        for step in range(self._steps):  # lazily: Lightning makes the iterator, then sets the epoch
            yield self._epoch, step


class _Steps(Dataset[Batch]):
    def __init__(
        self,
        objectives: Sequence[Objective],
        contents: Contents,
        towers: Mapping[str, Tower],
        *,
        size: int,
        chunk_size: int,
        share: tuple[int, int],
        steps: int,
        seed: int,
        views: Mapping[str, Views],
    ) -> None:
        self._objectives, self._contents, self._towers = objectives, contents, towers
        self._size, self._chunk_size, self._steps = size, chunk_size, steps
        self._process, self._processes = share
        self._epoch, self._seed, self._views = -1, seed, views
        self._drawn: dict[str, IntArray] = {}

    def __getitem__(self, step: Step) -> Batch:
        epoch, number = step
        if epoch != self._epoch:
            every = self._size * self._processes * self._steps
            self._drawn = {o.name: o.draw(epoch, every) for o in self._objectives}
            self._epoch = epoch
        start = (number * self._processes + self._process) * self._size
        rows = {name: drawn[start : start + self._size] for name, drawn in self._drawn.items()}
        with seeded(self._seed, epoch, number, self._process):
            return make_batch(
                self._objectives,
                rows,
                self._contents,
                self._towers,
                epoch,
                self._chunk_size,
                self._views,
            )


def make_batch(
    objectives: Sequence[Objective],
    rows: Mapping[str, IntArray],
    contents: Contents,
    towers: Mapping[str, Tower],
    epoch: int,
    chunk_size: int,
    views: Mapping[str, Views] | None = None,
) -> Batch:
    """Read what each objective puts together.

    Args:
        objectives: What stands together.
        rows: Objective to the item rows of its halves, ``[N, halves]``.
        contents: What is read of each item.
        towers: Modality to the tower that reads it.
        epoch: Of training.
        chunk_size: Items that pass a tower at a time.
        views: Modality to what stands in for its raw content.
    """
    batch: Batch = []
    for objective in objectives:
        halves = [
            _half(
                name,
                rows[objective.name][:, column],
                contents,
                towers,
                epoch,
                chunk_size,
                (views or {}).get(name),
            )
            for column, name in enumerate(objective.halves)
        ]
        batch.append((objective.name, halves))
    return batch


def _half(
    name: str,
    rows: IntArray,
    contents: Contents,
    towers: Mapping[str, Tower],
    epoch: int,
    chunk_size: int,
    views: Views | None,
) -> Half:
    modality = name.partition(".")[0]
    values = [contents(name, int(row), epoch) for row in rows]
    given = [position for position, value in enumerate(values) if value is not None]
    chunks: list[Any] = []
    sizes: list[int] = []
    kept: list[int] = []
    problems: dict[str, str] = {}
    for block in _chunks(given, chunk_size):
        if views is not None:
            batch = views.collate(rows[block])
        else:
            read = [value for p in block if (value := values[p]) is not None]
            batch = towers[modality].collate(read, training=True)
        if batch.kept:
            chunks.append(batch.inputs)
            sizes.append(len(batch.kept))
            kept.extend(block[position] for position in batch.kept)
        problems |= {
            str(contents.ids[rows[block[p]]]): reason for p, reason in batch.problems.items()
        }
    positions = np.asarray(kept, dtype=np.int64)
    keys = np.asarray([_key(values[position]) for position in kept], dtype=np.int64)
    return Half(modality, chunks, sizes, positions, rows[positions], keys, problems)


def _chunks(positions: list[int], size: int) -> list[list[int]]:
    """Part positions; one that would be left alone joins those before it."""
    if not positions:
        return []
    starts = list(range(0, len(positions), size))
    if len(starts) > 1 and len(positions) % size == 1:
        starts.pop()
    return [positions[a:b] for a, b in zip(starts, [*starts[1:], len(positions)], strict=True)]


def _key(value: Media | None) -> int:
    """A number that is the same for the same content, in every process."""
    if isinstance(value, Path) and value.is_file():
        return _file_key(value)
    return _digest(value if isinstance(value, bytes) else str(value).encode("utf-8", "replace"))


@lru_cache(maxsize=2**20)  # a file is read for it once, not whenever its item is drawn
def _file_key(path: Path) -> int:
    return _digest(path.read_bytes())


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
