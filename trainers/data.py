"""LightningDataModules: train users, or train interactions, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmalign.interfaces import IntArray
from mmalign.models.base import TrainData

__all__ = ["InteractionDataModule", "UserDataModule"]


class _RowsDataModule(LightningDataModule):
    """Serves rows of an array, shuffled under the seed.

    Each row comes once per epoch, to one process. All processes take the same number of steps,
    and all batches of an epoch have the same size but for one row: no step rests on a few rows
    that were left over.

    Args:
        rows: What is served, ``[R]`` or ``[R, ...]``.
        batch_size: Most rows per step and process.
        seed: Of the order, together with the epoch.
    """

    def __init__(self, rows: IntArray, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self._rows, self._batch_size, self._seed = rows, batch_size, seed

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches of rows."""
        processes = 1 if self.trainer is None else self.trainer.world_size
        process = 0 if self.trainer is None else self.trainer.global_rank
        batches = _Batches(len(self._rows), self._batch_size, self._seed, process, processes)
        return DataLoader(_Rows(self._rows), batch_size=None, sampler=batches)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """One empty step: validation ranks all users at once, in the Lightning module."""
        return DataLoader(_Rows(np.zeros(1, np.int64)), batch_size=None)


class UserDataModule(_RowsDataModule):
    """Serves the rows of users with a train interaction, ``[B]``.

    Each user comes once per epoch, to one process, in batches that differ by at most one user.

    Args:
        data: Train interactions.
        batch_size: Most users per step and process.
        seed: Of the order, together with the epoch.
    """

    def __init__(self, data: TrainData, *, batch_size: int, seed: int) -> None:
        self.users = np.flatnonzero(data.matrix.getnnz(axis=1)).astype(np.int64)
        super().__init__(self.users, batch_size=batch_size, seed=seed)


class InteractionDataModule(_RowsDataModule):
    """Serves train interactions one by one, ``[B, 2]``: a user row and an item row each.

    Items are counted among the warm ones, as in :class:`mmalign.models.neural.base.Triplets`.
    Each interaction comes once per epoch, to one process, whatever its weight.

    Args:
        data: Train interactions.
        batch_size: Most interactions per step and process.
        seed: Of the order, together with the epoch.
    """

    def __init__(self, data: TrainData, *, batch_size: int, seed: int) -> None:
        entries = data.matrix[:, data.warm].tocoo()
        pairs = np.stack([entries.row, entries.col], axis=1).astype(np.int64)
        super().__init__(pairs, batch_size=batch_size, seed=seed)


class _Batches(Sampler[IntArray]):
    """Positions of one process, a batch at a time.

    Lightning calls ``set_epoch``, so a resumed run sees the order that an unbroken one sees.
    """

    def __init__(self, count: int, size: int, seed: int, process: int, processes: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0
        self._process, self._processes = process, processes
        self._steps = -(-count // (size * processes))

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[IntArray]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._count)
        parts = np.array_split(order, self._steps * self._processes)
        for part in parts[self._process :: self._processes]:
            # With fewer rows than processes somebody must come twice.
            yield part if len(part) else order[:1]


class _Rows(Dataset[Tensor]):
    def __init__(self, rows: IntArray) -> None:
        self.rows = torch.from_numpy(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: IntArray | int) -> Tensor:
        return self.rows[index]
