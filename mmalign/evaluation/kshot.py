"""The k-shot curve: how well cold items are ranked once their first users have been seen.

The cold items of a split with more than ``most`` interactions are the candidates. The interactions
of each are put into an order drawn under a seed, and the first ``most`` are set aside: after ``k``
shots the first ``k`` of them are *revealed*, so a larger k reveals what a smaller one did, and
more. The others are the truth. Users, truths and candidates are the same for every k, zero
included: all that is set aside is left out of a user's candidates, revealed yet or not, and a user
without a truth drops out. Only what is known differs between the points of a curve.

Items of fewer interactions are not ranked. If they revealed what little they have, the number of
an item's shots would tell how many truths it has, and nobody knows that of a new item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError
from mmalign.evaluation import metrics
from mmalign.evaluation.protocol import rank_slice
from mmalign.evaluation.slices import Slice, build_slice
from mmalign.interfaces import ITEM_ID, SPLIT, USER_ID, BoolArray, IntArray, Recommends

if TYPE_CHECKING:
    from mmalign.data.catalog import Catalog

__all__ = ["SHOTS", "KShot", "draw_shots", "with_train_rows"]

SHOTS = (0, 1, 2, 5, 10)
"""Points of the curve."""


@dataclass(frozen=True)
class KShot:
    """What is revealed of the cold items of a split, and what is to be found.

    Shapes:
        part: Users, cold candidates, truths, and all that is set aside as exclusions.
        log: ``[U, I]``, the interactions of the split.
        users, items: ``[E]`` rows of the interactions that are set aside.
        turns: ``[E]``, the shot that reveals each, from 1.

    Attributes:
        most: Interactions that are set aside of every candidate.
    """

    part: Slice
    log: sp.csr_matrix
    users: IntArray
    items: IntArray
    turns: IntArray
    most: int

    def revealed(self, k: int) -> sp.csr_matrix:
        """``[U, I]``: the interactions that are known after ``k`` shots.

        Raises:
            ConfigError: k is negative, or more than is set aside.
        """
        if not 0 <= k <= self.most:
            raise ConfigError(f"k must lie between 0 and {self.most}", got=k, fix="raise most")
        known = self.turns <= k
        pairs = self.users[known], self.items[known]
        ones = sp.csr_matrix((np.ones(len(pairs[0]), np.float32), pairs), self.log.shape)
        return sp.csr_matrix(self.log.multiply(ones))

    def measure(self, scorer: Recommends, k: int, *, cutoff: int = 20) -> dict[str, float]:
        """Rank the candidates for users whose histories hold what is revealed.

        Args:
            scorer: Told of the revealed interactions, by a refit or by ``Model.reveal``.
            k: Shots.
            cutoff: Length of the lists.

        Returns:
            ``ndcg@cutoff`` and ``recall@cutoff``, means over users; NaN when there is none.

        Raises:
            ConfigError: k or the cutoff is out of its range.
            DataError: The scorer returns another shape than asked for, or NaN.
        """
        history = self.part.history + self.revealed(k)[self.part.users]
        told = replace(self.part, history=sp.csr_matrix(history))
        positions, _ = rank_slice(scorer, told, cutoff)
        truth = self.part.truth
        hits = np.zeros(positions.shape, dtype=np.bool_)
        if hits.size and truth.shape[1]:
            hits = truth[np.arange(len(positions))[:, None], positions].toarray() & (positions >= 0)
        truths = truth.getnnz(axis=1)
        per_user = {
            f"ndcg@{cutoff}": metrics.ndcg_at_k(hits, truths, cutoff),
            f"recall@{cutoff}": metrics.recall_at_k(hits, truths, cutoff),
        }
        return {n: float(v.mean()) if len(v) else float("nan") for n, v in per_user.items()}


def draw_shots(
    catalog: Catalog,
    split: str = "test",
    *,
    most: int = SHOTS[-1],
    seed: int = 0,
    exclude_seen: Sequence[str] = ("train", "valid"),
) -> KShot:
    """Draw which interactions of cold items are set aside, and in which order.

    Args:
        catalog: Its cold items have interactions in this split only.
        split: ``test`` or ``valid``.
        most: Interactions of an item that are set aside.
        seed: Of the draw.
        exclude_seen: As in :func:`mmalign.evaluation.protocol.evaluate`.

    Raises:
        ConfigError: An unknown split, or ``most`` is negative.
    """
    if most < 0:
        raise ConfigError("most must not be negative", got=most, fix="pass 10")
    cold = build_slice(catalog, split, "cold", exclude_seen)
    ranked = np.flatnonzero(cold.truth.getnnz(axis=0) > most)
    candidates = cold.candidates[ranked]
    taken = cold.truth[:, ranked].tocoo()
    turns = _turns(taken.col, np.random.default_rng(seed))
    is_aside = turns <= most

    def marks(chosen: BoolArray) -> sp.csr_matrix:
        pairs = taken.row[chosen], taken.col[chosen]
        return sp.csr_matrix((taken.data[chosen], pairs), taken.shape)

    truth = marks(~is_aside)
    kept = np.flatnonzero(truth.getnnz(axis=1))
    part = Slice(
        users=cold.users[kept],
        candidates=candidates,
        truth=truth[kept],
        exclude=(cold.exclude[:, ranked] + marks(is_aside))[kept],
        history=cold.history[kept],
    )
    users, items = cold.users[taken.row[is_aside]], candidates[taken.col[is_aside]]
    return KShot(part, catalog.matrix(split), users, items, turns[is_aside], most)


def with_train_rows(catalog: Catalog, revealed: sp.csr_matrix) -> Catalog:
    """Move revealed interactions to train, for a refit to compare with.

    Shapes:
        revealed: ``[U, I]``, see :meth:`KShot.revealed`; its items are warm in what is returned.
    """
    log = catalog.interactions.copy()
    users, items = catalog.user_rows(log[USER_ID]), catalog.item_rows(log[ITEM_ID])
    pairs = revealed.tocoo()
    moved = np.isin(
        users * catalog.num_items + items,
        pairs.row.astype(np.int64) * catalog.num_items + pairs.col,
    )
    log.loc[moved, SPLIT] = "train"
    return replace(catalog, interactions=log)


def _turns(items: NDArray[np.integer], rng: np.random.Generator) -> IntArray:
    """Number the entries of each item, ``[E]``, from 1 in a random order."""
    order = np.lexsort((rng.random(len(items)), items))
    _, starts, counts = np.unique(items[order], return_index=True, return_counts=True)
    turns = np.empty(len(items), np.int64)
    turns[order] = 1 + np.arange(len(items)) - np.repeat(starts, counts)
    return turns
