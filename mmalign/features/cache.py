"""The feature cache: encoded content, kept by its own hash and by the encoder's fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmalign.features.shelf import Advance, CacheRun, Shelf
from mmalign.interfaces import Encoder, Media

__all__ = ["CacheRun", "FeatureCache"]

_SHARD_ROWS = 1024


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

    def open(self, encoder: Encoder) -> Shelf:
        """Open what is kept of an encoder, without loading it.

        Raises:
            DataError: The cache folder cannot be written.
        """
        return Shelf(self.folder / encoder.fingerprint, encoder, self.shard_rows)

    def encode(
        self,
        encoder: Encoder,
        contents: Sequence[Media | None],
        *,
        on_advance: Advance | None = None,
    ) -> CacheRun:
        """Return the feature of all items, encoding only content that is new.

        Args:
            encoder: Encodes what is missing.
            contents: Per item a text, the bytes or the path of a file, or None.
            on_advance: Called with the number of contents encoded since the last call.

        Raises:
            DataError: The cache folder cannot be written.
        """
        shelf = self.open(encoder)
        return replace(shelf.fill(shelf.look_up(contents), on_advance), notices=shelf.notices)
