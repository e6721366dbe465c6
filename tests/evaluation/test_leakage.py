"""Toy models that leak, each in one way, and clean ones that do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmalign.data.catalog import Catalog
from mmalign.data.config import AttributeConfig, DataConfig
from mmalign.evaluation.leakage import find_attribute_leaks, find_leaks
from mmalign.interfaces import ITEM_ID, SPLIT, USER_ID, WEIGHT, Feature

ITEMS, USERS = 30, 25
NOISE, TESTS = "the content of other cold items becomes noise", "test rows get other items"
WARM, COLD = "scores of warm items", "scores of cold items that stayed as they are"


@pytest.fixture
def catalog():
    """Items 0-5 have test rows only, 6-8 valid rows only, 9 none."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        rows += [(f"u{user}", i, "train") for i in rng.choice(np.arange(10, ITEMS), 6, False)]
        rows += [(f"u{user}", i, "test") for i in rng.choice(6, 2, False)]
        rows += [(f"u{user}", i, "test") for i in rng.choice(np.arange(10, ITEMS), 1)]
        rows += [(f"u{user}", i, "valid") for i in rng.choice(np.arange(6, 9), 1)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    items = pd.DataFrame({"item_id": np.arange(ITEMS), "year": 1990.0 + np.arange(ITEMS)})
    config = DataConfig(attributes={"year": AttributeConfig("number")})
    return Catalog.from_pandas(items, log, config=config)


@pytest.fixture
def features():
    values = np.random.default_rng(1).normal(size=(ITEMS, 4)).astype(np.float32)
    present = np.ones(ITEMS, bool)
    present[3] = False
    values[3] = 0
    return {"text": Feature(values, present)}


class Toy:
    """Mean content of the history times content; each flag lets something in."""

    def __init__(self, catalog, features, *, leak=""):
        x = features["text"].values.astype(np.float64)
        warm = catalog.warm
        seen = np.ones(len(x), bool) if leak == "mean" else warm
        if leak == "scale":
            x = x / np.abs(x).max()
        x = x - x[seen].mean(axis=0)
        matrix = catalog.matrix("train", "test") if leak == "edges" else catalog.matrix("train")
        popularity = np.asarray(matrix.sum(axis=0)).ravel()
        if leak == "test popularity":
            popularity += np.asarray(catalog.matrix("test").sum(axis=0)).ravel()
        if leak == "knn":  # neighbours of warm items among all items
            cosine = x @ x.T
            nearest = np.argsort(-cosine, axis=1)[:, :3]
            x = np.where(warm[:, None], x[nearest].mean(axis=1), x)
        self.bias = np.where(warm, np.log1p(popularity), 0)
        if leak == "negatives":  # pushed away from the mean of all other items
            self.bias = self.bias - x @ x.sum(axis=0)
        if leak == "edges":
            self.bias = np.log1p(popularity)
        self.x = x
        self.noise = np.random.default_rng() if leak == "luck" else None

    def score(self, history, items):
        scores = (history @ self.x) @ self.x[items].T + self.bias[items]
        if self.noise is not None:
            scores = scores + self.noise.normal(size=scores.shape)
        return scores.astype(np.float32)


def leaks_of(catalog, features, leak):
    return find_leaks(lambda c, f: Toy(c, f, leak=leak), catalog, features)


def test_a_clean_model_is_found_clean(catalog, features):
    assert leaks_of(catalog, features, "") == ()


@pytest.mark.parametrize("leak", ["mean", "scale", "knn", "negatives"])
def test_content_of_cold_items_that_is_learned_from_is_found(catalog, features, leak):
    found = leaks_of(catalog, features, leak)
    assert {one.source for one in found} == {NOISE}
    assert WARM in {one.target for one in found}


@pytest.mark.parametrize("leak", ["edges", "test popularity"])
def test_test_rows_that_are_learned_from_are_found(catalog, features, leak):
    found = leaks_of(catalog, features, leak)
    assert {one.source for one in found} == {TESTS}
    assert {one.target for one in found} >= {WARM}


def pairs(catalog):
    log = catalog.interactions
    return log.loc[log[SPLIT] == "test", [USER_ID, ITEM_ID]].apply(tuple, axis=1)


@pytest.mark.parametrize("seed", range(8))
def test_no_test_row_stays_and_no_item_loses_all(catalog, features, seed):
    seen = []

    def fit(catalog, features):
        seen.append(catalog)
        return Toy(catalog, features)

    find_leaks(fit, catalog, features, seed=seed)
    before, after = map(pairs, seen)
    assert len(after) == len(before)
    assert not {*before} & {*after}
    assert {item for _, item in before} == {item for _, item in after}


def test_rows_of_a_single_test_item_that_are_learned_from_are_found(catalog, features):
    log = catalog.interactions
    warm = catalog.item_ids[catalog.warm]  # a cold one may be among those that nobody watches
    (item, *_) = log.loc[(log[SPLIT] == "test") & log[ITEM_ID].isin(warm), ITEM_ID]
    log = log[(log[SPLIT] != "test") | (log[ITEM_ID] == item)]
    more = pd.DataFrame(
        {USER_ID: log[USER_ID].unique()[:2], ITEM_ID: item, SPLIT: "test", WEIGHT: 1.0}
    )
    fewer = Catalog.from_pandas(catalog.items, pd.concat([log, more]))
    assert {one.source for one in leaks_of(fewer, features, "edges")} == {TESTS}
    assert leaks_of(fewer, features, "") == ()


def test_a_mean_that_only_moves_cold_scores_is_found(catalog, features):
    """As of kernel ridge on top of EASE: its warm scores know no content."""

    class Regressed(Toy):
        def score(self, history, items):
            scores = super().score(history, items)
            return np.where(catalog.warm[items], 0, scores)

    found = find_leaks(lambda c, f: Regressed(c, f, leak="mean"), catalog, features)
    assert [(one.source, one.target) for one in found] == [(NOISE, COLD)]
    assert "move when the content of other cold items becomes noise" in str(found[0])


def test_an_item_that_comes_last_hides_no_leak(catalog, features):
    """Item 3 has no content; its score, far below all, is no measure of how much others move."""

    class Last(Toy):
        def score(self, history, items):
            scores = super().score(history, items)
            scores[:, items == 3] = -1000
            return np.where(catalog.warm[items], 0, scores)

    for seed in (1, 3, 4):  # it is among the items that stay as they are
        (found,) = find_leaks(lambda c, f: Last(c, f, leak="mean"), catalog, features, seed=seed)
        assert found.target == COLD
        assert found.change > 10


def test_items_that_come_last_do_not_hide_a_small_leak(catalog, features):
    """Item 3 has a genre, which this model does not read: it stays in, far below all others."""

    class Last(Toy):
        def __init__(self, catalog, features):
            super().__init__(catalog, features)
            self.leak = 1e-3 * features["text"].values[~catalog.warm].mean()

        def score(self, history, items):
            scores = super().score(history, items)
            scores = scores + np.where(catalog.warm[items], 0, self.leak)
            scores[:, items == 3] = -1000
            return scores

    features["genre"] = Feature(np.ones((ITEMS, 1), np.float32), np.ones(ITEMS, bool))
    for seed in (1, 3, 4):
        (found,) = find_leaks(Last, catalog, features, seed=seed)
        assert (found.source, found.target) == (NOISE, COLD)


def test_what_only_counts_the_cold_items_with_content_is_found(catalog, features):
    class Counting(Toy):
        def __init__(self, catalog, features):
            super().__init__(catalog, features)
            self.bias = self.bias + catalog.warm * features["text"].present[~catalog.warm].sum()

    features = {"text": Feature(features["text"].values, catalog.warm.copy())}
    (found,) = find_leaks(Counting, catalog, features)
    assert (found.source, found.target) == (NOISE, WARM)


def test_valid_may_be_learned_from(catalog, features):
    """Calibration is chosen on valid, its cold items among them."""

    class Calibrated(Toy):
        def __init__(self, catalog, features):
            super().__init__(catalog, features)
            valid = np.asarray(catalog.matrix("valid").sum(axis=0)).ravel()
            self.bias = self.bias + valid @ np.abs(features["text"].values).sum(axis=1)

    assert find_leaks(Calibrated, catalog, features) == ()


def test_a_model_of_chance_is_told_apart_from_a_leak(catalog, features):
    found = leaks_of(catalog, features, "luck")
    assert {one.source for one in found} == {
        "nothing at all is changed, so that no leak can be told"
    }


def test_data_is_left_as_it_was(catalog, features):
    log, values = catalog.interactions.copy(), features["text"].values.copy()
    leaks_of(catalog, features, "mean")
    pd.testing.assert_frame_equal(catalog.interactions, log)
    np.testing.assert_array_equal(features["text"].values, values)


def test_without_cold_items_only_tests_are_changed(catalog, features):
    log = catalog.interactions
    warm = Catalog.from_pandas(
        pd.DataFrame({"item_id": np.arange(10, ITEMS)}),
        log[log["item_id"].astype(int) >= 10],
    )
    part = {"text": features["text"].rows(np.arange(10, ITEMS))}
    assert find_leaks(lambda c, f: Toy(c, f), warm, part) == ()
    assert {one.source for one in leaks_of(warm, part, "edges")} == {TESTS}


@pytest.mark.parametrize("leaking", [False, True])
def test_attribute_encoders(catalog, leaking):
    def build(catalog):
        year = catalog.attribute_values("year").to_numpy(dtype=float)
        rows = np.ones(ITEMS, bool) if leaking else catalog.warm
        values = (year - np.nanmean(year[rows])) / np.nanstd(year[rows])
        present = np.isfinite(values)
        column = np.nan_to_num(values)[:, None].astype(np.float32)
        return {"year": Feature(column, present)}

    found = find_attribute_leaks(build, catalog)
    assert [one.target for one in found] == (
        ["features of the attribute 'year'"] if leaking else []
    )


def test_the_attribute_encoder_of_the_library_is_clean(catalog):
    from mmalign.encoders import AttributeEncoder, AttributeSpec
    from mmalign.features.build import build_features

    def build(catalog):
        encoder = AttributeEncoder({"year": AttributeSpec("number", None, "laplace")})
        return build_features(catalog, {}, encoder, "unused", False)[0]

    assert find_attribute_leaks(build, catalog) == ()
