"""Some shoppers of the demo: what they bought, what is recommended to them, and why."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mmalign.data.catalog import Catalog
from mmalign.evaluation.html_data import Example, ItemCard, Recommendation
from mmalign.evaluation.protocol import rank_slice
from mmalign.evaluation.slices import build_slice
from mmalign.interfaces import ITEM_ID, SPLIT, TIMESTAMP, USER_ID
from mmalign.recommender import Recommender

__all__ = ["choose_examples"]

_LENGTH = 6
_HISTORY = 10  # purchases shown, the latest first
_REASONS = 3
_RIGHT = (
    "One of the {count:,} shoppers, of {users:,}, who went on to buy a new item of the first"
    f" {_LENGTH}: an example of a good list, not of a typical one."
)
_RANDOM = "Drawn at random from all shoppers."


def choose_examples(
    recommender: Recommender, catalog: Catalog, *, seed: int = 0, each: int = 2
) -> tuple[Example, ...]:
    """Rank test candidates for a few shoppers and explain every place of the lists.

    Half of the shoppers are drawn among those who went on to buy a cold item that their list
    holds, the other half among all. Their notes say which.

    Args:
        recommender: Ranks.
        catalog: What it was fitted on.
        seed: Of the draws.
        each: Shoppers of each half.
    """
    lists = _Lists(recommender, catalog)
    rng = np.random.default_rng(seed)
    everybody, right = np.arange(len(lists.part.users)), np.flatnonzero(lists.right)
    lucky = rng.permutation(right)[:each]
    anybody = rng.permutation(np.setdiff1d(everybody, lucky))[:each]
    because = _RIGHT.format(count=len(right), users=len(everybody))
    return tuple(
        lists.example(int(row), note)
        for rows, note in ((lucky, because), (anybody, _RANDOM))
        for row in rows
    )


class _Lists:
    """What is recommended to every shopper of the test split."""

    def __init__(self, recommender: Recommender, catalog: Catalog) -> None:
        self._recommender, self._catalog = recommender, catalog
        self._images = catalog.images()
        self.part = build_slice(catalog, "test", "all")
        scorer = recommender.for_catalog(catalog)
        self._positions, self._scores = rank_slice(scorer, self.part, _LENGTH)
        placed = np.maximum(self._positions, 0)
        self._hits = np.take_along_axis(self.part.truth.toarray(), placed, axis=1)
        self._hits &= self._positions >= 0
        cold = ~catalog.warm[self.part.candidates]
        self.right = (self._hits & cold[placed]).any(axis=1)

    def example(self, row: int, note: str) -> Example:
        user = str(self._catalog.user_ids[self.part.users[row]])
        log = self._catalog.interactions
        own = log[(log[USER_ID] == user) & (log[SPLIT] == "train")].sort_values(TIMESTAMP)
        latest = own[ITEM_ID].tail(_HISTORY)[::-1]
        places = np.flatnonzero(self._positions[row] >= 0)
        return Example(
            user, self._cards(latest), tuple(self._pick(user, row, int(p)) for p in places), note
        )

    def _pick(self, user: str, row: int, place: int) -> Recommendation:
        item = int(self.part.candidates[self._positions[row, place]])
        name = str(self._catalog.item_ids[item])
        reasons = self._recommender.explain(name, user, k=_REASONS)
        return Recommendation(
            self._card(item),
            float(self._scores[row, place]),
            cold=not self._catalog.warm[item],
            hit=bool(self._hits[row, place]),
            nearest=self._cards(n.item_id for n in reasons.neighbours),
            shares=reasons.shares,
        )

    def _cards(self, ids: Iterable[str]) -> tuple[ItemCard, ...]:
        return tuple(self._card(int(row)) for row in self._catalog.item_rows(ids))

    def _card(self, row: int) -> ItemCard:
        item = self._catalog.items.loc[row]
        return ItemCard(
            item["title"], self._images[row], f"{item['category']} · {item['price']:.2f}"
        )
