"""The generated shop: its catalogue, its shoppers and what they bought, written as a data folder.

What an item *is* has two halves that no single modality shows: the picture carries its style
(palette and pattern), the text its theme, material and occasion. Shoppers have tastes in both, so
a model that reads only one of them leaves much of the behaviour unexplained.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from mmalign.data.reading import ENDINGS
from mmalign.demo.behaviour import DAYS, Purchases, simulate
from mmalign.demo.patterns import PALETTES, PATTERNS
from mmalign.demo.pictures import draw_product
from mmalign.demo.texts import write_description, write_title
from mmalign.demo.words import BRANDS, CATEGORIES, MAKINGS, OCCASIONS, THEMES
from mmalign.errors import DataError
from mmalign.interfaces import ITEM_ID, SPLIT, TIMESTAMP, USER_ID

__all__ = ["MIN_ITEMS", "MIN_USERS", "generate_shop"]

MIN_ITEMS, MIN_USERS = 100, 50
"""Fewer make no shop with warm and cold items."""

_OPENING = pd.Timestamp("2023-01-01")
_SHARE_AT_OPENING = 0.3  # of the catalogue; the rest arrives at a growing rate
_SHARE_WITHOUT_PICTURE = 0.01
_SHARE_WITH_MAKING = 0.4
_VALID_FROM, _TEST_FROM = 0.8, 0.9  # shares of the log, in order of time
_TABLES = ("items", "users", "interactions")
_MARK = "shop.json"
_REGIONS = ("north", "east", "south", "west")


def generate_shop(
    folder: str | Path, *, num_items: int = 2000, num_users: int = 3000, seed: int = 0
) -> Path:
    """Generate a shop as a data folder: items, users, interactions with a split, and pictures.

    The split follows time: the last tenth of the purchases is ``test``, the tenth before ``valid``.
    Purchases of an item that was first bought in the valid tenth are all ``valid``, so the cold
    items of the two splits are disjoint. The very newest items may have no purchase at all.

    Args:
        folder: Where to write; made when absent. A shop that is there is replaced.
        num_items: Size of the catalogue, at least :data:`MIN_ITEMS`.
        num_users: Number of shoppers, at least :data:`MIN_USERS`.
        seed: Same seed, same shop.

    Returns:
        The folder, holding ``items.parquet``, ``users.parquet``, ``interactions.parquet``,
        ``images/``, and ``shop.json`` with the arguments.

    Raises:
        DataError: The sizes are too small, or the folder cannot be written or holds tables of
            somebody else.
    """
    if num_items < MIN_ITEMS or num_users < MIN_USERS:
        raise DataError(
            "the shop is too small for warm and cold items",
            got={"num_items": num_items, "num_users": num_users},
            fix=f"ask for at least {MIN_ITEMS} items and {MIN_USERS} users",
        )
    folder = Path(folder)
    _refuse_others(folder)
    streams = np.random.SeedSequence(seed).spawn(5)
    nature_rng, text_rng, picture_rng, taste_rng, user_rng = map(np.random.default_rng, streams)
    nature = _invent(num_items, nature_rng)
    items = _items(nature, text_rng)
    purchases = simulate(nature, num_users, taste_rng)
    users = _users(purchases, user_rng)
    tables = {
        "items": items,
        "users": users,
        "interactions": _interactions(purchases, items, users),
    }
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        arguments = {"num_items": num_items, "num_users": num_users, "seed": seed}
        (folder / _MARK).write_text(json.dumps(arguments) + "\n", encoding="utf-8")
        _draw(items, nature, folder, picture_rng)
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)
    except OSError as error:
        raise DataError(
            "cannot write the shop", got=str(error), fix="choose a folder you may write to"
        ) from None
    return folder


def _refuse_others(folder: Path) -> None:
    tables = [folder / f"{name}{ending}" for name in _TABLES for ending in ENDINGS]
    there = [table for table in tables if table.exists()]
    if there and not (folder / _MARK).exists():
        raise DataError(
            f"the folder holds a table that is no generated shop's, for there is no {_MARK}",
            got=str(there[0]),
            fix="name a new or empty folder",
        )


def _invent(num_items: int, rng: np.random.Generator) -> pd.DataFrame:
    """Decide what every item is, before anything is written or drawn of it."""

    def draw(names: tuple[str, ...], evenness: float = 8.0) -> list[str]:
        shares = rng.dirichlet(np.full(len(names), evenness))
        return [names[i] for i in rng.choice(len(names), num_items, p=shares)]

    nature = pd.DataFrame(
        {
            "category": draw(tuple(CATEGORIES)),
            "palette": draw(tuple(PALETTES)),
            "pattern": draw(tuple(PATTERNS)),
            "theme": draw(tuple(THEMES)),
            "occasion": draw(tuple(OCCASIONS)),
            "second_occasion": draw(tuple(OCCASIONS)),
            "making": draw(tuple(MAKINGS)),
            "brand": draw(BRANDS, evenness=2.0),
        }
    )
    nature["material"] = [
        tuple(CATEGORIES[c].materials)[int(rng.integers(4))] for c in nature["category"]
    ]
    nature.loc[rng.random(num_items) >= _SHARE_WITH_MAKING, "making"] = None
    tier = dict(zip(BRANDS, rng.normal(0, 0.25, len(BRANDS)), strict=True))
    usual = nature["category"].map({name: c.price for name, c in CATEGORIES.items()})
    level = nature["brand"].map(tier) + rng.normal(0, 0.18, num_items)
    nature["price"] = np.ceil(usual * np.exp(level)) - 0.1  # 13.90, 58.90, ...
    released = DAYS * rng.random(num_items) ** 0.5
    released[rng.random(num_items) < _SHARE_AT_OPENING] = 0.0
    nature["released"] = np.floor(released)
    nature["has_picture"] = rng.random(num_items) >= _SHARE_WITHOUT_PICTURE
    return nature.sort_values("released", kind="stable", ignore_index=True)


def _items(nature: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    numbers = range(1, len(nature) + 1)
    ids = [f"{c.upper()}-{n:05d}" for c, n in zip(nature["category"], numbers, strict=True)]
    rows = nature.to_dict("records")
    titles = [
        write_title(rng, category=r["category"], theme=r["theme"], material=r["material"])
        for r in rows
    ]
    descriptions = [
        write_description(
            rng,
            category=r["category"],
            theme=r["theme"],
            material=r["material"],
            occasion=r["occasion"],
            making=r["making"] if isinstance(r["making"], str) else None,
        )
        for r in rows
    ]
    pictures = [
        f"images/{name}.jpg" if shown else None
        for name, shown in zip(ids, nature["has_picture"], strict=True)
    ]
    return pd.DataFrame(
        {
            ITEM_ID: ids,
            "title": titles,
            "description": descriptions,
            "image": pictures,
            "category": nature["category"],
            "brand": nature["brand"],
            "tags": [_tags(r) for r in rows],
            "price": nature["price"].round(2),
            "released": _dates(nature["released"].to_numpy()),
        }
    )


def _tags(row: dict[str, object]) -> str:
    named = (row["occasion"], row["second_occasion"], row["making"])
    return "|".join(dict.fromkeys(tag for tag in named if isinstance(tag, str)))


def _dates(days: np.ndarray) -> list[str]:
    moments = _OPENING + pd.to_timedelta(np.floor(days), unit="D")
    return [moment.date().isoformat() for moment in moments]


def _users(purchases: Purchases, rng: np.random.Generator) -> pd.DataFrame:
    count = len(purchases.joined)
    return pd.DataFrame(
        {
            USER_ID: [f"shopper-{n:05d}" for n in range(1, count + 1)],
            "region": [_REGIONS[i] for i in rng.integers(len(_REGIONS), size=count)],
            "joined": _dates(purchases.joined),
        }
    )


def _interactions(purchases: Purchases, items: pd.DataFrame, users: pd.DataFrame) -> pd.DataFrame:
    count = len(purchases.items)
    split = np.full(count, "train", dtype=object)
    split[round(_VALID_FROM * count) :] = "valid"
    split[round(_TEST_FROM * count) :] = "test"
    # Purchases are sorted by time, so the first row of an item tells when it arrived.
    arrived = pd.Series(split).groupby(purchases.items).transform("first")
    split[(arrived == "valid").to_numpy()] = "valid"
    opening = int(_OPENING.timestamp())
    return pd.DataFrame(
        {
            USER_ID: users[USER_ID].to_numpy()[purchases.users],
            ITEM_ID: items[ITEM_ID].to_numpy()[purchases.items],
            TIMESTAMP: opening + (purchases.days * 86_400).astype(np.int64),
            SPLIT: split.astype(str),
        }
    )


def _draw(
    items: pd.DataFrame, nature: pd.DataFrame, folder: Path, rng: np.random.Generator
) -> None:
    """Draw all pictures, on several threads; each has its own stream, so the order is free."""
    looks = nature[["category", "palette", "pattern"]].to_dict("records")

    def draw(path: object, look: dict[str, str], stream: np.random.Generator) -> None:
        if isinstance(path, str):
            draw_product(stream, **look).save(folder / path, quality=90)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(draw, items["image"], looks, rng.spawn(len(items))):
            pass  # reading the results raises what a thread raised
