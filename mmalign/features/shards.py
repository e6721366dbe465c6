"""One shard of the feature cache: a safetensors file that is written whole or not at all.

A shard holds ``keys`` (``[N, 32]`` uint8, the SHA-256 of each item's content) and ``values``
(``[N, D]`` float32), with a checksum of both in its header. safetensors maps the file into memory
when reading.
"""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmalign.interfaces import FloatArray

__all__ = ["SUFFIX", "TEMPORARY_SUFFIX", "ShardError", "read_keys", "read_values", "write_shard"]

KEY_BYTES = 32
SUFFIX = ".safetensors"
TEMPORARY_SUFFIX = ".tmp"


class ShardError(Exception):
    """A shard is cut short, altered, or none at all; the text is for the report."""


def write_shard(folder: Path, keys: Sequence[bytes], values: FloatArray) -> Path:
    """Write a shard under a name of its own, so that any number of runs may share a folder.

    The file appears by a rename after its bytes have reached the disk: a kill or a power cut
    leaves either the whole shard or none.

    Shapes:
        keys: ``N`` digests.
        values: ``[N, D]``.

    Raises:
        OSError: The folder cannot be written.
    """
    tensors: dict[str, NDArray[Any]] = {
        "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES),
        "values": np.ascontiguousarray(values, np.float32),
    }
    path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
    temporary = path.with_suffix(TEMPORARY_SUFFIX)
    try:
        with open(temporary, "xb") as file:
            file.write(save(tensors, {"checksum": _checksum(tensors)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(folder)
    return path


def read_keys(path: Path) -> tuple[list[bytes], int]:
    """Verify a whole shard and return its keys; the values stay on disk.

    Returns:
        ``N`` keys, and the length ``D`` of the rows they stand for.

    Raises:
        ShardError: The file is damaged.
        OSError: The system does not let it be read, which says nothing of what is in it.
    """
    with open(path, "rb"):  # safetensors takes whatever the system refuses for an absent file
        pass
    try:
        with safe_open(path, "numpy") as file:
            checksum = (file.metadata() or {}).get("checksum")
            tensors = {name: file.get_tensor(name) for name in ("keys", "values")}
    except SafetensorError as error:
        raise ShardError(" ".join(str(error).split())[:120]) from None
    if checksum != _checksum(tensors):
        raise ShardError("checksum differs")
    keys, values = tensors["keys"], tensors["values"]
    if keys.shape != (len(keys), KEY_BYTES) or values.ndim != 2 or len(values) != len(keys):
        raise ShardError(f"shapes {keys.shape} and {values.shape} do not fit")
    data = keys.tobytes()
    return [data[i : i + KEY_BYTES] for i in range(0, len(data), KEY_BYTES)], values.shape[1]


def read_values(path: Path) -> FloatArray:
    """Read the ``[N, D]`` values of a shard that was verified before."""
    with safe_open(path, "numpy") as file:
        values: FloatArray = file.get_tensor("values")
    return values


def _checksum(tensors: Mapping[str, NDArray[Any]]) -> str:
    value = 0
    for name in ("keys", "values"):
        value = zlib.crc32(np.ascontiguousarray(tensors[name]).data, value)
    return f"{value:08x}"


def _sync_folder(folder: Path) -> None:
    """Make a rename last; not every system can open a folder, and those need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
