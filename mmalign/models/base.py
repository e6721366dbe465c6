"""What every model is: fitted on train rows and content, ranks by history, takes new items in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import BoolArray, Features, FloatArray, IntArray

__all__ = ["Arrays", "C", "Model", "TrainData", "check_features", "check_revealed", "part"]

Arrays = dict[str, NDArray[Any]]
C = TypeVar("C")


@dataclass(frozen=True)
class TrainData:
    """All that a model may learn from.

    Shapes:
        matrix: ``[U, I]`` sparse train interactions; no row of valid or test is in it.
        features: Modality to ``[I, D]``, cold items included: a model may encode them but must
            draw no statistic from them.
        neighbours: Modality to given neighbour graph ``[I, I]``, row i lists whom item i is like.
        times: ``[U, I]`` sparse, when the pairs of ``matrix`` were last seen, in seconds; pairs
            without a time are left out, and None is a log without times.

    Raises:
        DataError: There is no interaction, or a feature or a graph does not fit the items,
            or the times do not fit the interactions.
    """

    matrix: sp.csr_matrix
    features: Features
    neighbours: Mapping[str, sp.csr_matrix] = field(default_factory=dict)
    times: sp.csr_matrix | None = None

    def __post_init__(self) -> None:
        if self.matrix.nnz == 0:
            raise DataError(
                "there is no train interaction to learn from",
                fix="check data.positive and the split column",
            )
        count = self.matrix.shape[1]
        check_features(self.features, count)
        for name, graph in self.neighbours.items():
            if graph.shape != (count, count):
                raise DataError(
                    f"the neighbour graph of {name!r} must be square over {count} items",
                    got=graph.shape,
                    fix="build it in the row order of the items",
                )
        if self.times is not None and self.times.shape != self.matrix.shape:
            raise DataError(
                "times must be of the same users and items as the interactions",
                got=f"{self.times.shape} and {self.matrix.shape}",
                fix="build both from one log",
            )

    @cached_property
    def warm(self) -> BoolArray:
        """``[I]``: items with at least one train interaction."""
        return np.asarray(self.matrix.getnnz(axis=0) > 0)


class Model(ABC, Generic[C]):
    """One way to rank; saved and loaded through plain arrays.

    Args:
        config: The model's own frozen dataclass.

    Attributes:
        serves_cold: Whether scores of items without a train row mean anything.
        uses_content: Whether ``fit`` needs features.
        learned: Names of the attributes that :meth:`arrays` stores.
        warm: ``[I]``, items with a train row; grows with ``add_items``.
        heard: Rows of cold items that :meth:`reveal` told of.
    """

    serves_cold: ClassVar[bool] = False
    uses_content: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ("warm",)
    warm: BoolArray

    def __init__(self, config: C) -> None:
        self.config = config
        self.heard: IntArray = np.zeros(0, dtype=np.int64)

    @classmethod
    def can_fit(cls, *, features: bool, neighbours: bool) -> bool:
        """Say whether data with or without features and given neighbour lists will do."""
        return features or not cls.uses_content

    @abstractmethod
    def fit(self, data: TrainData) -> Self:
        """Learn from train rows and content; may be called again from scratch."""

    @abstractmethod
    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Score candidates for histories, see :class:`mmalign.interfaces.Recommends`."""

    def components(self, history: sp.csr_matrix) -> dict[str, FloatArray]:
        """Scores of all items, ``[B, I]``, one matrix per part that calibration may weigh."""
        return {"score": self.score(history, np.arange(len(self.warm)))}

    @abstractmethod
    def item_vectors(self) -> FloatArray:
        """``[I, D]`` vectors whose cosine says how alike two items are to this model."""

    def add_items(self, features: Features, count: int) -> None:
        """Append items known by content alone; nothing is trained.

        Args:
            features: Modality to ``[count, D]``; a modality that is not named is absent for all.
            count: How many.

        Raises:
            DataError: A feature does not fit, or there is none for a model that lives by content;
                the model stays as it was.
        """
        check_features(features, count)
        if self.uses_content and not features:
            raise DataError("new items have no content at all", fix="pass at least one modality")
        before = self.warm
        self.warm = np.concatenate([before, np.zeros(count, dtype=bool)])
        try:
            self._append(features, count)
        except DataError:
            self.warm = before
            raise

    def reveal(self, history: sp.csr_matrix, revealed: sp.csr_matrix) -> None:
        """Let cold items hear the first users who took them; nothing is trained.

        Warm items, and cold ones of which nothing is revealed, stay as they are. An item moves from
        where its content placed it, so tell it once, on a freshly loaded model, all that is known.

        Args:
            history: What the users took in train.
            revealed: What they took of cold items; the users in the same order.

        Shapes:
            history: ``[U, I]``; revealed: ``[U, I]``, not negative.

        Raises:
            ConfigError: The model learns of a cold item by a refit only.
            DataError: A shape does not fit, or an interaction is of a warm item; the model stays
                as it was.
        """
        check_revealed(history, revealed, self.warm)
        taken = sp.csr_matrix(revealed.T, dtype=np.float32)
        items = np.flatnonzero(np.asarray(taken.sum(axis=1)))
        self._hear(history, items, taken[items])
        self.heard = np.union1d(self.heard, items)

    def arrays(self) -> Arrays:
        """All that was learned, as named arrays."""
        return {name: getattr(self, name) for name in self.learned}

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        for name in self.learned:
            setattr(self, name, arrays[name])
        return self

    def _append(self, features: Features, count: int) -> None:
        """Give ``count`` new items their place; ``warm`` has grown already."""

    def _hear(self, history: sp.csr_matrix, items: IntArray, taken: sp.csr_matrix) -> None:
        """Move cold items ``[N]`` by the weights ``[N, U]`` with which users took them."""
        raise ConfigError(
            f"{type(self).__name__} learns of a cold item by a refit only",
            fix="fit again, or use aligned, collective or another model of item weights",
        )


