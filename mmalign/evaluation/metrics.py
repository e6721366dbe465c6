"""Ranking metrics as pure maths: arrays in, numbers out, nothing about catalogues or models.

Accuracy metrics take the *hits* of ranked lists, ``[B, K]`` bool (does the item in this slot
belong to the user's truth), and the number of truths per user, ``[B]``. They return one value per
user so that means, intervals and paired tests can be taken later; a user without truths gets NaN,
since there is nothing to find.

Beyond-accuracy metrics take *recommendation counts*, ``[C]``: in how many lists each candidate is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import BoolArray, IntArray

__all__ = [
    "BUCKETS",
    "coverage",
    "gini",
    "ndcg_at_k",
    "novelty",
    "popularity_buckets",
    "recall_at_k",
    "recall_by_bucket",
    "recommendation_counts",
]

BUCKETS = ("head", "mid", "tail", "cold")
"""Names of the popularity buckets, in the order of their codes."""

PerUser = NDArray[np.float64]
Counts = NDArray[np.integer[Any]]


def recall_at_k(hits: BoolArray, truths: Counts, k: int) -> PerUser:
    """Share of a user's truths that stand in the first k slots.

    Args:
        hits: Whether each slot holds a truth. Lists shorter than k are taken as they are.
        truths: Number of truths of each user, found or not.
        k: Cut-off, at least 1.

    Shapes:
        hits: ``[B, K]``
        truths: ``[B]``
        returns: ``[B]`` float64 in [0, 1], NaN where a user has no truth.

    Raises:
        ConfigError: k is less than 1.
        DataError: The shapes do not fit, or a user has more hits than truths.

    Example:
        >>> recall_at_k(np.array([[True, False, True]]), np.array([4]), k=2)
        array([0.25])
    """
    _check(hits, truths, k)
    return _ratio(hits[:, :k].sum(axis=1), truths)


def ndcg_at_k(hits: BoolArray, truths: Counts, k: int) -> PerUser:
    r"""Normalised discounted cumulative gain with binary relevance.

    .. math::
        \sum_{i \le k} \frac{hit_i}{\log_2(i + 1)} \Big/
        \sum_{i \le \min(k, truths)} \frac{1}{\log_2(i + 1)}

    The ideal list is cut at min(k, number of truths), so the best possible list scores 1 whatever
    the number of truths (Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR
    techniques, 2002).

    Args:
        hits: Whether each slot holds a truth. Lists shorter than k are taken as they are.
        truths: Number of truths of each user, found or not.
        k: Cut-off, at least 1.

    Shapes:
        hits: ``[B, K]``
        truths: ``[B]``
        returns: ``[B]`` float64 in [0, 1], NaN where a user has no truth.

    Raises:
        ConfigError: k is less than 1.
        DataError: The shapes do not fit, or a user has more hits than truths.

    Example:
        >>> ndcg_at_k(np.array([[True, False, False]]), np.array([1]), k=3)
        array([1.])
    """
    _check(hits, truths, k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gains = hits[:, :k] * discounts[: hits.shape[1]]
    # Gain and ideal are summed in the same order, so a perfect list scores exactly 1, never more.
    gain = np.cumsum(gains, axis=1)[:, -1] if gains.shape[1] else np.zeros(len(hits))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(truths, k)]
    return _ratio(gain, ideal)


def recommendation_counts(positions: IntArray, num_candidates: int) -> IntArray:
    """Count in how many lists each candidate stands; padding (position -1) is left out.

    Shapes:
        positions: ``[B, K]``
        returns: ``[C]``

    Example:
        >>> recommendation_counts(np.array([[2, 0], [2, -1]]), num_candidates=4)
        array([1, 0, 2, 0])
    """
    return np.bincount(positions[positions >= 0], minlength=num_candidates)


def coverage(counts: Counts) -> float:
    """Share of the candidates that are recommended to somebody; NaN without candidates.

    Shapes:
        counts: ``[C]`` recommendation counts.

    Example:
        >>> coverage(np.array([5, 0, 1, 0]))
        0.5
    """
    return float(np.mean(counts > 0)) if len(counts) else float("nan")


def gini(counts: Counts) -> float:
    r"""Gini coefficient of the recommendation counts: how unevenly attention is spread.

    With the counts sorted upwards, :math:`G = 2 \sum_i i x_i / (C \sum_i x_i) - (C + 1) / C`.
    0 is the same count for all candidates, (C - 1) / C is everything on one of them; NaN when
    nothing was recommended.

    Shapes:
        counts: ``[C]`` recommendation counts.

    Example:
        >>> gini(np.array([3, 3, 3])), gini(np.array([0, 0, 0, 8]))
        (0.0, 0.75)
    """
    total, n = counts.sum(), len(counts)
    if total == 0:
        return float("nan")
    weighted = np.arange(1, n + 1) @ np.sort(counts)
    return float((2 * weighted - (n + 1) * total) / (n * total))


def novelty(counts: Counts, interactions: Counts) -> float:
    r"""Mean self-information, in bits, of the recommended items.

    An item with n of the N train interactions over I items carries
    :math:`-\log_2 \frac{n + 1}{N + I}` bits. The one that is added to every item keeps items
    without interactions finite, and makes them the most novel of all. After Zhou et al., Solving
    the apparent diversity-accuracy dilemma of recommender systems, 2010 (arXiv:0808.2670).

    Args:
        counts: Recommendation counts.
        interactions: Train interactions of the same items.

    Shapes:
        counts: ``[I]``
        interactions: ``[I]``

    Returns:
        Mean over all recommended slots; NaN when nothing was recommended.

    Raises:
        DataError: The two have different lengths.

    Example:
        >>> novelty(np.array([1, 1, 0]), interactions=np.array([3, 0, 2]))  # (1 + 3) / 2 bits
        2.0
    """
    if counts.shape != interactions.shape:
        raise DataError(
            f"counts and interactions differ in shape, {counts.shape} and {interactions.shape}",
            fix="give both for the same items",
        )
    if counts.sum() == 0:
        return float("nan")
    share = (interactions + 1) / (interactions.sum() + len(interactions))
    return float(counts @ -np.log2(share) / counts.sum())


def popularity_buckets(interactions: Counts) -> IntArray:
    """Sort items into head, mid, tail and cold by their train interactions.

    Going from the most popular item down, the head are the items before which less than a third
    of all interactions lie, mid those before two thirds, tail the rest. Items with equal counts
    share a bucket. Items without interactions are cold.

    Shapes:
        interactions: ``[I]`` train interactions per item.
        returns: ``[I]`` positions in :data:`BUCKETS`.

    Example:
        >>> [BUCKETS[code] for code in popularity_buckets(np.array([0, 6, 2, 3, 1]))]
        ['cold', 'head', 'tail', 'mid', 'tail']
    """
    total = interactions.sum()
    popular, inverse, sizes = np.unique(interactions, return_inverse=True, return_counts=True)
    mass = popular * sizes
    more_popular = total - np.cumsum(mass)  # interactions of items above each distinct count
    codes = np.asarray(3 * more_popular // max(total, 1), dtype=np.int64)
    codes[popular == 0] = BUCKETS.index("cold")
    return codes[inverse]


def recall_by_bucket(hits: BoolArray, buckets: IntArray, truths: Counts, k: int) -> PerUser:
    """Recall@k of the truths of each popularity bucket on its own.

    Args:
        hits: Whether each slot holds a truth.
        buckets: Bucket code of the item in each slot (any value in slots that are no hit).
        truths: Number of truths of each user in each bucket.
        k: Cut-off, at least 1.

    Shapes:
        hits: ``[B, K]``
        buckets: ``[B, K]``
        truths: ``[B, G]``
        returns: ``[B, G]`` float64, NaN where a user has no truth in the bucket.

    Raises:
        ConfigError: k is less than 1.
        DataError: The shapes do not fit, or a user has more hits than truths in a bucket.

    Example:
        >>> recall_by_bucket(
        ...     np.array([[True, True]]), np.array([[0, 2]]), np.array([[1, 0, 2, 0]]), k=2
        ... )
        array([[1. , nan, 0.5, nan]])
    """
    columns = [
        recall_at_k(hits & (buckets == code), truths[:, code], k) for code in range(truths.shape[1])
    ]
    return np.stack(columns, axis=1)


def _check(hits: BoolArray, truths: Counts, k: int) -> None:
    if k < 1:
        raise ConfigError("k must be at least 1", got=k, fix="pass k >= 1")
    if hits.ndim != 2 or truths.shape != hits.shape[:1]:
        raise DataError(
            f"hits must be [B, K] and truths [B], not {hits.shape} and {truths.shape}",
            fix="give one row of hits and one count per user",
        )
    if np.any(hits.sum(axis=1) > truths):
        row = int(np.argmax(hits.sum(axis=1) > truths))
        raise DataError(
            f"user row {row} has more hits than truths",
            got=int(hits[row].sum()),
            fix="count every truth, and list each item at most once",
        )


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> PerUser:
    ratio: PerUser = np.full(len(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
