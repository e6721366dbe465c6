"""Batches out of a stream of items, for a catalogue larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from mmalign.data.stream import ItemStream
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import Tower
from mmalign.trainers.finetuning.contents import Contents
from mmalign.trainers.finetuning.data import Batch, BatchModule, make_batch
from mmalign.trainers.finetuning.halves import Objective
from mmalign.trainers.finetuning.seeding import seeded

__all__ = ["StreamedDataModule"]


class StreamedDataModule(BatchModule):
    """Serves the items of a stream batch by batch, in an order told by the seed and the epoch.

    Args:
        stream: Of items.
        config: Fields, batch and chunk size.
        objectives: What is asked of the two views of an item.
        towers: Modality to the tower that reads it.
        seed: Of what is altered in training.
    """

    def __init__(
        self,
        stream: ItemStream,
        config: FinetuneConfig,
        objectives: Sequence[Objective],
        towers: Mapping[str, Tower],
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self._stream, self._config, self._seed = stream, config, seed
        self._objectives, self._towers = objectives, towers

    @property
    def _processes(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def _size(self) -> int:
        return min(self._config.batch_size, max(1, self._stream.num_train // self._processes))

    @property
    def num_steps(self) -> int:
        """Batches of an epoch in each process."""
        return self._stream.num_train // self._processes // self._size

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of one process."""
        process = 0 if self.trainer is None else self.trainer.global_rank
        processes, size, steps = self._processes, self._size, self.num_steps

        def read(epoch: int) -> Iterator[Batch]:
            number = 0
            for block in self._stream.blocks(epoch, process, processes, batch_size=size):
                contents = Contents.of(block, self._config, seed=self._seed)
                for start in range(0, block.num_items - size + 1, size):
                    rows = np.repeat(np.arange(start, start + size)[:, None], 2, axis=1)
                    drawn = {objective.name: rows for objective in self._objectives}
                    if number == steps:
                        return
                    with seeded(self._seed, epoch, number, process):
                        batch = make_batch(
                            self._objectives,
                            drawn,
                            contents,
                            self._towers,
                            epoch,
                            self._config.chunk_size or size,
                        )
                    yield batch
                    number += 1

        epoch = (lambda: 0) if self.trainer is None else (lambda: self.trainer.current_epoch)  # type: ignore[union-attr]
        return DataLoader(_Streamed(read, epoch, steps), batch_size=None)


class _Streamed(IterableDataset[Batch]):
    def __init__(
        self, read: Callable[[int], Iterator[Batch]], epoch: Callable[[], int], steps: int
    ) -> None:
        self._read, self._epoch, self._steps = read, epoch, steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        yield from self._read(self._epoch())