def check_revealed(history: sp.csr_matrix, revealed: sp.csr_matrix, warm: BoolArray) -> None:
    """Check that interactions are revealed of cold items alone.

    Raises:
        DataError: They are not, one is negative or no number, or a shape does not fit.
    """
    if revealed.shape != history.shape or history.shape[1] != len(warm):
        raise DataError(
            f"history and revealed must have a column for each of {len(warm)} items",
            got=(history.shape, revealed.shape),
            fix="pass two matrices [U, I] of the same users",
        )
    if not (revealed.data >= 0).all() or np.isinf(revealed.data).any():
        raise DataError("revealed weights must be finite and not negative", fix="mend the weights")
    known = np.flatnonzero(warm & (revealed.getnnz(axis=0) > 0))
    if len(known):
        raise DataError(
            f"{len(known)} items with revealed interactions are warm",
            got=f"item row {known[0]}",
            fix="reveal interactions of cold items; warm ones need a refit",
        )


def check_features(features: Features, count: int) -> None:
    """Check that every modality has a finite row for each of ``count`` items.

    Raises:
        DataError: The first modality that has not.
    """
    for name, feature in features.items():
        values, present = feature.values, feature.present
        if values.ndim != 2 or len(values) != count or present.shape != (count,):
            raise DataError(
                f"feature {name!r} must have a row for each of {count} items",
                got=(values.shape, present.shape),
                fix="pass values [I, D] and present [I] in the row order of the items",
            )
        if present.dtype != np.bool_:
            raise DataError(
                f"present of feature {name!r} must be bool", got=present.dtype, fix="cast it"
            )
        broken = present & ~np.isfinite(values).all(axis=1)
        if broken.any():
            raise DataError(
                f"feature {name!r} of a present item is NaN or infinite",
                got=f"item row {np.flatnonzero(broken)[0]}",
                fix="mark the item as absent or encode it again",
            )


def part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Arrays:
    """Select the arrays under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
