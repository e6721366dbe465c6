"""From a path to raw tables: data folders, saved datasets, folders of pictures, hub datasets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pyarrow import parquet

from mmalign.data.config import DataConfig
from mmalign.data.huggingface import check_hub, is_saved, load_hub_table, load_saved, to_frame
from mmalign.errors import DataError, nearest
from mmalign.interfaces import ITEM_ID, USER_ID

__all__ = [
    "Tables",
    "columns_of",
    "from_dataset",
    "is_data_folder",
    "is_hub_id",
    "is_imagefolder",
    "json_rows",
    "locate",
    "read_folder",
    "read_hub",
    "read_imagefolder",
    "read_saved",
    "read_table",
]

ENDINGS = (".parquet", ".csv", ".jsonl")
PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# What counts as missing in a CSV cell. Ids and texts take only the empty cell: a film may be
# called "Null", and NA is Namibia.
_MISSING = ("", "NA", "N/A", "<NA>", "NaN", "nan", "null", "None")


class Tables(NamedTuple):
    """The tables of a catalogue as they were found."""

    items: pd.DataFrame | None
    interactions: pd.DataFrame | None
    users: pd.DataFrame | None


def is_data_folder(folder: Path, config: DataConfig) -> bool:
    """Say whether a folder holds the items table, or the log when there is to be no items table."""
    name = config.items if config.items is not None else config.interactions
    return name is not None and locate(folder, name) is not None


def is_imagefolder(folder: Path, config: DataConfig) -> bool:
    """Say whether a folder holds pictures, or the metadata of pictures.

    Metadata may lie one folder down (``train/metadata.csv``), pictures two (``train/cat/1.png``):
    what is deeper belongs to something else. A config that gives the items a file name of its own
    means no such folder.
    """
    return config.items == DataConfig.items and (
        any(_metadata_files(folder)) or any(_pictures(folder))
    )


def is_hub_id(path: str) -> bool:
    """Say whether a path could be a dataset id on the hub, ``owner/name``."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path) is not None


def read_folder(folder: Path, config: DataConfig) -> Tables:
    """Read the tables that a config names from the files, or saved datasets, in a folder.

    Raises:
        DataError: A named table is absent, ambiguous, empty or broken.
    """
    return _read_tables(config, lambda name, key: _required(folder, name, key, config))


def read_saved(folder: Path, config: DataConfig) -> Tables:
    """Read a folder that ``save_to_disk`` wrote.

    A ``DatasetDict`` holds the tables under the names that the config gives them; anything else
    is the items. Tables that are not in it are looked for as files or saved datasets in the
    folder; the log may be absent unless the config gives it a name of its own.
    """
    return from_dataset(load_saved(folder), config, folder)


def from_dataset(dataset: Any, config: DataConfig, folder: Path | None = None) -> Tables:
    """Read the tables out of a ``Dataset`` or ``DatasetDict``; see :func:`read_saved`."""
    named = dataset if hasattr(dataset, "values") else {}
    if config.items is not None and config.items not in named:
        named = {config.items: dataset}

    def find(name: str, key: str) -> pd.DataFrame | None:
        if name in named:
            return to_frame(named[name])
        return None if folder is None else _optional(folder, name, key, config)

    return _read_tables(config, find)


def read_log(folder: Path, config: DataConfig) -> pd.DataFrame | None:
    """Read the log alone; it may be absent unless the config gives it a name of its own."""
    saved = load_saved(folder) if is_saved(folder) else {}
    return from_dataset(saved, replace(config, items=None, users=None), folder).interactions


