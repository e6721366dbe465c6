from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer

from mmalign.demo import generate_shop
from mmalign.demo.patterns import PALETTES, PATTERNS
from mmalign.demo.pictures import SILHOUETTES, SIZE, draw_product
from mmalign.demo.texts import TITLES
from mmalign.demo.words import CATEGORIES, MAKINGS, OCCASIONS, THEMES
from mmalign.errors import DataError

NUM_ITEMS, NUM_USERS = 400, 800


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return generate_shop(
        tmp_path_factory.mktemp("shop"), num_items=NUM_ITEMS, num_users=NUM_USERS, seed=3
    )


@pytest.fixture(scope="module")
def items(shop):
    return pd.read_parquet(shop / "items.parquet")


@pytest.fixture(scope="module")
def log(shop):
    return pd.read_parquet(shop / "interactions.parquet")


@pytest.fixture(scope="module")
def purchases(shop, items, log):
    """Users against items, 1 where bought, per split: ``[U, I]``."""
    users = pd.read_parquet(shop / "users.parquet")
    rows = pd.Index(users["user_id"]).get_indexer(log["user_id"])
    columns = pd.Index(items["item_id"]).get_indexer(log["item_id"])
    assert rows.min() >= 0
    assert columns.min() >= 0
    matrices = {}
    for split in ("train", "valid", "test"):
        matrices[split] = np.zeros((NUM_USERS, NUM_ITEMS))
        chosen = (log["split"] == split).to_numpy()
        matrices[split][rows[chosen], columns[chosen]] = 1
    return matrices


def test_the_folder_holds_what_a_user_would_bring(shop, items, log):
    content = ["title", "description", "image"]
    attributes = ["category", "brand", "tags", "price", "released"]
    assert list(items.columns) == ["item_id", *content, *attributes]
    assert list(log.columns) == ["user_id", "item_id", "timestamp", "split"]
    assert items["item_id"].is_unique
    assert len(items) == NUM_ITEMS
    assert pd.api.types.is_integer_dtype(log["timestamp"])
    assert (items["price"] > 0).all()
    assert items["tags"].str.contains("|", regex=False).mean() > 0.5
    for path in items["image"].dropna():
        with Image.open(shop / path) as picture:
            assert picture.size == (SIZE, SIZE)
    assert 0 < items["image"].isna().sum() < 0.05 * NUM_ITEMS


