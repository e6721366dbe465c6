"""Why an item stands where it does: its nearest warm items, and what each modality says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.interfaces import BoolArray, Features
from mmalign.models import Model
from mmalign.models.kernel import ContentKernel

__all__ = ["Explanation", "Neighbour", "explain"]


@dataclass(frozen=True)
class Neighbour:
    """A warm item that an item resembles.

    Attributes:
        item_id: The warm item.
        similarity: Sum of the shares' raw values; higher is more alike.
        shares: Modality to its part of the resemblance, in [0, 1], summing to 1.
    """

    item_id: str
    similarity: float
    shares: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """What an item is placed by.

    Attributes:
        item_id: The item.
        neighbours: Nearest warm items, best first.
        shares: Modality to its mean share over the neighbours; all zero without neighbours.
    """

    item_id: str
    neighbours: tuple[Neighbour, ...]
    shares: dict[str, float]


def explain(
    model: Model[Any],
    features: Features,
    item_ids: NDArray[np.object_],
    row: int,
    among: BoolArray,
    k: int,
) -> Explanation:
    """Find the ``k`` items nearest to one by the model's own similarity of content.

    A model without a content kernel is explained by its item vectors, as ``behaviour``. Items that
    are not alike at all, or less alike than average, are not named, so there may be fewer.

    Args:
        model: Fitted.
        features: Content of all items.
        item_ids: ``[I]``.
        row: The item.
        among: ``[I]``, who may be named; the item itself never is.
        k: How many to name.
    """
    others = np.flatnonzero(among & (np.arange(len(item_ids)) != row))
    parts = _similarities(model, features, row, others)
    total = np.sum(list(parts.values()), axis=0)
    nearest = [i for i in np.argsort(-total, kind="stable")[:k] if total[i] > 0]
    neighbours = tuple(
        Neighbour(
            str(item_ids[others[i]]),
            float(total[i]),
            _shares({name: float(values[i]) for name, values in parts.items()}),
        )
        for i in nearest
    )
    means = {
        name: float(np.mean([n.shares[name] for n in neighbours])) if neighbours else 0.0
        for name in parts
    }
    return Explanation(str(item_ids[row]), neighbours, means)


def _similarities(
    model: Model[Any], features: Features, row: int, others: NDArray[np.int64]
) -> dict[str, NDArray[np.floating[Any]]]:
    kernel: ContentKernel | None = getattr(model, "kernel", None)
    if kernel is None or not features:
        vectors = model.item_vectors()
        norms = np.linalg.norm(vectors, axis=1)
        cosine = vectors[others] @ vectors[row] / np.maximum(norms[others] * norms[row], 1e-12)
        return {"behaviour": cosine}
    left = {name: x.rows(np.array([row])) for name, x in features.items()}
    right = {name: x.rows(others) for name, x in features.items()}
    return {name: values[0] for name, values in kernel.similarities(left, right).items()}


def _shares(raw: dict[str, float]) -> dict[str, float]:
    """Split a positive sum; a modality that speaks against has no share."""
    positive = {name: max(value, 0.0) for name, value in raw.items()}
    total = sum(positive.values())
    return {name: value / total for name, value in positive.items()}