def read_imagefolder(folder: Path, config: DataConfig) -> Tables:
    """Read a folder of pictures laid out as Hugging Face's ``imagefolder``.

    Columns come from ``metadata.csv``, ``.jsonl`` or ``.parquet``, which may stand in the folder
    and in the folders inside it, and name each picture in ``file_name``, relative to itself.
    Without metadata every picture is an item, labelled by the folder it lies in. The column
    ``image`` holds the path relative to ``folder``, and ``item_id`` the same unless the metadata
    have ids. The log is read from a file in the folder, and may be absent unless the config gives
    it a name of its own.
    """

    def find(name: str, key: str) -> pd.DataFrame | None:
        if key == "items":
            return _imagefolder_items(folder, config)
        return _optional(folder, name, key, config)

    return _read_tables(config, find)


def read_hub(dataset_id: str, config: DataConfig) -> Tables:
    """Read a dataset of the hub; see :func:`mmalign.data.huggingface.load_hub_table`.

    Raises:
        DataError: The hub has no such dataset or does not answer, or a named table is not in it.
    """
    check_hub(dataset_id)

    def find(name: str, key: str) -> pd.DataFrame | None:
        table = load_hub_table(dataset_id, name, is_items=key == "items")
        if table is None and name != getattr(DataConfig, key):
            raise DataError(
                f"dataset {dataset_id} has no {key}",
                got=name,
                fix=f"name a configuration or a file of it as data.{key}",
            )
        return table

    return _read_tables(config, find)


def locate(folder: Path, name: str) -> Path | None:
    """Find a table by its file name, with or without ending, or a saved dataset of that name.

    Raises:
        DataError: Several files fit.
    """
    exact = folder / name
    if exact.suffix.lower() in ENDINGS and exact.is_file():
        return exact
    if exact.is_dir() and is_saved(exact):
        return exact
    found = [path for ending in ENDINGS if (path := folder / f"{name}{ending}").is_file()]
    if len(found) > 1:
        raise DataError(
            f"several files of {folder} are called {name}",
            got=[path.name for path in found],
            fix="give the name with its ending",
        )
    return found[0] if found else None


def read_table(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    """Read one table.

    Args:
        path: A ``.parquet``, ``.csv`` or ``.jsonl`` file, or a saved dataset.
        text: Columns to be read as text, cell by cell as written, beside the ids.

    Raises:
        DataError: The file is broken or holds no rows.
    """
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        ".parquet": lambda: pd.read_parquet(path),
        ".csv": lambda: _read_csv(path, {USER_ID, ITEM_ID, *text}),
        ".jsonl": lambda: pd.DataFrame(json_rows(path)),
    }
    if path.is_dir():
        frame = to_frame(load_saved(path))
    elif path.stat().st_size == 0:
        frame = pd.DataFrame()
    else:
        try:
            frame = readers[path.suffix.lower()]()
        except DataError:
            raise
        except (OSError, ValueError) as error:  # parser, Arrow and Unicode errors are ValueErrors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"cannot read {path}", got=reason, fix="mend or replace it") from error
    if len(frame) == 0:
        raise DataError(f"{path} is empty", fix="give a file with at least one row")
    return frame


def columns_of(path: Path) -> list[str]:
    """Names of a table's columns, read without the table; of a ``.jsonl`` file, of all its lines.

    Raises:
        DataError: The file is empty or broken.
    """
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", fix="give a file with at least one row")
    ending = path.suffix.lower()
    try:
        if ending == ".jsonl":
            return list(dict.fromkeys(name for row in json_rows(path) for name in row))
        if ending == ".csv":
            columns = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
            _check_header(path, columns)
            return list(columns)
        names: list[str] = parquet.read_schema(path).names
        return names
    except DataError:
        raise
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"cannot read {path}", got=reason, fix="mend or replace it") from error


def _read_tables(config: DataConfig, find: Callable[[str, str], pd.DataFrame | None]) -> Tables:
    tables = (
        None if name is None else find(name, key)
        for key, name in (
            ("items", config.items),
            ("interactions", config.interactions),
            ("users", config.users),
        )
    )
    return Tables(*tables)