def test_same_seed_same_shop_to_the_byte(tmp_path):
    folders = [
        generate_shop(tmp_path / name, num_items=100, num_users=50, seed=seed)
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    contents = [
        {p.relative_to(f).as_posix(): p.read_bytes() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in folders
    ]
    assert contents[0] == contents[1]
    assert contents[0]["items.parquet"] != contents[2]["items.parquet"]


def test_split_follows_time_and_cold_items_are_disjoint(log):
    times = log.groupby("split")["timestamp"]
    assert times.max()["train"] <= times.min()["valid"]
    assert times.min()["valid"] < times.min()["test"]
    bought = {split: set(rows["item_id"]) for split, rows in log.groupby("split")}
    cold_valid, cold_test = bought["valid"] - bought["train"], bought["test"] - bought["train"]
    assert cold_valid
    assert cold_test
    assert not cold_valid & cold_test
    assert 0.7 < (log["split"] == "train").mean() < 0.85


def test_nothing_is_bought_before_it_is_released_or_by_whom_has_not_joined(shop, items, log):
    users = pd.read_parquet(shop / "users.parquet")
    moment = pd.to_datetime(log["timestamp"], unit="s")
    for table, key, column in ((items, "item_id", "released"), (users, "user_id", "joined")):
        since = pd.to_datetime(log[key].map(table.set_index(key)[column]))
        assert (moment >= since).all()
    assert not log.duplicated(["user_id", "item_id"]).any()


def test_cold_items_are_the_newest(items, log):
    cold = ~items["item_id"].isin(log.loc[log["split"] == "train", "item_id"])
    released = pd.to_datetime(items["released"])
    assert released[cold].median() > released[~cold].quantile(0.75)


def test_activity_and_popularity_are_long_tailed(log):
    per_user = log.groupby("user_id").size()
    assert 15 < per_user.mean() < 25
    assert per_user.median() < 0.85 * per_user.mean()
    per_item = log.groupby("item_id").size().sort_values(ascending=False)
    assert 0.25 < per_item.head(NUM_ITEMS // 10).sum() / len(log) < 0.6


def test_texts_never_name_what_the_pictures_show():
    """The word lists themselves are read, so that no sample can miss a slip."""
    texts = [*TITLES, *MAKINGS.values(), *(line for pair in OCCASIONS.values() for line in pair)]
    for theme in THEMES.values():
        texts += [*theme.motifs, *theme.lines]
    for category in CATEGORIES.values():
        texts += [*category.nouns, *category.materials, *category.materials.values()]
    colours = "red orange yellow green blue purple violet pink brown black white grey gray beige"
    style = {*PALETTES, *PATTERNS, *colours.split(), "striped", "dotted", "checked", "colour"}
    style |= {"color", "pattern", "floral", "polka", "bright", "dark", "pale"}
    style |= {word.removesuffix("s") for word in PATTERNS}
    said = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    assert said.isdisjoint(style), sorted(said & style)


def test_texts_are_varied_and_well_formed(items):
    assert items["description"].nunique() > 0.95 * NUM_ITEMS
    assert items["title"].nunique() > 0.8 * NUM_ITEMS
    everything = " ".join(items["title"] + ". " + items["description"])
    assert not re.search(r"[{}]", everything)
    assert not re.search(r"\b[Aa] [aeiou]", everything)
    assert re.search(r"\bAn art print", everything)


@pytest.mark.parametrize("category", SILHOUETTES)
def test_every_look_can_be_drawn_at_every_proportion(category):
    rng = np.random.default_rng(0)
    for palette in PALETTES:
        for pattern in PATTERNS:
            picture = draw_product(rng, category=category, palette=palette, pattern=pattern)
            pixels = np.asarray(picture).reshape(-1, 3)
            backdrop = pixels[0].astype(int)
            covered = (np.abs(pixels - backdrop).sum(axis=1) > 24).mean()
            assert 0.15 < covered < 0.9


def test_categories_are_the_same_in_words_and_pictures():
    assert set(CATEGORIES) == set(SILHOUETTES)


def test_likeminded_shoppers_tell_more_than_popularity(purchases):
    train, test = purchases["train"], purchases["test"]
    warm = train.sum(axis=0) > 0
    gram = train[:, warm].T @ train[:, warm]
    inverse = np.linalg.inv(gram + 100 * np.eye(len(gram)))
    ease = -inverse / np.diag(inverse)
    np.fill_diagonal(ease, 0)
    seen = (train + purchases["valid"])[:, warm] > 0
    personal = _hits(train[:, warm] @ ease, test[:, warm], seen)
    popular = _hits(np.tile(gram.diagonal(), (NUM_USERS, 1)), test[:, warm], seen)
    assert personal > 1.5 * popular
    assert personal < 0.7  # and yet people are no machines


def test_picture_and_text_each_carry_what_the_other_lacks(shop, items, purchases):
    """Hide a quarter of the items and guess their buyers from crude content of the others."""
    words = CountVectorizer(stop_words="english", binary=True).fit_transform(
        items["title"] + " " + items["description"]
    )
    text, image = words.toarray().astype(float), np.stack([_look(shop, p) for p in items["image"]])
    bought = sum(purchases.values())
    hidden = np.arange(NUM_ITEMS) % 4 == 0
    quality = {
        name: _auc(kernel, bought, hidden)
        for name, kernel in {
            "text": _cosine(text),
            "image": _cosine(image),
            "both": _cosine(text) + _cosine(image),
        }.items()
    }
    assert quality["both"] > quality["text"] + 0.01
    assert quality["both"] > quality["image"] + 0.01
    assert min(quality.values()) > 0.55


@pytest.mark.parametrize("sizes", [{"num_items": 99}, {"num_users": 49}])
def test_too_small_a_shop_is_refused(tmp_path, sizes):
    with pytest.raises(DataError, match="at least 100 items and 50 users"):
        generate_shop(tmp_path, **sizes)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write the shop") as caught:
        generate_shop(tmp_path / "file" / "shop", num_items=100, num_users=50)
    assert "\n" not in str(caught.value)


def test_a_table_of_somebody_else_is_left_alone(tmp_path):
    own = pd.DataFrame({"item_id": ["mine"]})
    own.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"no generated shop's.*items.parquet.*new or empty"):
        generate_shop(tmp_path, num_items=100, num_users=50)
    assert pd.read_parquet(tmp_path / "items.parquet").equals(own)


def test_a_shop_replaces_a_shop(tmp_path):
    for count in (100, 120):
        generate_shop(tmp_path, num_items=count, num_users=50)
        assert len(pd.read_parquet(tmp_path / "items.parquet")) == count


def _hits(scores, truth, seen, k=20):
    """Share of the truths that are among the best k."""
    best = np.argsort(-np.where(seen, -np.inf, scores), axis=1)[:, :k]
    return np.take_along_axis(truth, best, axis=1).sum() / truth.sum()


def _look(shop, path):
    """Colour histogram of a picture, 4 bins per channel, without its backdrop."""
    if not isinstance(path, str):
        return np.zeros(64)
    with Image.open(shop / path) as picture:
        pixels = np.asarray(picture.resize((64, 64))).reshape(-1, 3).astype(int)
    shown = pixels[np.abs(pixels - pixels[0]).sum(axis=1) > 40] // 64
    return np.sqrt(np.bincount(shown @ [16, 4, 1], minlength=64) / len(shown))


def _cosine(values):
    values = values - values.mean(axis=0)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return values @ values.T


def _auc(kernel, bought, hidden):
    known = ~hidden
    weights = np.linalg.solve(
        kernel[np.ix_(known, known)] + 3 * np.eye(known.sum()), kernel[np.ix_(known, hidden)]
    )
    scores, truth = bought[:, known] @ weights, bought[:, hidden]
    # Mann-Whitney: how often a bought item is ranked above one that was not, per shopper.
    ranks, bought_each = scores.argsort(axis=1).argsort(axis=1), truth.sum(axis=1)
    rows = (bought_each > 0) & (bought_each < truth.shape[1])
    below = (ranks * truth).sum(axis=1) - bought_each * (bought_each - 1) / 2
    return (below[rows] / (bought_each * (truth.shape[1] - bought_each))[rows]).mean()
