"""The catalogue: items, who took which of them, and the row numbers that all other rooms use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.data import cleaning, huggingface, reading
from mmalign.data.attributes import attribute_values
from mmalign.data.cells import as_line, as_text, in_line
from mmalign.data.config import AttributeConfig, DataConfig
from mmalign.data.ids import find_rows
from mmalign.data.neighbours import read_neighbours
from mmalign.data.splits import SplitConfig
from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import (
    ITEM_ID,
    SPLIT,
    SPLITS,
    TIMESTAMP,
    USER_ID,
    WEIGHT,
    BoolArray,
    Features,
    IntArray,
)

__all__ = ["AttributeConfig", "Catalog", "DataConfig", "SplitConfig"]


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items, interactions and users, checked and with ids as text.

    Build one with :meth:`read`, :meth:`from_folder`, :meth:`from_pandas` or :meth:`from_datasets`.
    Frames and arrays are shared, and must not be changed.

    Attributes:
        items: ``item_id`` and all other columns of the items, one row an item.
        interactions: ``user_id, item_id, weight`` (float32), ``split`` (train, valid or test), and
            whatever else the log has; ``timestamp``, where there is one, in seconds since 1970.
        users: ``user_id`` and attributes, or None.
        config: What is used of the above.
        root: Folder that the paths of pictures are relative to, or None.
        notices: What was dropped or mended on reading, one line each.
        neighbours: Modality to given neighbour graph, ``[I, I]``, see ``data.neighbours``.
        features: Modality to content that came encoded with the data, as MMRec folders have it.

    Example:
        >>> catalog = Catalog.from_pandas(
        ...     pd.DataFrame({"item_id": [7, 8], "title": ["Tea", None]}),
        ...     pd.DataFrame({"user_id": ["ann"], "item_id": [8], "split": ["train"]}),
        ...     config=DataConfig(text=("title",)),
        ... )
        >>> catalog.item_ids.tolist(), catalog.texts(), catalog.warm.tolist()
        (['7', '8'], ['Tea', None], [False, True])
        >>> catalog.matrix().toarray().tolist()
        [[0.0, 1.0]]
    """

    items: pd.DataFrame
    interactions: pd.DataFrame
    users: pd.DataFrame | None
    config: DataConfig
    root: Path | None = None
    notices: tuple[str, ...] = ()
    neighbours: Mapping[str, sp.csr_matrix] = field(default_factory=dict)
    features: Features = field(default_factory=dict)

    @classmethod
    def read(cls, config: DataConfig) -> Catalog:
        """Read what ``config.path`` points at.

        In this order: a folder that ``save_to_disk`` wrote, a data folder, a folder of a peer's
        files (``.inter``), a folder of pictures, a dataset id on the Hugging Face hub.

        Raises:
            ConfigError: There is no path.
            DataError: Nothing can be read there, or what is there cannot be used.
            MissingDependencyError: The package ``datasets`` is needed and absent.
        """
        if not config.path:
            raise ConfigError(
                "data.path is not set", fix="name a folder or a Hugging Face dataset id"
            )
        folder = Path(config.path).expanduser()
        if folder.is_dir():
            return cls.from_folder(folder, config)
        if folder.exists() or not reading.is_hub_id(config.path):
            raise DataError(
                "data.path is no folder",
                got=config.path,
                fix="check the path, or give a dataset id",
            )
        if config.neighbours:
            raise ConfigError(
                "data.neighbours names files of a folder, and data.path is a dataset on the hub",
                got=config.path,
                fix="leave it out, or download the dataset and put the lists beside its tables",
            )
        return cls.from_pandas(*reading.read_hub(config.path, config), config=config)

    @classmethod
    def from_folder(cls, folder: str | Path, config: DataConfig | None = None) -> Catalog:
        """Read a folder of any kind that :meth:`read` knows.

        Raises:
            DataError: The folder is of no such kind, or its files cannot be used.
        """
        folder, config = Path(folder), config or DataConfig()
        catalog = cls._from_files(folder, config)
        found = read_neighbours(folder, config.neighbours, catalog.item_ids)
        return replace(catalog, neighbours=found)

    @classmethod
    def _from_files(cls, folder: Path, config: DataConfig) -> Catalog:
        from mmalign.data import formats  # formats builds catalogues itself

        if huggingface.is_saved(folder):
            tables = reading.read_saved(folder, config)
        elif reading.is_data_folder(folder, config):
            tables = reading.read_folder(folder, config)
        elif formats.is_peer_folder(folder):
            return formats.read_peer(folder, config)
        elif reading.is_imagefolder(folder, config):
            tables = reading.read_imagefolder(folder, config)
        else:
            tables = reading.read_folder(folder, config)  # fails, and says which file is not there
        return cls.from_pandas(*tables, config=config, root=folder)

    @classmethod
    def from_pandas(
        cls,
        items: pd.DataFrame | None,
        interactions: pd.DataFrame | None,
        users: pd.DataFrame | None = None,
        *,
        config: DataConfig | None = None,
        root: str | Path | None = None,
    ) -> Catalog:
        """Build a catalogue from frames, which are not changed.

        Args:
            items: Column ``item_id`` and any others; None takes the sorted ids of the log.
            interactions: Columns ``user_id``, ``item_id`` and optionally ``timestamp``, ``event``,
                ``weight`` or ``rating``, ``split``; None for a catalogue without a log.
            users: Column ``user_id`` and any others.
            config: What to use of them; file names in it are ignored.
            root: Folder that the paths of pictures are relative to.

        Raises:
            DataError: The tables cannot be used as they are.
        """
        config = config or DataConfig()
        notices: list[str] = []
        log = cleaning.no_interactions()
        if interactions is not None:
            log = cleaning.clean_interactions(interactions, config.positive, notices)
        elif items is None:
            raise DataError("there are neither items nor interactions", fix="give at least one")
        if items is None:
            items = pd.DataFrame({ITEM_ID: sorted(log[ITEM_ID].unique())})
        items = cleaning.clean_items(items, config, notices)
        if len(log):
            log = cleaning.drop_unknown_items(log, items[ITEM_ID], notices)
            log = cleaning.with_split(log, config.split, notices)
        return cls(
            items,
            log,
            None if users is None else cleaning.clean_users(users),
            config,
            None if root is None else Path(root),
            tuple(notices),
        )

    @classmethod
    def from_datasets(
        cls,
        items: Any,
        interactions: Any = None,
        users: Any = None,
        *,
        config: DataConfig | None = None,
    ) -> Catalog:
        """Build a catalogue from objects of the package ``datasets``.

        Args:
            items: A ``Dataset``, or a ``DatasetDict`` that holds all tables under the names that
                the config gives them.
            interactions: A ``Dataset``, or a ``DatasetDict`` whose parts are the splits.
            users: A ``Dataset``.
            config: What to use of them.

        Raises:
            DataError: The tables cannot be used as they are.
        """
        config = config or DataConfig()
        tables = reading.from_dataset(items, config)
        given = {"interactions": interactions, "users": users}
        frames = {
            key: huggingface.to_frame(value) for key, value in given.items() if value is not None
        }
        return cls.from_pandas(*tables._replace(**frames), config=config)

    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """Ids of the items in row order, ``[I]`` of str."""
        ids: NDArray[np.object_] = self.items[ITEM_ID].to_numpy(dtype=object)
        return ids

    @cached_property
    def user_ids(self) -> NDArray[np.object_]:
        """Sorted ids of all users of the log and of the users table, ``[U]`` of str."""
        ids = self.interactions[USER_ID]
        if self.users is not None:
            ids = pd.concat([ids, self.users[USER_ID]])
        return np.sort(ids.unique().astype(object))

    @property
    def num_items(self) -> int:
        """Number of items, I."""
        return len(self.items)

    @property
    def num_users(self) -> int:
        """Number of users, U."""
        return len(self.user_ids)

    def matrix(self, *splits: str) -> sp.csr_matrix:
        """Make the user-item matrix of some splits; weights of repeated pairs are summed.

        Args:
            splits: Any of train, valid and test; train when none is named.

        Shapes:
            returns: ``[U, I]`` float32, sorted column numbers.

        Raises:
            DataError: There is no such split.
        """
        splits = splits or ("train",)
        for split in splits:
            if split not in SPLITS:
                raise DataError("no such split", got=split, fix=nearest(split, SPLITS))
        users, items = self._codes
        chosen = np.logical_or.reduce([self._is_split(split) for split in splits])
        weights = self.interactions[WEIGHT].to_numpy()[chosen]
        shape = (self.num_users, self.num_items)
        matrix = sp.coo_matrix((weights, (users[chosen], items[chosen])), shape).tocsr()
        matrix.sort_indices()
        return matrix

    def times(self) -> sp.csr_matrix | None:
        """Make the user-item matrix of the last time of each train pair, in seconds since 1970.

        Shapes:
            returns: ``[U, I]`` float64 without the pairs whose time is not known; None when the
                log has no times at all.
        """
        if TIMESTAMP not in self.interactions:
            return None
        log = pd.DataFrame(dict(zip(("user", "item"), self._codes, strict=True)))
        log["time"] = self.interactions[TIMESTAMP].to_numpy(np.float64)
        log = log[self._is_split("train")].dropna().sort_values("time", kind="stable")
        last = log.drop_duplicates(["user", "item"], keep="last")
        shape = (self.num_users, self.num_items)
        return sp.coo_matrix((last["time"], (last["user"], last["item"])), shape).tocsr()

    @cached_property
    def warm(self) -> BoolArray:
        """Mark the items that have a train row, ``[I]``."""
        marks = np.zeros(self.num_items, dtype=bool)
        marks[self._codes[1][self._is_split("train")]] = True
        return marks

    def item_rows(self, ids: Iterable[object]) -> IntArray:
        """Row numbers of items.

        Raises:
            DataError: An id is unknown; the error names the first and the nearest known one.
        """
        return find_rows(self._item_index, ids, "item")

    def user_rows(self, ids: Iterable[object]) -> IntArray:
        """Row numbers of users.

        Raises:
            DataError: An id is unknown; the error names the first and the nearest known one.
        """
        return find_rows(self._user_index, ids, "user")

    def texts(self) -> list[str | None]:
        """Text of each item, ``[I]``: its text columns joined by ``". "``, None when all are empty.

        Values within a cell that are separated by ``|``, or in a list, are joined by ``", "``.
        """
        columns = [self.joined(column) for column in self.config.text]
        parts = zip(*columns, strict=True) if columns else ((),) * self.num_items
        return [". ".join(p for p in cells if p is not None) or None for cells in parts]

    def joined(self, column: str) -> list[str | None]:
        """Text of a column as :meth:`texts` holds it, ``[I]``, None where a cell is empty."""
        return as_line(self._cells(column), ", ")

    def texts_of(self, column: str, *, whole: bool = False) -> list[str | None]:
        """Text of one column alone, ``[I]``.

        Args:
            column: One of the text columns.
            whole: Whether what an attribute's pattern pulls out of it stays in.

        Raises:
            DataError: The column is none of the text columns.
        """
        if column not in self.config.text:
            raise DataError(
                "no such text column", got=column, fix=nearest(column, self.config.text)
            )
        cells = self._cells(column)
        for name, attribute in self.config.attributes.items():
            is_pulled = attribute.pattern is not None and (attribute.column or name) == column
            if is_pulled and not whole:
                cells = as_text(cells).str.replace(attribute.pattern, "", regex=True)
        return [text or None for text in as_line(cells, ", ")]

    def _cells(self, column: str) -> pd.Series:
        cells = self.items[column]
        for pattern, replacement in self.config.rewrite.get(column, {}).items():
            change = partial(re.compile(pattern).sub, replacement)
            cells = as_text(in_line(cells)).astype(object).map(change, na_action="ignore")
        return cells

    def images(self) -> list[Path | bytes | None]:
        """Picture of each item, ``[I]``: the path of a file, the bytes of one, or None."""
        if self.config.image is None:
            return [None] * self.num_items
        root = self.root or Path()
        cells = self.items[self.config.image]
        return [root / cell if isinstance(cell, str) else cell for cell in cells]

    def attribute_values(self, name: str) -> pd.Series:
        """Value of an attribute of each item, ``[I]``, see :mod:`mmalign.data.attributes`.

        Raises:
            DataError: The config has no such attribute.
        """
        if name not in self.config.attributes:
            raise DataError(
                "no such attribute", got=name, fix=nearest(name, self.config.attributes)
            )
        return attribute_values(self.items, name, self.config.attributes[name])

    @cached_property
    def _item_index(self) -> pd.Index:
        return pd.Index(self.item_ids)

    @cached_property
    def _user_index(self) -> pd.Index:
        return pd.Index(self.user_ids)

    @cached_property
    def _codes(self) -> tuple[IntArray, IntArray]:
        """User and item row of every interaction, ``[E]`` each."""
        users = self._user_index.get_indexer(self.interactions[USER_ID].astype(object))
        items = self._item_index.get_indexer(self.interactions[ITEM_ID].astype(object))
        return users.astype(np.int64), items.astype(np.int64)

    def _is_split(self, split: str) -> BoolArray:
        marks: BoolArray = (self.interactions[SPLIT] == split).to_numpy(dtype=bool)
        return marks
