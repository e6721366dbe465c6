"""Ids and tables that commands take and give."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from mmalign.data.cells import as_ids
from mmalign.data.reading import ENDINGS, read_table
from mmalign.errors import ConfigError, DataError, nearest

__all__ = ["check_output", "print_json", "read_ids", "write_table"]

_WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(
        path, orient="records", lines=True, force_ascii=False
    ),
}


def read_ids(values: list[str], column: str) -> list[str]:
    """Take ids from the command line, or from the one file that is named there.

    Args:
        values: Ids, or a table with the column, or a text file with an id a line.
        column: Where a table has them.

    Returns:
        Each id once, in the order given.

    Raises:
        ConfigError: An id is empty.
        DataError: The file is not there, cannot be read, or holds no such ids.
    """
    if not all(values):
        raise ConfigError("an id is empty", got=values, fix="write the id, or leave it out")
    path = Path(values[0])
    if len(values) > 1:
        return list(dict.fromkeys(values))
    if not path.is_file():
        if path.suffix.lower() in (*ENDINGS, ".txt"):
            raise DataError(
                "no such file of ids", got=values[0], fix="check the path, or give ids themselves"
            )
        return values
    ids = _table_ids(path, column) if path.suffix.lower() in ENDINGS else _lines(path)
    if not ids:
        raise DataError(f"{path} holds no ids", fix="write an id a line")
    return list(dict.fromkeys(ids))


def check_output(output: str | None) -> None:
    """Fail before the work if a table could not be written after it.

    Raises:
        ConfigError: The ending names no format.
        DataError: There is a folder of that name, or the place cannot be written.
    """
    if output is None:
        return
    path = Path(output).absolute()
    if path.suffix not in _WRITERS:
        raise ConfigError(
            "cannot tell the format of the output",
            got=output,
            fix=f"end it in {', '.join(_WRITERS)}",
        )
    parent = next(p for p in path.parents if p.exists())
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise DataError(f"cannot write {output}", fix="name a file that you may write")


def write_table(
    frame: pd.DataFrame, output: str | None, as_json: bool, *, nothing: str = "nothing found"
) -> None:
    """Write a table to a file by its ending, or to standard output.

    A file appears whole, by a rename. What a table without rows means is said on standard error.

    Raises:
        ConfigError: The ending names no format.
        DataError: The file cannot be written.
    """
    if frame.empty:
        print(f"note: {nothing}", file=sys.stderr)
    if output is None:
        if as_json:
            print(frame.to_json(orient="records", force_ascii=False))
        elif not frame.empty:
            print(frame.to_string(index=False))
        return
    check_output(output)
    path = Path(output)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[path.suffix](frame, part)
        part.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot write {path}", got=reason, fix="name another file") from None
    finally:
        part.unlink(missing_ok=True)
    print(f"wrote {len(frame):,} rows to {path}", file=sys.stderr)


def print_json(values: Any) -> None:
    """Print plain values as JSON."""
    print(json.dumps(values, indent=2, ensure_ascii=False))


def _table_ids(path: Path, column: str) -> list[str]:
    frame = read_table(path, {column})
    if column not in frame:
        raise DataError(f"{path} has no column {column!r}", fix=nearest(column, map(str, frame)))
    ids: list[str] = as_ids(frame[column], str(path)).tolist()
    return ids


def _lines(path: Path) -> list[str]:
    """Lines as they are: an id may hold spaces, and characters that ``splitlines`` splits at."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except ValueError as error:
        raise DataError(f"cannot read {path}", got=str(error), fix="write it in UTF-8") from None
    return [line for line in lines if line.strip()]
