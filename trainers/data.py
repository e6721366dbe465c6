"""The LightningDataModule: users in batches."""

from __future__ import annotations

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from mmalign.interfaces import IntArray
from mmalign.models.base import TrainData

__all__ = ["UserDataModule"]


class UserDataModule(LightningDataModule):
    """Serves the rows of users with a train interaction, shuffled under the seed.

    Under DDP each process has its own share of the users.

    Args:
        data: Train interactions.
        batch_size: Users per step.
        seed: Of the order.
    """

    def __init__(self, data: TrainData, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self.users = np.flatnonzero(data.matrix.getnnz(axis=1)).astype(np.int64)
        self._batch_size, self._seed = batch_size, seed

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Batches ``[B]`` of user rows."""
        rows = _Rows(self.users)
        processes = 1 if self.trainer is None else self.trainer.world_size
        rank = 0 if self.trainer is None else self.trainer.global_rank
        # Lightning calls set_epoch, so a resumed run sees the order that an unbroken one sees.
        sampler: DistributedSampler[Tensor] = DistributedSampler(
            rows, num_replicas=processes, rank=rank, shuffle=True, seed=self._seed
        )
        return DataLoader(rows, self._batch_size, sampler=sampler, num_workers=0)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """One empty step: validation ranks all users at once, see ``AlignedModule``."""
        return DataLoader(_Rows(np.zeros(1, np.int64)), 1, num_workers=0)


class _Rows(Dataset[Tensor]):
    def __init__(self, rows: IntArray) -> None:
        self.rows = torch.from_numpy(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]
