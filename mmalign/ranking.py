"""Top-k selection: the one place where scores become ranked lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import IntArray

__all__ = ["ranked_lists", "top_k"]


def top_k(
    scores: NDArray[np.floating[Any]],
    k: int,
    exclude: sp.csr_matrix | None = None,
) -> tuple[IntArray, NDArray[np.floating[Any]]]:
    """Pick each user's k best candidates, best first; equal scores go to the lower position.

    A score of ``-inf`` says the same as an entry in ``exclude``: never recommend this one. Rows
    with fewer than k allowed candidates end in position -1 and score ``-inf``.

    Args:
        scores: Higher is better. Left as it is.
        k: Length of the lists, at least 1; it may exceed the number of candidates.
        exclude: Candidates that must not be recommended. Every stored entry counts, whatever
            its value.

    Shapes:
        scores: ``[B, C]``
        exclude: ``[B, C]`` sparse
        returns: positions ``[B, K]`` int64 and their scores ``[B, K]``, with K = k always.

    Raises:
        ConfigError: k is less than 1.
        DataError: scores hold NaN or are not a table, or exclude has another shape.

    Example:
        >>> positions, best = top_k(np.array([[0.1, 0.9, 0.9]]), k=2)
        >>> positions.tolist(), best.tolist()
        ([[1, 2]], [[0.9, 0.9]])
    """
    allowed = _allowed_scores(scores, k, exclude)
    num_rows, num_candidates = allowed.shape
    positions = np.full((num_rows, k), -1, dtype=np.int64)
    best = np.full((num_rows, k), -np.inf, dtype=allowed.dtype)
    if num_candidates == 0:
        return positions, best

    # The k-th best value of a row is unique even when its position is not: take all above it, then
    # the lowest positions at it. A partition of positions would settle ties by chance.
    kth = num_candidates - min(k, num_candidates)
    threshold = np.partition(allowed, kth, axis=1)[:, kth]
    rows, columns = np.nonzero(allowed > threshold[:, None])
    free = k - np.bincount(rows, minlength=num_rows)
    free[threshold == -np.inf] = 0
    ties = [
        np.flatnonzero(scored == limit)[:room]
        for scored, limit, room in zip(allowed, threshold, free.tolist(), strict=True)
    ]
    rows = np.concatenate([rows, np.repeat(np.arange(num_rows), [len(tie) for tie in ties])])
    columns = np.concatenate([columns, *ties])

    values = allowed[rows, columns]
    order = np.lexsort((columns, -values, rows))
    rows = rows[order]
    slots = _rank_within(rows, num_rows)
    positions[rows, slots] = columns[order]
    best[rows, slots] = values[order]
    return positions, best


def ranked_lists(
    positions: IntArray,
    scores: NDArray[np.floating[Any]],
    owners: Sequence[object] | NDArray[Any],
    targets: Sequence[object] | NDArray[Any],
    names: tuple[str, str],
) -> pd.DataFrame:
    """Write what :func:`top_k` found as a table, list after list, without the padding.

    Args:
        positions: As ``top_k`` gives them.
        scores: The same.
        owners: Whose list each row is.
        targets: What a position stands for.
        names: Column names of owner and target.

    Shapes:
        positions, scores: ``[B, K]``; owners: ``[B]``; targets: ``[C]``.

    Example:
        >>> found = top_k(np.array([[0.1, 0.9]], np.float32), k=3)
        >>> ranked_lists(*found, ["ann"], ["tea", "mug"], ("user_id", "item_id"))
          user_id item_id  rank  score
        0     ann     mug     1    0.9
        1     ann     tea     2    0.1
    """
    rows, ranks = np.nonzero(positions >= 0)
    owner, target = names
    return pd.DataFrame(
        {
            owner: np.asarray(owners, dtype=object)[rows],
            target: np.asarray(targets, dtype=object)[positions[rows, ranks]],
            "rank": ranks + 1,
            "score": scores[rows, ranks].astype(np.float32),
        }
    )


def _allowed_scores(
    scores: NDArray[np.floating[Any]], k: int, exclude: sp.csr_matrix | None
) -> NDArray[np.floating[Any]]:
    """Check the arguments and copy the scores, with ``-inf`` at excluded candidates."""
    if k < 1:
        raise ConfigError("k must be at least 1", got=k, fix="pass k >= 1")
    allowed = np.array(scores, dtype=np.result_type(scores, np.float32))
    if allowed.ndim != 2:
        raise DataError(
            "scores must be a table of users by candidates", got=allowed.shape, fix="pass [B, C]"
        )
    if np.isnan(allowed.max(initial=-np.inf)):  # one pass: the maximum carries a NaN through
        user, candidate = np.argwhere(np.isnan(allowed))[0].tolist()
        raise DataError(
            f"the score of user row {user}, candidate {candidate} is NaN",
            fix="check that training did not diverge and that the features are finite",
        )
    if exclude is not None:
        if exclude.shape != allowed.shape:
            raise DataError(
                f"exclude must have the shape of the scores, {allowed.shape}",
                got=exclude.shape,
                fix="select the same users and candidates in both",
            )
        rows = np.repeat(np.arange(len(allowed)), np.diff(exclude.indptr))
        allowed[rows, exclude.indices] = -np.inf
    return allowed


def _rank_within(groups: NDArray[np.intp], num_groups: int) -> NDArray[np.intp]:
    """Number the members of each group from 0; ``groups`` is sorted."""
    sizes = np.bincount(groups, minlength=num_groups)
    return np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
