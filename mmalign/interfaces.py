"""Names and shapes that every part of mmalign agrees on.

Shape legend used in all docstrings:

====  =======================================================
U     users, in the row order of ``Catalog.user_ids``
I     items, in the row order of ``Catalog.item_ids``
B     users of one batch or block
C     candidate items of one ranking
D     dimensions of a feature or an embedding
E     edges (interactions)
K     length of a recommendation list, or neighbours of an item
====  =======================================================

A *warm* item has at least one train interaction; a *cold* item has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
EVENT = "event"
WEIGHT = "weight"
RATING = "rating"
SPLIT = "split"
SPLITS = ("train", "valid", "test")
SLICES = ("warm", "cold", "all")

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Media = str | bytes | Path
"""What an encoder takes for one item: a text, the bytes of a file, or the path of a file."""


@dataclass(frozen=True)
class Feature:
    """One modality of all items.

    Shapes:
        values: ``[I, D]`` float32; rows of absent items are zero and must never be read as content.
        present: ``[I]`` bool.
    """

    values: FloatArray
    present: BoolArray

    def rows(self, index: NDArray[np.generic]) -> Feature:
        """Select items by row numbers or by a boolean mask."""
        return Feature(self.values[index], self.present[index])


Features = Mapping[str, Feature]
"""Modality to its feature.

A modality is ``text`` (all text columns joined), ``text.<column>`` (one alone), ``image``, or the
name of an attribute.
"""


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of a batch.

    Shapes:
        values: ``[B, D]`` float32, zero where the item failed.
        present: ``[B]`` bool.

    Attributes:
        problems: Position in the batch to a one-line reason, for every item that failed.
        notes: Counts worth reporting that are no failures, such as ``{"truncated": 3}``.
    """

    values: FloatArray
    present: BoolArray
    problems: dict[int, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Encoder(Protocol):
    """A frozen content encoder: same input, same output, whatever else is in the batch."""

    @property
    def modality(self) -> str:
        """``text`` or ``image``."""
        ...

    @property
    def dim(self) -> int:
        """Length of one feature row."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that decides the output: weights, preprocessing, code version."""
        ...

    @property
    def batch_size(self) -> int:
        """Items per forward pass."""
        ...

    def encode(self, values: Sequence[Media]) -> Encoded:
        """Encode any number of items, in batches of ``batch_size``; a broken item fails alone."""
        ...


@dataclass(frozen=True)
class TowerBatch:
    """Items as a tower takes them.

    Attributes:
        inputs: A tensor or a dict of tensors, one row per item that could be read.
        kept: Positions of those items among all that were given, ascending.
        problems: Position to a one-line reason, for every other item.
    """

    inputs: Any
    kept: list[int]
    problems: dict[int, str] = field(default_factory=dict)


class Tower(Protocol):
    """A content encoder in training: a torch module that reads the raw content of items."""

    @property
    def modality(self) -> str:
        """``text`` or ``image``."""
        ...

    @property
    def dim(self) -> int:
        """Length of one row."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the encoder that it started from."""
        ...

    def collate(self, values: Sequence[Media], *, training: bool) -> TowerBatch:
        """Tokenize or decode on the CPU, with augmentation in training."""
        ...

    def __call__(self, inputs: Any) -> Tensor:
        """Encode ``TowerBatch.inputs`` with gradients: ``[B, D]``, not scaled to unit length."""
        ...

    def lower(self, inputs: Tensor) -> Tensor:
        """What the first trained block is given, where views of pictures are asked for."""
        ...

    @property
    def starts_anew(self) -> bool:
        """Whether it was given a new projection that is linear."""
        ...

    def below_projection(self, inputs: Any) -> Tensor:
        """Encode as far as the new projection, if there is one: ``[B, D']``."""
        ...

    def start_at(self, weight: Tensor) -> None:
        """Set the first directions of the new projection: ``[D, D']``."""
        ...

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """``trunk`` and ``projection`` to the parameters that are trained, maybe none."""
        ...

    def save_pretrained(self, folder: Path, *, merge: bool = True) -> None:
        """Write a folder that its library and mmalign load; adapters merged or alone."""
        ...


@runtime_checkable
class Recommends(Protocol):
    """Anything that ranks items for a history: every model and the saved recommender."""

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Score candidate items for users that are known by their history alone.

        Shapes:
            history: ``[B, I]`` sparse, interaction weights.
            items: ``[C]`` item rows.
            returns: ``[B, C]`` float32, higher is better, no NaN.
        """
        ...
