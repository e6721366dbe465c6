"""An encoder that is loaded when there is something to encode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from mmalign.interfaces import Encoded, Encoder, Media

__all__ = ["LazyEncoder"]


class LazyEncoder:
    """Stands for an encoder whose output is likely to be cached already.

    Loading a model costs seconds and memory; the fingerprint, which decides whether the cache
    holds its output, only costs reading its files.

    Args:
        load: Loads the encoder; called at most once.
        modality: ``text`` or ``image``.
        fingerprint: Digest of all that decides its output.
        batch_size: Items per forward pass.

    Example:
        >>> encoder = LazyEncoder(
        ...     lambda: print("loading"), modality="text", fingerprint="f1", batch_size=64
        ... )
        >>> encoder.fingerprint
        'f1'
    """

    def __init__(
        self, load: Callable[[], Encoder], *, modality: str, fingerprint: str, batch_size: int
    ) -> None:
        self.modality, self.fingerprint, self.batch_size = modality, fingerprint, batch_size
        self._load = load

    @property
    def dim(self) -> int:
        """Length of its rows, which only the loaded encoder can tell.

        Raises:
            EncoderError: It cannot be loaded.
        """
        return self._encoder.dim

    def encode(self, values: Sequence[Media]) -> Encoded:
        """Encode any number of items, after loading the encoder for the first of them.

        Raises:
            EncoderError: It cannot be loaded.
        """
        return self._encoder.encode(values)

    @cached_property
    def _encoder(self) -> Encoder:
        return self._load()
