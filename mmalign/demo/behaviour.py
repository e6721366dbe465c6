"""How the shoppers of the generated shop choose: tastes, budgets, fashion, chance and time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmalign.demo.words import CATEGORIES

__all__ = ["DAYS", "Purchases", "simulate"]

Floats = NDArray[np.float64]

DAYS = 730
"""Length of the log in days."""

_MEDIAN_PURCHASES, _SPREAD_OF_PURCHASES = 15.0, 0.8  # log-normal; the mean is about 20
_LEAST, _MOST = 4, 250
_TASTE = {"category": 1.5, "brand": 0.8, "occasion": 0.6, "material": 0.4}
_STYLE, _THEME = 1.5, 1.8
_CIRCLES, _OWN_TASTE = 24, 0.6  # like-minded shoppers, and how far each differs from them
_SHARED = 0.25  # how far the tastes of all agree
_FASHION = 0.7  # spread of what makes some items sell and no feature shows
_CHANCE = 1.15  # scale of the Gumbel noise of a single choice
_SHARE_JOINED_AT_OPENING = 0.5
_HALF_EXPOSURE = 40.0  # days on sale after which an item has half of its chances


@dataclass(frozen=True)
class Purchases:
    """What was bought, sorted by time.

    Shapes:
        users, items: ``[E]`` row numbers.
        days: ``[E]`` days since the opening.
        joined: ``[U]`` day on which each shopper joined.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    days: NDArray[np.float64]
    joined: NDArray[np.float64]


def simulate(nature: pd.DataFrame, num_users: int, rng: np.random.Generator) -> Purchases:
    """Let every shopper choose items by a random utility model.

    The utility of an item is the sum of the shopper's tastes for what it is, its price against the
    budget, and its own appeal. Adding Gumbel noise and taking the largest is a draw without
    replacement from the softmax of the utilities (Plackett-Luce).

    Args:
        nature: One row per item: category, palette, pattern, theme, material, occasion, brand,
            price, released (day).
        num_users: Number of shoppers.
        rng: Source of all tastes and choices.
    """
    utility = _tastes(nature, num_users, rng) + _appeal(nature, rng)
    utility += _CHANCE * rng.gumbel(size=utility.shape)
    wanted = rng.lognormal(np.log(_MEDIAN_PURCHASES), _SPREAD_OF_PURCHASES, num_users)
    counts = np.clip(np.rint(wanted), _LEAST, min(_MOST, len(nature) // 2)).astype(np.int64)
    ranked = np.argsort(-utility, axis=1, kind="stable")
    users = np.repeat(np.arange(num_users), counts)
    items = np.concatenate([row[:count] for row, count in zip(ranked, counts, strict=True)])
    joined = rng.uniform(0, 0.75 * DAYS, num_users)
    joined[rng.random(num_users) < _SHARE_JOINED_AT_OPENING] = 0.0
    start = np.maximum(nature["released"].to_numpy()[items], joined[users])
    days = start + (DAYS - start) * rng.beta(1.0, 1.4, len(items))
    order = np.argsort(days, kind="stable")
    return Purchases(users[order], items[order], days[order], joined)


def _tastes(nature: pd.DataFrame, num_users: int, rng: np.random.Generator) -> Floats:
    circles = rng.integers(_CIRCLES, size=num_users)

    def liking(column: str) -> Floats:
        """Draw how much each shopper likes each value, and look it up per item: ``[U, I]``."""
        codes, names = pd.factorize(nature[column], sort=True)
        shared = _SHARED * rng.normal(size=len(names))
        circle = np.sqrt(1 - _OWN_TASTE**2) * rng.normal(size=(_CIRCLES, len(names)))
        own = _OWN_TASTE * rng.normal(size=(num_users, len(names)))
        known: Floats = shared + circle[circles] + own
        return known[:, codes]

    category = nature["category"]
    look = category.map({name: c.style_weight for name, c in CATEGORIES.items()}).to_numpy()
    read = category.map({name: c.theme_weight for name, c in CATEGORIES.items()}).to_numpy()
    utility: Floats = _STYLE * look * (liking("palette") + liking("pattern"))
    utility += _THEME * read * liking("theme")
    for column, weight in _TASTE.items():
        utility += weight * liking(column)
    price = np.log(nature["price"].to_numpy())
    usual = category.map({name: np.log(c.price) for name, c in CATEGORIES.items()}).to_numpy()
    budget = rng.normal(0.0, 0.3, (num_users, 1))
    utility -= 3.0 * (price - usual - budget) ** 2
    return utility


def _appeal(nature: pd.DataFrame, rng: np.random.Generator) -> Floats:
    """Draw what makes an item sell to everyone: fashion, and the time it had to be found."""
    on_sale = DAYS - nature["released"].to_numpy()
    appeal: Floats = _FASHION * rng.normal(size=len(nature))
    appeal += np.log(on_sale / (on_sale + _HALF_EXPOSURE))
    return appeal
