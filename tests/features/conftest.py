"""Encoders that are worked out by hand, to test what is kept and what is encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmalign.interfaces import Encoded, Media


class HashEncoder:
    """Rows made from the content itself: equal content gives equal rows, and no two are alike.

    Content that starts with ``broken`` fails. ``calls`` records what was asked for.
    """

    batch_size = 2
    dim = 4

    def __init__(self, modality: str = "text", fingerprint: str = "f1") -> None:
        self.modality = modality
        self.fingerprint = fingerprint
        self.calls: list[list[Media]] = []

    @property
    def encoded(self) -> list[Media]:
        return [value for call in self.calls for value in call]

    def encode(self, values: Sequence[Media]) -> Encoded:
        self.calls.append(list(values))
        rows = np.zeros((len(values), self.dim), np.float32)
        problems = {}
        for i, value in enumerate(values):
            data = value.encode() if isinstance(value, str) else content_of(value)
            if data.startswith(b"broken"):
                problems[i] = "cannot be decoded"
            else:
                digest = hashlib.sha256(self.fingerprint.encode() + data).digest()
                rows[i] = np.frombuffer(digest[:4], np.uint8)
        present = np.array([i not in problems for i in range(len(values))], np.bool_)
        return Encoded(rows, present, problems, {"truncated": len(values)})


def content_of(value: Media) -> bytes:
    return value if isinstance(value, bytes) else Path(value).read_bytes()


@pytest.fixture
def hash_encoder() -> type[HashEncoder]:
    return HashEncoder
