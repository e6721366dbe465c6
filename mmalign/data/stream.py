"""Items read in passing, for a catalogue larger than memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from mmalign.data import huggingface, reading
from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import ITEM_ID, SPLIT

__all__ = ["ItemStream"]

_BUILDERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}


class ItemStream:
    """Serves the items of a data folder or hub dataset block by block, through ``datasets``.

    An item is trained on or held out by the column ``split``, or else by a hash of its id: a tenth
    each is valid and test. No more than a block and the shuffle buffer is ever in memory.

    Args:
        config: ``path``, ``items`` and the columns are read; no interactions.
        seed: Of the order, together with the epoch.
        block_size: Items per block.
        buffer_size: Items that the shuffle draws from.

    Raises:
        ConfigError: There is no table of items, or a column is not in it.
        DataError: The file or dataset cannot be read.
        MissingDependencyError: The package ``datasets`` is absent.
    """

    def __init__(
        self, config: DataConfig, *, seed: int, block_size: int = 2048, buffer_size: int = 10_000
    ) -> None:
        if config.items is None:
            raise ConfigError("streaming reads a table of items", fix="name data.items")
        self.config = replace(config, interactions=None, users=None, neighbours={})
        self._seed, self._block_size, self._buffer_size = seed, block_size, buffer_size
        folder = Path(config.path)
        self._root = folder if folder.is_dir() else None
        if self._root is None:
            self._dataset = huggingface.stream_hub_table(config.path, config.items)
        else:
            file = reading.locate(self._root, config.items)
            if file is None or file.suffix not in _BUILDERS:
                raise DataError(
                    "no file of items that can be streamed",
                    got=str(self._root / config.items),
                    fix=f"write one of {', '.join(_BUILDERS)}",
                )
            self._dataset = huggingface.stream_file(file, _BUILDERS[file.suffix])
        columns = self._dataset.column_names or list(next(iter(self._dataset), {}))
        for column, key in {ITEM_ID: "the protocol", **self.config.columns()}.items():
            if column not in columns:
                raise ConfigError(
                    f"items have no column {column!r}, which {key} names",
                    fix=nearest(column, columns),
                )
        self._has_split = SPLIT in columns

    @cached_property
    def num_train(self) -> int:
        """Items that are trained on; the first look costs a pass over ids."""
        names = [ITEM_ID, SPLIT] if self._has_split else [ITEM_ID]
        ids = self._dataset.select_columns(names)
        return sum(self._split_of(row) == "train" for row in ids)

    def blocks(self, epoch: int, process: int = 0, processes: int = 1) -> Iterator[Catalog]:
        """Serve train items, shuffled by seed and epoch, those of one process of several."""
        shuffled = self._dataset.shuffle(seed=self._seed + epoch, buffer_size=self._buffer_size)
        rows = (row for row in shuffled if self._split_of(row) == "train")
        own = islice(rows, process, None, processes)
        while block := list(islice(own, self._block_size)):
            yield self._catalog(block)

    def held_out(self, most: int = 1000) -> Catalog:
        """Read the first ``most`` items of valid and of test each."""
        kept: dict[str, list[Mapping[str, Any]]] = {"valid": [], "test": []}
        for row in self._dataset:
            found = kept.get(self._split_of(row))
            if found is not None and len(found) < most:
                found.append(row)
            if all(len(rows) >= most for rows in kept.values()):
                break
        rows = [row for part in kept.values() for row in part]
        if not rows:
            raise DataError(
                "no item is held out to measure on",
                got=self.config.path,
                fix="give items a column split of train, valid and test",
            )
        return self._catalog(rows)

    def _split_of(self, row: Mapping[str, Any]) -> str:
        if self._has_split:
            return str(row[SPLIT])
        return {0: "valid", 1: "test"}.get(zlib.crc32(str(row[ITEM_ID]).encode()) % 10, "train")

    def _catalog(self, rows: list[Mapping[str, Any]]) -> Catalog:
        frame = pd.DataFrame(rows)
        frame[SPLIT] = [self._split_of(row) for row in rows]
        image = self.config.image
        if image is not None:  # a picture in a dataset is its bytes, or the path of a file
            frame[image] = [
                cell.get("bytes") or cell.get("path") if isinstance(cell, Mapping) else cell
                for cell in frame[image]
            ]
        return Catalog.from_pandas(frame, None, config=self.config, root=self._root)
