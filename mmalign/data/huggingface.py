"""Tables kept as Hugging Face ``datasets``: saved on disk, on the hub, or in memory.

The library is imported when it is first needed, so that plain files work without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from mmalign.errors import DataError, MissingDependencyError
from mmalign.interfaces import SPLIT

__all__ = [
    "check_hub",
    "is_saved",
    "load_hub_table",
    "load_saved",
    "stream_file",
    "stream_hub_table",
    "stream_rows",
    "to_frame",
]

HUB_TIMEOUT = 3.0
"""Seconds the hub has to answer the question whether a dataset is there."""

_SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}


def is_saved(folder: Path) -> bool:
    """Say whether a folder was written by ``save_to_disk``."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def load_saved(folder: Path) -> Any:
    """Load a ``Dataset`` or ``DatasetDict`` that ``save_to_disk`` wrote.

    Raises:
        MissingDependencyError: The package ``datasets`` is absent.
        DataError: The folder is broken.
    """
    library = _library()
    try:
        return library.load_from_disk(str(folder))
    except Exception as error:  # the library passes on whatever Arrow or JSON raise
        raise _unreadable(folder, error) from error


def check_hub(dataset_id: str) -> None:
    """Ask the hub one cheap question, since ``datasets`` tries for half a minute to reach it.

    With ``HF_HUB_OFFLINE`` nothing is asked: ``datasets`` then reads what it downloaded before.

    Raises:
        DataError: The hub has no such dataset, or does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().dataset_info(dataset_id, timeout=HUB_TIMEOUT)
    except OfflineModeIsEnabled:
        return
    except RepositoryNotFoundError:
        raise DataError(
            "no such folder, and no dataset of that id on the Hugging Face hub",
            got=dataset_id,
            fix="check data.path, or log in with hf auth login if the dataset is private",
        ) from None
    except Exception as error:  # the client's errors share no base with those of its HTTP library
        raise DataError(
            "no such folder, and the Hugging Face hub cannot be asked for a dataset of that id",
            got=dataset_id,
            fix="check data.path, or set HF_HUB_OFFLINE=1 to read what was downloaded before; "
            f"the hub's client said: {_first_line(error)}",
        ) from None


def load_hub_table(dataset_id: str, table: str, *, is_items: bool = False) -> pd.DataFrame | None:
    """Load one table of a hub dataset.

    A table is a configuration of that name, or else a file of that name in the repository. Items
    may also be the only thing that the dataset holds.

    Args:
        dataset_id: Such as ``owner/name``.
        table: Name of the table, with or without a file's ending.
        is_items: Fall back on the default configuration.

    Returns:
        The table, or None when the dataset has none of that name.

    Raises:
        MissingDependencyError: The package ``datasets`` is absent.
        DataError: The dataset does not exist, cannot be reached or cannot be read.
    """
    library = _library()
    pattern = table if Path(table).suffix else f"{table}.*"
    try:
        if table in library.get_dataset_config_names(dataset_id):
            return to_frame(library.load_dataset(dataset_id, table))
        try:
            return to_frame(library.load_dataset(dataset_id, data_files={"train": pattern}))
        except FileNotFoundError:
            return to_frame(library.load_dataset(dataset_id)) if is_items else None
    except Exception as error:  # network, hub and builder errors share no base class
        raise DataError(
            "no such folder, and no Hugging Face dataset of that id can be loaded",
            got=dataset_id,
            fix=f"check data.path; the library said: {_first_line(error)}",
        ) from error


def stream_file(file: Path, columns: Sequence[str], header: Sequence[str], batch_size: int) -> Any:
    """Open some columns of a table as an ``IterableDataset``, pictures as they are stored.

    Cells of a CSV file stay as they are written, so that the id ``007`` is not 7.

    Args:
        file: A ``.parquet`` or ``.csv`` file, or a saved dataset.
        columns: What is read of it.
        header: All that it has.
        batch_size: Rows that are read at once.

    Raises:
        MissingDependencyError: The package ``datasets`` is absent.
        DataError: The file is broken.
    """
    library = _library()
    if file.is_dir():
        stream = load_saved(file)
        if hasattr(stream, "values"):
            raise DataError(
                f"{file} holds several tables where streaming reads one",
                got=list(stream),
                fix="save the items alone",
            )
        stream = stream.select_columns(list(columns)).to_iterable_dataset()
    else:
        options: dict[str, dict[str, Any]] = {
            ".parquet": {"path": "parquet", "columns": list(columns), "batch_size": batch_size},
            ".csv": {
                "path": "csv",
                "converters": dict.fromkeys(header, str),
                "keep_default_na": False,
                "encoding": "utf-8-sig",
                "chunksize": batch_size,
            },
        }
        chosen = options[file.suffix.lower()]
        try:
            stream = library.load_dataset(
                **chosen, data_files=str(file), split="train", streaming=True
            )
        except Exception as error:  # builders share no base class of errors
            raise _unreadable(file, error) from error
        # A CSV file is selected from afterwards: pandas' usecols lets rows pass that are too long.
        stream = stream.select_columns(list(columns))
    return _undecoded(stream, library)


def stream_rows(rows: Callable[..., Iterator[dict[str, Any]]], **arguments: Any) -> Any:
    """Open what a generator function gives as an ``IterableDataset``.

    Raises:
        MissingDependencyError: The package ``datasets`` is absent.
    """
    return _library().IterableDataset.from_generator(rows, gen_kwargs=arguments)


def stream_hub_table(dataset_id: str, table: str) -> Any:
    """Open a table of a hub dataset as an ``IterableDataset``; see :func:`load_hub_table`.

    Raises:
        MissingDependencyError: The package ``datasets`` is absent.
        DataError: The dataset does not exist, cannot be reached or cannot be read.
    """
    check_hub(dataset_id)
    library = _library()
    try:
        names = library.get_dataset_config_names(dataset_id)
        name = table if table in names else None
        stream = library.load_dataset(dataset_id, name, split="train", streaming=True)
    except Exception as error:  # network, hub and builder errors share no base class
        raise DataError(
            "no such folder, and no Hugging Face dataset of that id can be streamed",
            got=dataset_id,
            fix=f"check data.path; the library said: {_first_line(error)}",
        ) from error
    return _undecoded(stream, library)


def to_frame(dataset: Any) -> pd.DataFrame:
    """Turn a ``Dataset`` or a ``DatasetDict`` into one frame, pictures as they are stored.

    The parts of a dictionary are laid end to end; when there are several and they are named like
    splits, the names become a ``split`` column unless there is one. Class labels are written out.
    """
    if not hasattr(dataset, "values"):
        return _one_frame(dataset)
    parts = {name: _one_frame(part) for name, part in dataset.items()}
    if len(parts) > 1 and set(parts) <= set(_SPLIT_NAMES):
        parts = {
            name: part if SPLIT in part else part.assign(**{SPLIT: _SPLIT_NAMES[name]})
            for name, part in parts.items()
        }
    return pd.concat(parts.values(), ignore_index=True)


def _one_frame(dataset: Any) -> pd.DataFrame:
    frame = dataset.with_format(None).to_pandas()
    for column, feature in dataset.features.items():
        inside = getattr(feature, "feature", None)  # of a list
        labels: list[Any]
        if hasattr(feature, "int2str"):
            labels = [_label(feature, cell) for cell in frame[column]]
        elif hasattr(inside, "int2str"):
            labels = [
                None if cell is None else [_label(inside, each) for each in cell]
                for cell in frame[column]
            ]
        else:
            continue
        frame = frame.assign(**{column: pd.Series(labels, frame.index, dtype=object)})
    return frame


def _label(feature: Any, cell: Any) -> str | None:
    """Name a class; -1 is how datasets without a label for a row write it."""
    if pd.isna(cell) or cell < 0:
        return None
    name: str = feature.int2str(int(cell))
    return name


def _undecoded(stream: Any, library: ModuleType) -> Any:
    """Leave pictures as bytes and paths: encoders decode them, one by one."""
    for column, feature in (stream.features or {}).items():
        if isinstance(feature, library.Image):
            stream = stream.cast_column(column, library.Image(decode=False))
    return stream


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            "Hugging Face datasets cannot be read without the package datasets",
            fix="pip install datasets",
        ) from None
    library: ModuleType = datasets
    return library


def _unreadable(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot load the dataset saved in {folder}",
        got=_first_line(error),
        fix="save it again with save_to_disk",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
