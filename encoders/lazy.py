"""An encoder that is loaded when there is something to encode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmalign.errors import EncoderError
from mmalign.interfaces import Encoded, Encoder, Media

__all__ = ["LazyEncoder"]


class LazyEncoder:
    """Stands for an encoder whose output is likely to be cached already.

    Loading a model costs seconds and memory; the fingerprint, which decides whether the cache
    holds its output, only costs reading its files.

    Args:
        load: Loads the encoder.
        modality: ``text`` or ``image``.
        dim: Length of its rows, from an earlier use.
        fingerprint: Digest of all that decides its output.
        batch_size: Items per forward pass.
    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        *,
        modality: str,
        dim: int,
        fingerprint: str,
        batch_size: int,
    ) -> None:
        self.modality, self.dim = modality, dim
        self.fingerprint, self.batch_size = fingerprint, batch_size
        self._load = load
        self._loaded: Encoder | None = None

    def encode(self, values: Sequence[Media]) -> Encoded:
        """Encode any number of items, after loading the encoder for the first of them.

        Raises:
            EncoderError: It cannot be loaded, or its rows have another length than was said.
        """
        if self._loaded is None:
            self._loaded = self._load()
            if self._loaded.dim != self.dim:
                raise EncoderError(
                    f"the {self.modality} encoder gives rows of length {self._loaded.dim}",
                    fix=f"use the one that gives {self.dim}",
                )
        return self._loaded.encode(values)
