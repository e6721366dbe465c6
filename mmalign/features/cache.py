"""The feature cache: encoded content, kept by its own hash and by the encoder's fingerprint."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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

__all__ = ["CacheRun", "FeatureCache"]

_CHUNK_BATCHES = 4  # batches per call of the encoder: how often progress moves
_SHARD_ROWS = 1024
_SHARD_SECONDS = 30.0
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a run that was killed

Progress = Callable[[int], None]


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
    notices: tuple[str, ...]


Places = dict[bytes, tuple[Path, int]]
"""Content key to the shard that holds it and its row there."""


class FeatureCache:
    """Keeps encoded content on disk, one folder per encoder fingerprint.

    A row is keyed by the SHA-256 of the text or of the file's bytes, so that renaming or
    reordering items costs nothing, equal content is encoded once, and a changed text or
    picture is encoded anew. Shards are written whole (:mod:`mmalign.features.shards`): a run
    that is killed loses at most the shard it was filling. Content that cannot be encoded is not
    kept: every run tries it again, which is cheap, and reports it again.

    Args:
        folder: Where the cache is; made when needed.
        shard_rows: Rows per shard; a slow encoder writes a shard every 30 seconds anyway.
    """

    def __init__(self, folder: str | Path, *, shard_rows: int = _SHARD_ROWS) -> None:
        self.folder = Path(folder)
        self.shard_rows = shard_rows

    def encode(
        self,
        encoder: Encoder,
        contents: Sequence[Media | None],
        *,
        on_start: Progress | None = None,
        on_advance: Progress | None = None,
    ) -> CacheRun:
        """Return the feature of all items, encoding only content that is new.

        Args:
            encoder: Encodes what is missing.
            contents: Per item a text, the bytes or the path of a file, or None.
            on_start: Called once with the number of contents to encode.
            on_advance: Called with the number of contents encoded since the last call.

        Raises:
            DataError: The cache folder cannot be written.
        """
        folder = self.folder / encoder.fingerprint
        self._prepare(folder)
        places, notices = _open_shards(folder, encoder.dim)
        keys, unreadable = _content_keys(contents)
        missing: dict[bytes, Media] = {}
        for key, content in zip(keys, contents, strict=True):
            if key is not None and content is not None and key not in places:
                missing.setdefault(key, content)
        if on_start is not None:
            on_start(len(missing))
        failed, notes = self._encode_missing(encoder, folder, missing, places, on_advance)
        reasons = unreadable | {i: failed[key] for i, key in enumerate(keys) if key in failed}
        encoded = sum(key in missing for key in keys if key not in failed)
        absent = sum(content is None for content in contents)
        return CacheRun(
            feature=_collect(keys, places, encoder.dim),
            encoded=encoded,
            cached=len(keys) - encoded - absent - len(reasons),
            absent=absent,
            problems=dict(sorted(reasons.items())),
            notes=notes,
            notices=notices,
        )

    def _encode_missing(
        self,
        encoder: Encoder,
        folder: Path,
        missing: Mapping[bytes, Media],
        places: Places,
        on_advance: Progress | None,
    ) -> tuple[dict[bytes, str], dict[str, int]]:
        """Encode, write shards, add them to ``places``; return failures and summed notes."""
        # Texts run from long to short, so that the batches of all chunks hold little padding.
        order = sorted(missing, key=lambda key: -_text_length(missing[key]))
        chunk = max(1, min(encoder.batch_size * _CHUNK_BATCHES, self.shard_rows))
        failed: dict[bytes, str] = {}
        notes: dict[str, int] = {}
        done: dict[bytes, FloatArray] = {}
        written = time.monotonic()
        for start in range(0, len(order), chunk):
            keys = order[start : start + chunk]
            encoded = encoder.encode([missing[key] for key in keys])
            for row, key in enumerate(keys):
                if encoded.present[row]:
                    done[key] = encoded.values[row]
                else:
                    failed[key] = encoded.problems.get(row, "the encoder gave no reason")
            for name, count in encoded.notes.items():
                notes[name] = notes.get(name, 0) + count
            last = start + chunk >= len(order)
            if last or len(done) >= self.shard_rows or time.monotonic() - written > _SHARD_SECONDS:
                _flush(folder, done, places)
                done, written = {}, time.monotonic()
            if on_advance is not None:
                on_advance(len(keys))
        return failed, notes

    def _prepare(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(f"*{TEMPORARY_SUFFIX}"):
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    leftover.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error


def _open_shards(folder: Path, dim: int) -> tuple[Places, tuple[str, ...]]:
    """Index the sound shards; a damaged one is dropped, and its content encoded again."""
    places: Places = {}
    notices = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            for row, key in enumerate(read_keys(path, dim)):
                places.setdefault(key, (path, row))
        except ShardError as reason:
            path.unlink(missing_ok=True)
            notices.append(f"dropped a damaged cache shard, encoding again: {path.name} ({reason})")
    return places, tuple(notices)


def _flush(folder: Path, done: Mapping[bytes, FloatArray], places: Places) -> None:
    if not done:
        return
    keys = list(done)
    try:
        path = write_shard(folder, keys, np.stack([done[key] for key in keys]))
    except OSError as error:
        raise _unwritable(folder, error) from error
    places.update({key: (path, row) for row, key in enumerate(keys)})


def _content_keys(
    contents: Sequence[Media | None],
) -> tuple[list[bytes | None], dict[int, str]]:
    """Hash all contents, files in threads; None where there is no content to hash."""
    with ThreadPoolExecutor(thread_name_prefix="mmalign-hash") as pool:
        results = list(pool.map(_content_key, contents, chunksize=64))
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


def _collect(keys: Sequence[bytes | None], places: Places, dim: int) -> Feature:
    values = np.zeros((len(keys), dim), np.float32)
    present = np.zeros(len(keys), np.bool_)
    wanted: dict[Path, list[tuple[int, int]]] = {}
    for item, key in enumerate(keys):
        if key is not None and key in places:
            path, row = places[key]
            wanted.setdefault(path, []).append((item, row))
    for path, pairs in wanted.items():  # one shard in memory at a time
        items, rows = np.array(pairs).T
        values[items] = read_values(path)[rows]
        present[items] = True
    return Feature(values, present)


def _text_length(content: Media) -> int:
    return len(content) if isinstance(content, str) else 0


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        "the feature cache cannot be written",
        got=f"{folder}: {error.strerror or error}",
        fix="pass a cache folder that is writable and has room",
    )
