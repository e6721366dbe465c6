"""What the feature cache keeps of one encoder: found by content, filled with what is missing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.errors import DataError
from mmalign.features.shards import (
    SUFFIX,
    TEMPORARY_SUFFIX,
    ShardError,
    read_keys,
    read_values,
    write_shard,
)
from mmalign.interfaces import Encoder, Feature, FloatArray, Media

__all__ = ["CacheRun", "Lookup", "Shelf"]

_CHUNK_BATCHES = 4  # batches per call of the encoder: how often progress moves
_SHARD_SECONDS = 30.0
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a run that was killed
_HASHED_TOGETHER = 64

Advance = Callable[[int], None]


@dataclass(frozen=True)
class CacheRun:
    """The feature of all items, and what had to be done for it.

    Attributes:
        feature: ``[I, D]``, in the order of the items.
        encoded: Items encoded in this run.
        cached: Items found in the cache.
        absent: Items without content.
        problems: Item row to the reason why its content is unusable.
        notes: Sums of the encoder's notes over what was encoded in this run.
        notices: What was wrong with the cache itself, one line each.
    """

    feature: Feature
    encoded: int
    cached: int
    absent: int
    problems: dict[int, str]
    notes: dict[str, int]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lookup:
    """Contents by their keys.

    Attributes:
        keys: ``[I]`` digest of each content; None where there is none to hash.
        missing: Key to content, for what was not on the shelf.
        unreadable: Item row to the reason why its content cannot be read.
        absent: Items without content.
    """

    keys: list[bytes | None]
    missing: dict[bytes, Media]
    unreadable: dict[int, str]
    absent: int


class Shelf:
    """The rows of one encoder, in shards that are read and written whole.

    Args:
        folder: Of the shards; made when needed.
        encoder: Makes what is missing. One that loads lazily is not loaded as long as nothing is.
        shard_rows: Rows per shard; a slow encoder writes a shard every 30 seconds anyway.

    Attributes:
        notices: What was wrong with the shards found there, one line each.

    Raises:
        DataError: The folder cannot be written.
    """

    def __init__(self, folder: Path, encoder: Encoder, shard_rows: int) -> None:
        self.folder, self.encoder, self.shard_rows = folder, encoder, shard_rows
        self._places: dict[bytes, tuple[Path, int]] = {}  # key to its shard and its row there
        self._dim: int | None = None  # length of the rows found
        _prepare(folder)
        self.notices = self._open_shards()

    def look_up(
        self, contents: Sequence[Media | None], on_advance: Advance | None = None
    ) -> Lookup:
        """Hash the contents and find out which of them were never encoded.

        Args:
            contents: Per item a text, the bytes or the path of a file, or None.
            on_advance: Called with the number of contents hashed since the last call.
        """
        keys, unreadable = _content_keys(contents, on_advance)
        missing: dict[bytes, Media] = {}
        for key, content in zip(keys, contents, strict=True):
            if key is not None and content is not None and key not in self._places:
                missing.setdefault(key, content)
        return Lookup(keys, missing, unreadable, sum(content is None for content in contents))

    def check_encoder(self) -> None:
        """Load an encoder that loads lazily; call it before long work that will need it.

        Raises:
            EncoderError: It cannot be loaded.
            DataError: The rows on the shelf have another length than those it gives.
        """
        if self._dim not in (None, self.encoder.dim):
            raise DataError(
                f"cached rows of this encoder must have length {self.encoder.dim}",
                got=f"{self._dim} in {self.folder}",
                fix="delete this folder",
            )

    def fill(self, lookup: Lookup, on_advance: Advance | None = None) -> CacheRun:
        """Encode what is missing and return the feature of all items.

        Args:
            lookup: From :meth:`look_up`.
            on_advance: Called with the number of contents encoded since the last call.

        Raises:
            DataError: The folder cannot be written, or a shard went away in the meantime.
        """
        # An earlier call may have put a content here that another modality shares.
        missing = {key: x for key, x in lookup.missing.items() if key not in self._places}
        failed, notes = self._encode(missing, on_advance) if missing else ({}, {})
        keys = lookup.keys
        problems = lookup.unreadable | {i: failed[k] for i, k in enumerate(keys) if k in failed}
        encoded = sum(key in missing for key in keys if key not in failed)
        return CacheRun(
            feature=self._collect(keys),
            encoded=encoded,
            cached=len(keys) - encoded - lookup.absent - len(problems),
            absent=lookup.absent,
            problems=dict(sorted(problems.items())),
            notes=notes,
        )

    def _open_shards(self) -> tuple[str, ...]:
        """Index the sound shards; a damaged one is dropped, and its content encoded again.

        One that cannot be read now is left alone: another user or process may have written it.
        """
        notices = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                keys, dim = read_keys(path)
                if self._dim not in (None, dim):
                    raise ShardError(f"rows of length {dim}, others have {self._dim}")
            except ShardError as why:
                path.unlink(missing_ok=True)
                notices.append(
                    f"dropped a damaged cache shard, encoding again: {path.name} ({why})"
                )
            except FileNotFoundError:  # another process has just dropped it
                continue
            except OSError as error:
                why_not = error.strerror or str(error)
                notices.append(
                    f"cannot read a cache shard, encoding again: {path.name} ({why_not})"
                )
            else:
                self._dim = dim
                for row, key in enumerate(keys):
                    self._places.setdefault(key, (path, row))
        return tuple(notices)

    def _encode(
        self, missing: Mapping[bytes, Media], on_advance: Advance | None
    ) -> tuple[dict[bytes, str], dict[str, int]]:
        """Encode and write shards; return failures and summed notes."""
        self.check_encoder()
        # Texts run from long to short, so that the batches of all chunks hold little padding.
        order = sorted(missing, key=lambda key: -_text_length(missing[key]))
        chunk = max(1, min(self.encoder.batch_size * _CHUNK_BATCHES, self.shard_rows))
        failed: dict[bytes, str] = {}
        notes: dict[str, int] = {}
        done: dict[bytes, FloatArray] = {}
        written = time.monotonic()
        for start in range(0, len(order), chunk):
            keys = order[start : start + chunk]
            encoded = self.encoder.encode([missing[key] for key in keys])
            for row, key in enumerate(keys):
                if encoded.present[row]:
                    done[key] = encoded.values[row]
                else:
                    failed[key] = encoded.problems.get(row, "the encoder gave no reason")
            for name, count in encoded.notes.items():
                notes[name] = notes.get(name, 0) + count
            last = start + chunk >= len(order)
            if last or len(done) >= self.shard_rows or time.monotonic() - written > _SHARD_SECONDS:
                self._flush(done)
                done, written = {}, time.monotonic()
            if on_advance is not None:
                on_advance(len(keys))
        return failed, notes

    def _flush(self, done: Mapping[bytes, FloatArray]) -> None:
        if not done:
            return
        keys = list(done)
        try:
            path = write_shard(self.folder, keys, np.stack([done[key] for key in keys]))
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._places.update({key: (path, row) for row, key in enumerate(keys)})
        self._dim = self.encoder.dim

    def _collect(self, keys: Sequence[bytes | None]) -> Feature:
        dim = self.encoder.dim if self._dim is None else self._dim
        values = np.zeros((len(keys), dim), np.float32)
        present = np.zeros(len(keys), np.bool_)
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for item, key in enumerate(keys):
            if key is not None and key in self._places:
                path, row = self._places[key]
                wanted.setdefault(path, []).append((item, row))
        for path, pairs in wanted.items():  # one shard in memory at a time
            items, rows = np.array(pairs).T
            try:
                values[items] = read_values(path)[rows]
            except OSError as error:
                raise DataError(
                    "a cache shard was there before and cannot be read now",
                    got=str(path),
                    fix="run the same again: what is missing is encoded anew",
                ) from error
            present[items] = True
        return Feature(values, present)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{TEMPORARY_SUFFIX}"):
            with suppress(FileNotFoundError):  # its run has just given it its name
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    leftover.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _content_keys(
    contents: Sequence[Media | None], on_advance: Advance | None
) -> tuple[list[bytes | None], dict[int, str]]:
    """Hash all contents, files in threads; None where there is no content to hash."""
    results: list[bytes | str | None] = []
    parts = [contents[i : i + _HASHED_TOGETHER] for i in range(0, len(contents), _HASHED_TOGETHER)]
    with ThreadPoolExecutor(thread_name_prefix="mmalign-hash") as pool:
        for hashed in pool.map(lambda part: [_content_key(content) for content in part], parts):
            results += hashed
            if on_advance is not None:
                on_advance(len(hashed))
    keys = [result if isinstance(result, bytes) else None for result in results]
    problems = {row: result for row, result in enumerate(results) if isinstance(result, str)}
    return keys, problems


def _content_key(content: Media | None) -> bytes | str | None:
    """The digest of a content, or the reason why it cannot be read."""
    if content is None:
        return None
    if isinstance(content, str):
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    try:
        with open(content, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return f"file not found: {content}"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"


def _text_length(content: Media) -> int:
    return len(content) if isinstance(content, str) else 0


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        "the feature cache cannot be written",
        got=f"{folder}: {error.strerror or error}",
        fix="pass a cache folder that is writable and has room",
    )
