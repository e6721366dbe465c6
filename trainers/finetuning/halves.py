"""What passes between batches, objectives and the module that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from mmalign.interfaces import IntArray

__all__ = ["Half", "Objective", "Scale"]


@dataclass(frozen=True)
class Half:
    """What an objective puts together, or one side of it, as a tower takes it.

    Attributes:
        modality: Of the tower.
        chunks: Inputs of the tower, some items each.
        sizes: Items of each chunk.
        problems: Item id to the reason why it could not be read.

    Shapes:
        positions: ``[N]``, places in the batch of the items that could be read.
        rows: ``[N]``, their rows in the catalogue.
        keys: ``[N]``, equal for equal content.
    """

    modality: str
    chunks: list[Any]
    sizes: list[int]
    positions: IntArray
    rows: IntArray
    keys: IntArray
    problems: dict[str, str] = field(default_factory=dict)


class Scale(Protocol):
    """How cosines become logits; the Lightning module holds it."""

    @property
    def bias(self) -> Tensor:
        """Added to logits."""
        ...

    @property
    def temperature(self) -> Any:
        """Gives the temperature."""
        ...


class Objective(Protocol):
    """One term of the loss."""

    name: str
    weight: float
    size: int
    """Items or pairs that make an epoch."""

    @property
    def halves(self) -> tuple[str, ...]:
        """What each half reads: ``text``, ``image`` or ``text.<column>``."""
        ...

    def draw(self, epoch: int, count: int) -> IntArray:
        """Draw item rows ``[P, halves]``, by the seed and the epoch alone."""
        ...

    def loss(self, scale: Scale, encoded: Sequence[Tensor], halves: Sequence[Half]) -> Tensor:
        """Compare rows ``[N, D]`` of what could be read of each half."""
        ...
