"""Items read in passing, for a catalogue larger than memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmalign.data import huggingface, reading
from mmalign.data.catalog import Catalog
from mmalign.data.cells import as_ids
from mmalign.data.config import DataConfig
from mmalign.data.held_out import split_items
from mmalign.errors import ConfigError, DataError, MMAlignError, nearest
from mmalign.interfaces import ITEM_ID, SPLIT, SPLITS

__all__ = ["ItemStream"]

READ_SIZE = 1024
"""Rows that a file gives at once; it bounds memory, whatever row groups a Parquet file has."""

MIXED_SHARDS = 10
"""Files of a hub dataset that feed the shuffle at a time."""


class ItemStream:
    """Serves the items of a data folder or hub dataset block by block, through ``datasets``.

    An item is trained on or held out by the column ``split``, else by the log as in
    :func:`mmalign.data.held_out.split_items`, or without a log by a hash of its id: a tenth each is
    valid and test. No more than a block, the shuffle buffer and a read of items are in memory, and
    a number of eight bytes per item while the ids are checked; a log that decides is read as a
    whole, and all ids with it.

    Args:
        config: ``path``, ``items``, ``text`` and ``image`` are read, and the log where it decides.
        seed: Of the order, together with the epoch.
        block_size: Items per block.
        buffer_size: Items that the shuffle draws from.

    Attributes:
        num_train: Items that are trained on.
        digest: Of all ids and their splits, in order.

    Raises:
        ConfigError: There is no table of items, or a column is not in it.
        DataError: The file or dataset cannot be read, an id is missing or comes again, or a split
            has another name than train, valid or test.
        MissingDependencyError: The package ``datasets`` is absent.
    """

    def __init__(
        self, config: DataConfig, *, seed: int, block_size: int = 2048, buffer_size: int = 10_000
    ) -> None:
        if config.items is None:
            raise ConfigError("streaming reads a table of items", fix="name data.items")
        self.config = replace(config, interactions=None, users=None, neighbours={}, attributes={})
        self._seed, self._block_size, self._buffer_size = seed, block_size, buffer_size
        folder = Path(config.path).expanduser()
        self._root = folder if folder.is_dir() else None
        self._file = None if self._root is None else _find(self._root, config.items)
        self._header = columns = self._columns()
        for column, key in {ITEM_ID: "the protocol", **config.columns()}.items():
            if column not in columns:
                raise ConfigError(
                    f"items have no column {column!r}, which {key} names",
                    fix=nearest(column, columns),
                )
        self._has_split = SPLIT in columns
        self._log = None if self._has_split else self._read_log(config)
        self._by_log: dict[str, str] | None = None
        self._ids = [ITEM_ID, SPLIT] if self._has_split else [ITEM_ID]
        self._dataset = self._open(list(dict.fromkeys([*self._ids, *self.config.columns()])))
        self.num_train = self._check_rows()

    def blocks(
        self, epoch: int, process: int = 0, processes: int = 1, *, batch_size: int = 1
    ) -> Iterator[Catalog]:
        """Serve train items, shuffled by seed and epoch, those of one process of several.

        Processes get as many items as each other, or one more.

        Args:
            epoch: Tells the order.
            process: Whose items.
            processes: Among how many items are dealt out.
            batch_size: All blocks but the last hold a whole number of such batches.
        """
        seed = int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0])
        shuffled = self._dataset.shuffle(
            seed=seed,
            buffer_size=self._buffer_size,
            # With one shard there is nothing to mix, and mixing Parquet ends in a sleep of 5 s.
            max_buffer_input_shards=min(self._dataset.num_shards, MIXED_SHARDS),
        )
        rows = (row for row in self._read(shuffled) if self._split_of(row) == "train")
        own = islice(rows, process, None, processes)
        size = max(self._block_size // batch_size, 1) * batch_size
        while block := list(islice(own, size)):
            yield self._catalog(block)

    def held_out(self, most: int = 1000) -> Catalog:
        """Read the first ``most`` items of valid and of test each, else one of train."""
        kept: dict[str, list[Mapping[str, Any]]] = {"valid": [], "test": []}
        for row in self._read(self._dataset):
            found = kept.get(self._split_of(row))
            if found is not None and len(found) < most:
                found.append(row)
            if all(len(rows) >= most for rows in kept.values()):
                break
        rows = [row for part in kept.values() for row in part]
        trained = (row for row in self._read(self._dataset) if self._split_of(row) == "train")
        return self._catalog(rows or list(islice(trained, 1)))

    def _read_log(self, config: DataConfig) -> pd.DataFrame | None:
        if config.interactions is None:
            return None
        if self._root is not None:
            return reading.read_log(self._root, config)
        return reading.read_hub(config.path, replace(config, items=None, users=None)).interactions

    def _columns(self) -> list[str]:
        if self._file is not None and not self._file.is_dir():
            return reading.columns_of(self._file)
        if self._file is not None:
            saved = huggingface.load_saved(self._file)
            return list(saved if hasattr(saved, "values") else saved.column_names)
        self._hub = huggingface.stream_hub_table(self.config.path, str(self.config.items))
        return list(self._hub.column_names or next(iter(self._hub), {}))

    def _open(self, columns: Sequence[str]) -> Any:
        if self._file is None:
            return self._hub.select_columns(list(columns))
        if self._file.suffix.lower() == ".jsonl":  # a tuple: datasets deals a list out as shards
            return huggingface.stream_rows(
                _json_cells, file=str(self._file), columns=tuple(columns)
            )
        return huggingface.stream_file(self._file, columns, self._header, READ_SIZE)

    def _check_rows(self) -> int:
        """Pass over ids and splits before work starts, and count what is trained on."""
        count, start, hashes = 0, 0, [np.zeros(0, np.uint64)]
        every: dict[str, str] = {}
        seen = hashlib.sha256()
        for batch in self._read(self._open(self._ids).iter(READ_SIZE)):
            index = pd.RangeIndex(start, start + len(batch[ITEM_ID]))
            ids = as_ids(pd.Series(batch[ITEM_ID], index, name=ITEM_ID, dtype=object), "items")
            hashes.append(pd.util.hash_array(ids.to_numpy(dtype=object)))
            if self._log is not None:
                every.update(zip(map(str, batch[ITEM_ID]), ids, strict=True))
            rows = [
                dict(zip(batch, cells, strict=True)) for cells in zip(*batch.values(), strict=True)
            ]
            splits = [self._split_of(row) for row in rows]
            wrong = next((n for n, split in enumerate(splits) if split not in SPLITS), None)
            if wrong is not None:
                raise DataError(
                    f"items have an unknown split in row {start + wrong}",
                    got=splits[wrong],
                    fix=nearest(splits[wrong], SPLITS),
                )
            count += splits.count("train")
            seen.update(repr(list(zip(ids, splits, strict=True))).encode())
            start += len(splits)
        if not start:
            raise DataError("items are empty", fix="give a table with at least one row")
        repeated = pd.Series(np.concatenate(hashes)).duplicated().to_numpy()
        if repeated.any():
            row = int(np.argmax(repeated))
            first = next(islice(self._read(self._open(self._ids)), row, None))[ITEM_ID]
            raise DataError(
                f"items have {repeated.sum():,} repeated ids",
                got=first,
                fix=f"keep one row of each; this one comes again in row {row}",
            )
        if self._log is not None:
            self._by_log = self._split_by_log(every)
            count = list(self._by_log.values()).count("train")
            seen.update(repr(list(self._by_log.items())).encode())
        self.digest = seen.hexdigest()
        return count

    def _split_by_log(self, ids: Mapping[str, str]) -> dict[str, str]:
        """Id as it is read to split, of the items that are trained on or measured."""
        items = pd.DataFrame({ITEM_ID: list(ids.values())})
        bare = replace(self.config, text=(), image=None)
        catalog = Catalog.from_pandas(items, self._log, config=bare)
        self._log = None
        named = dict(zip(SPLITS, split_items(catalog, self._seed), strict=True))
        read = list(ids)
        return {read[row]: split for split, rows in named.items() for row in rows.tolist()}

    def _read(self, rows: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from rows
        except MMAlignError:
            raise
        except Exception as error:  # builders, Arrow and pandas share no base class of errors
            raise DataError(
                f"cannot read the items of {self._file or self.config.path}",
                got=(str(error).strip() or type(error).__name__).splitlines()[0],
                fix="mend or replace the table",
            ) from error

    def _split_of(self, row: Mapping[str, Any]) -> str:
        if self._has_split:
            return str(row[SPLIT])
        if self._by_log is not None:
            return self._by_log.get(str(row[ITEM_ID]), "")
        return {0: "valid", 1: "test"}.get(zlib.crc32(str(row[ITEM_ID]).encode()) % 10, "train")

    def _catalog(self, rows: list[Mapping[str, Any]]) -> Catalog:
        frame = pd.DataFrame(rows)
        frame[SPLIT] = [self._split_of(row) for row in rows]
        return Catalog.from_pandas(frame, None, config=self.config, root=self._root)


def _find(folder: Path, name: str) -> Path:
    """The items' file, or the saved dataset that the folder is or holds."""
    file = folder if huggingface.is_saved(folder) else reading.locate(folder, name)
    if file is None:
        raise DataError(
            "no file of items that can be streamed",
            got=str(folder / name),
            fix=f"write one of {', '.join(reading.ENDINGS)}",
        )
    return file


def _json_cells(file: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in reading.json_rows(Path(file)):
        yield {column: row.get(column) for column in columns}
