"""The evaluation protocol: full ranking of warm, cold and all candidates on a frozen split.

What each slice holds is told in :mod:`mmalign.evaluation.slices`. Nothing is sampled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mmalign.errors import ConfigError, DataError
from mmalign.evaluation import metrics
from mmalign.evaluation.result import Bucket, Evaluation, SliceResult
from mmalign.evaluation.slices import Slice, build_slice, earlier_splits
from mmalign.interfaces import SLICES, BoolArray, FloatArray, IntArray, Recommends
from mmalign.progress import advancing
from mmalign.ranking import top_k

if TYPE_CHECKING:
    from mmalign.data.catalog import Catalog

__all__ = [
    "Bucket",
    "Evaluation",
    "Slice",
    "SliceResult",
    "build_slice",
    "evaluate",
    "rank_slice",
]

_MEMORY = 2**30  # bytes that all blocks in flight may take together
_BYTES_PER_SCORE = 16  # scores, their copy, the partition and a mask of top_k, and slack


def evaluate(
    scorer: Recommends,
    catalog: Catalog,
    split: str = "test",
    *,
    ks: Sequence[int] = (10, 20),
    slices: Sequence[str] = SLICES,
    exclude_seen: Sequence[str] = ("train", "valid"),
    block_size: int = 512,
    progress: bool = False,
) -> Evaluation:
    """Rank every candidate for every user of each slice and measure the lists.

    Users are scored in blocks on all cores at once, so ``scorer.score`` is called from several
    threads. Neither the number of cores nor their timing changes the order of the results.

    Args:
        scorer: A model or a recommender. If it has an attribute ``serves_cold`` that is False,
            it has no order of its own for cold items.
        catalog: Its splits give histories, truths and exclusions.
        split: ``test`` or ``valid``.
        ks: Cut-offs of the metrics.
        slices: Any of ``warm``, ``cold``, ``all``.
        exclude_seen: Splits whose rows are taken out of the user's candidates: ``train``,
            ``valid``, both or none. Only splits before the evaluated one are, so on valid the
            default means train.
        block_size: Most users scored at a time; fewer when the candidates are so many that the
            blocks in flight would take more than about 1 GiB.
        progress: Whether to draw a bar on standard error.

    Returns:
        Per slice: means over its users of ``recall@k`` and ``ndcg@k``; ``coverage@k``, ``gini@k``
        and ``novelty@k`` of the lists as a whole (see :mod:`mmalign.evaluation.metrics`). A slice
        without users or candidates has counts of 0 and metrics of NaN. The cold slice of a scorer
        that does not serve cold items has NaN too: it would measure the catalogue's order.

    Raises:
        ConfigError: An unknown split or slice, or a number that is not positive.
        DataError: The scorer returns another shape than asked for, or NaN.
    """
    if len(ks) == 0 or min(ks) < 1:
        raise ConfigError("every cut-off must be at least 1", got=tuple(ks), fix="pass ks=(10, 20)")
    interactions = catalog.matrix("train").getnnz(axis=0).astype(np.int64)
    cutoffs = tuple(sorted(set(ks)))
    results = {}
    for name in slices:
        part = build_slice(catalog, split, name, exclude_seen)
        if name == "cold" and not getattr(scorer, "serves_cold", True):
            nothing = np.full((len(part.users), cutoffs[-1]), -1, dtype=np.int64)
            results[name] = _unmeasured(_measure(part, nothing, cutoffs, interactions))
            continue
        with advancing(f"ranking {name}", len(part.users), progress) as advance:
            positions, _ = rank_slice(
                scorer, part, cutoffs[-1], block_size=block_size, advance=advance
            )
        results[name] = _measure(part, positions, cutoffs, interactions)
    return Evaluation(split, cutoffs, earlier_splits(split, exclude_seen), results)


def rank_slice(
    scorer: Recommends,
    part: Slice,
    k: int,
    *,
    block_size: int = 512,
    advance: Callable[[int], None] | None = None,
) -> tuple[IntArray, FloatArray]:
    """Rank the candidates of a slice for its users, block by block on all cores.

    Args:
        scorer: As for :func:`evaluate`.
        part: Users, candidates and exclusions.
        k: Length of the lists.
        block_size: Most users scored at a time.
        advance: Told of the number of users whenever a block is done.

    Returns:
        Positions in ``part.candidates`` ``[B, K]`` and scores ``[B, K]``, padded as in
        :func:`mmalign.ranking.top_k`.

    Raises:
        ConfigError: k or block_size is less than 1.
        DataError: The scorer returns another shape than asked for, or NaN.
    """
    if block_size < 1:
        raise ConfigError("block_size must be at least 1", got=block_size, fix="pass 512")
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    affordable = _MEMORY // (cores * _BYTES_PER_SCORE * max(len(part.candidates), 1))
    size = max(1, min(block_size, affordable))

    def rank(start: int) -> tuple[IntArray, FloatArray]:
        block = slice(start, start + size)
        history = part.history[block]
        scores = np.asarray(scorer.score(history, part.candidates))
        if scores.shape != (history.shape[0], len(part.candidates)):
            raise DataError(
                f"{type(scorer).__name__}.score must return one row per user and one column per "
                f"candidate, {(history.shape[0], len(part.candidates))}",
                got=scores.shape,
                fix="mend the model's score method",
            )
        found = top_k(scores, k, part.exclude[block])
        if advance is not None:
            advance(len(scores))
        return found

    none = top_k(np.empty((0, len(part.candidates)), dtype=np.float32), k)
    with ThreadPoolExecutor(max_workers=cores) as pool:
        blocks = [none, *pool.map(rank, range(0, len(part.users), size))]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def _measure(
    part: Slice, positions: IntArray, ks: tuple[int, ...], interactions: IntArray
) -> SliceResult:
    num_candidates = len(part.candidates)
    truths = part.truth.getnnz(axis=1)
    hits = _hits(part.truth, positions)
    per_user, summary = {}, {}
    for k in ks:
        per_user[f"recall@{k}"] = metrics.recall_at_k(hits, truths, k)
        per_user[f"ndcg@{k}"] = metrics.ndcg_at_k(hits, truths, k)
    for key, values in per_user.items():
        summary[key] = float(values.mean()) if len(values) else float("nan")
    for k in ks:
        counts = metrics.recommendation_counts(positions[:, :k], num_candidates)
        recommended = np.zeros_like(interactions)
        recommended[part.candidates] = counts
        empty = len(part.users) == 0
        summary[f"coverage@{k}"] = float("nan") if empty else metrics.coverage(counts)
        summary[f"gini@{k}"] = metrics.gini(counts)
        summary[f"novelty@{k}"] = metrics.novelty(recommended, interactions)
    return SliceResult(
        users=part.users,
        counts={
            "users": len(part.users),
            "candidates": num_candidates,
            "truths": int(part.truth.nnz),
            "unreachable": int(part.truth.multiply(part.exclude).nnz),
        },
        metrics=summary,
        per_user=per_user,
        buckets=_measure_buckets(part, positions, hits, ks[-1], interactions),
    )


def _unmeasured(result: SliceResult) -> SliceResult:
    """Keep the counts of a slice, and put NaN for all that a ranking would tell."""
    return replace(
        result,
        metrics=dict.fromkeys(result.metrics, float("nan")),
        per_user={key: np.full_like(values, np.nan) for key, values in result.per_user.items()},
        buckets={key: replace(b, recall=float("nan")) for key, b in result.buckets.items()},
    )


def _measure_buckets(
    part: Slice, positions: IntArray, hits: BoolArray, k: int, interactions: IntArray
) -> dict[str, Bucket]:
    codes = metrics.popularity_buckets(interactions)[part.candidates]
    if len(codes) == 0:
        return {}
    members = codes[:, None] == np.arange(len(metrics.BUCKETS))
    truths = part.truth.astype(np.int64) @ members.astype(np.int64)
    recall = metrics.recall_by_bucket(hits, codes[positions], truths, k)
    buckets = {}
    for code, name in enumerate(metrics.BUCKETS):
        if members[:, code].any():
            values = recall[truths[:, code] > 0, code]
            mean = float(values.mean()) if len(values) else float("nan")
            buckets[name] = Bucket(int(members[:, code].sum()), len(values), mean)
    return buckets


def _hits(truth: sp.csr_matrix, positions: IntArray) -> BoolArray:
    """Look up ``[B, K]`` positions in the ``[B, C]`` truth; padding is no hit."""
    if positions.size == 0 or truth.shape[1] == 0:
        return np.zeros(positions.shape, dtype=np.bool_)
    found = truth[np.arange(len(positions))[:, None], positions].toarray()
    return np.asarray(found & (positions >= 0), dtype=np.bool_)