def _required(folder: Path, name: str, key: str, config: DataConfig) -> pd.DataFrame:
    path = locate(folder, name)
    if path is None:
        whole = Path(name).suffix.lower() in ENDINGS
        files = {
            path.name if whole else path.stem
            for path in folder.iterdir()
            if path.suffix.lower() in ENDINGS
        }
        without = "" if key == "users" else f", or write data.{key}: null to go without"
        raise DataError(
            f"{folder} has no file {name} for data.{key}",
            fix=f"{nearest(name, files) if files else f'add one of {ENDINGS}'}{without}",
        )
    return read_table(path, config.text_columns() if key == "items" else ())


def _optional(folder: Path, name: str, key: str, config: DataConfig) -> pd.DataFrame | None:
    if locate(folder, name) is None and name == getattr(DataConfig, key):
        return None
    return _required(folder, name, key, config)


def _read_csv(path: Path, text: set[str]) -> pd.DataFrame:
    columns = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
    _check_header(path, columns)
    as_written = [column for column in columns if column in text]
    return pd.read_csv(
        path,
        encoding="utf-8-sig",
        dtype=dict.fromkeys(as_written, "str"),
        keep_default_na=False,
        na_values={c: [""] if c in text else list(_MISSING) for c in columns},
    )


def _check_header(path: Path, columns: pd.Index) -> None:
    for separator in (";", "\t"):
        if len(columns) == 1 and separator in columns[0]:
            raise DataError(
                f"the columns of {path} are separated by {separator!r}",
                got=columns[0],
                fix="separate them by commas",
            )
    first = pd.read_csv(path, nrows=1, dtype="str", encoding="utf-8-sig")
    if not isinstance(first.index, pd.RangeIndex):  # pandas takes the first cell for a row's name
        raise DataError(
            f"the rows of {path} have more cells than its header has names",
            got=f"{len(columns)} names",
            fix="name every column, or take the commas at the ends of the lines away",
        )
    # As written: pandas would call the second of two equal columns x.1
    header = pd.read_csv(path, header=None, nrows=1, dtype="str", encoding="utf-8-sig").iloc[0]
    twice = header[header.duplicated() & header.notna()]
    if len(twice):
        raise DataError(
            f"{path} has two columns of the same name", got=twice.iloc[0], fix="rename one of them"
        )


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read a ``.jsonl`` file line by line.

    Raises:
        DataError: A line is no JSON object.
    """
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"line {number} of {path} is no JSON", got=str(error), fix="mend the line"
                ) from None
            if not isinstance(row, dict):
                raise DataError(
                    f"line {number} of {path} is no object", got=row, fix="write {...} lines"
                )
            yield row


def _imagefolder_items(folder: Path, config: DataConfig) -> pd.DataFrame:
    parts = [_pictures_of(path, folder, config) for path in _metadata_files(folder)]
    if not parts:
        paths = [path.relative_to(folder) for path in _pictures(folder)]
        parts = [
            pd.DataFrame(
                {
                    "image": [path.as_posix() for path in paths],
                    "label": [path.parent.name or None for path in paths],
                }
            )
        ]
    items = pd.concat(parts, ignore_index=True)
    return items if ITEM_ID in items else items.assign(**{ITEM_ID: items["image"]})


def _pictures_of(metadata: Path, folder: Path, config: DataConfig) -> pd.DataFrame:
    frame = read_table(metadata, {"file_name", *config.text_columns()})
    if "file_name" not in frame:
        raise DataError(
            f"{metadata} has no column file_name", fix=nearest("file_name", map(str, frame))
        )
    beside = metadata.parent.relative_to(folder)
    image = frame["file_name"].map(lambda name: (beside / name).as_posix(), na_action="ignore")
    return frame.drop(columns="file_name").assign(image=image)


def _metadata_files(folder: Path) -> Iterator[Path]:
    depths = ("", "*/")
    return iter(
        sorted(p for name in _METADATA for depth in depths for p in folder.glob(depth + name))
    )


def _pictures(folder: Path) -> Iterator[Path]:
    found = (path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(depth))
    return iter(sorted(path for path in found if path.suffix.lower() in PICTURES))
