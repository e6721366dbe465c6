"""Files of an artefact, read as data: whatever is wrong with one is said in a line."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmalign.errors import ArtefactError

__all__ = [
    "pack",
    "read_arrays",
    "read_json",
    "read_table",
    "refuse_code",
    "unpack",
    "write_arrays",
    "write_table",
]

RUNS_CODE = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz")
MAGIC = (*(b"\x80" + bytes([protocol]) for protocol in range(2, 6)), b"\x93NUMPY", b"PK\x03\x04")
"""First bytes of a pickle, of an array file, and of an archive, as torch saves."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArtefactError: The file is missing, damaged, or holds something else.
    """
    _check_there(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(values, dict):
        raise ArtefactError(f"{path} holds no JSON object", got=values, fix="fit anew")
    return values


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file.

    Raises:
        ArtefactError: The file is missing or damaged.
    """
    _check_there(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file.

    Raises:
        OSError: The disk is full, or the like.
    """
    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from None


def read_table(path: Path, key: str) -> pd.DataFrame:
    """Read a Parquet file whose column ``key`` holds distinct ids.

    Raises:
        ArtefactError: The file is missing or damaged, or its ids are.
    """
    _check_there(path)
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from None
    if key not in frame or frame[key].hasnans or not frame[key].is_unique:
        raise ArtefactError(f"{path} needs a column {key!r} of distinct ids", fix="fit anew")
    return frame


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a Parquet file of all that is for display.

    Columns of raw bytes, such as embedded pictures, are left out: they are data. A column of no
    one type that Parquet knows, such as numbers among texts or beyond 64 bits, is written as text.
    """
    kept = {}
    for name, column in frame.items():
        if column.dtype == object and column.map(_is_raw).any():
            continue
        try:
            pa.array(column, from_pandas=True)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError):
            column = column.astype(object).map(_as_text, na_action="ignore")
        kept[str(name)] = column
    pd.DataFrame(kept, index=frame.index).to_parquet(path, index=False)


def _is_raw(cell: object) -> bool:
    """Whether a cell holds a file, by itself or as ``datasets`` keeps one."""
    return isinstance(cell, bytes) or (isinstance(cell, dict) and "bytes" in cell)


def _as_text(cell: object) -> str:
    """Write any cell; half a character, left by careless cutting, becomes a question mark."""
    return str(cell).encode("utf-8", "replace").decode("utf-8")


def pack(matrices: Mapping[str, sp.csr_matrix]) -> dict[str, NDArray[Any]]:
    """Name the arrays of sparse matrices."""
    packed: dict[str, NDArray[Any]] = {}
    for name, matrix in matrices.items():
        for part in ("data", "indices", "indptr"):
            packed[f"{name}.{part}"] = getattr(matrix, part)
        packed[f"{name}.shape"] = np.array(matrix.shape, np.int64)
    return packed


def unpack(arrays: Mapping[str, NDArray[Any]]) -> dict[str, sp.csr_matrix]:
    """Make the sparse matrices that :func:`pack` was given.

    Raises:
        KeyError: An array is missing.
        ValueError: The arrays of a matrix do not fit together.
    """
    matrices = {}
    for name in sorted({key.rpartition(".")[0] for key in arrays}):
        parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
        matrices[name] = sp.csr_matrix(parts, shape=tuple(arrays[f"{name}.shape"].tolist()))
        matrices[name].check_format()  # indices out of range would read foreign memory
    return matrices


def refuse_code(folder: Path, own: Collection[str]) -> None:
    """Refuse a folder with files that run code when they are loaded, by name or by first bytes.

    Nothing here would load them; but somebody's other tools may.

    Args:
        folder: The artefact.
        own: Names of its own files, each of which has a format that holds data only.

    Raises:
        ArtefactError: There is one.
    """
    for file in sorted(folder.rglob("*")):
        named = file.suffix.lower() in RUNS_CODE
        if named or (file.is_file() and file.name not in own and _starts_as_code(file)):
            raise ArtefactError(
                "an artefact must not hold files that can run code when loaded",
                got=str(file.relative_to(folder)),
                fix="remove the file if you put it there, or do not trust this artefact",
            )


def _starts_as_code(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(8).startswith(MAGIC)
    except OSError:
        return False  # nobody can load it either


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise ArtefactError(
            f"{path.name} is missing",
            got=str(path.parent),
            fix="this is no whole artefact: fit anew",
        )


def _damaged(path: Path, error: Exception) -> ArtefactError:
    return ArtefactError(f"{path} is damaged", got=str(error), fix="fit anew")
