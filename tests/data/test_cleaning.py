from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmalign.data import AttributeConfig, Catalog, DataConfig, SplitConfig
from mmalign.data.audit import audit
from mmalign.data.cells import as_seconds, in_line, is_date
from mmalign.data.cleaning import clean_items
from mmalign.data.condition import Condition
from mmalign.errors import DataError

ITEMS = pd.DataFrame({"item_id": ["a", "b"], "title": ["x", "y"], "photo": [None, None]})
LOG = pd.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "split": ["train", "test"]})


def build(items: pd.DataFrame = ITEMS, log: pd.DataFrame = LOG, **config: Any) -> Catalog:
    return Catalog.from_pandas(items, log, config=DataConfig(**config))


@pytest.mark.parametrize(
    ("items", "log", "config", "message"),
    [
        (ITEMS.iloc[:0], LOG, {}, "items are empty"),
        (ITEMS, LOG.iloc[:0], {}, "interactions are empty"),
        (ITEMS.drop(columns="item_id"), LOG, {}, "items have no column 'item_id'"),
        (ITEMS.rename(columns={"item_id": "itemid"}), LOG, {}, "did you mean 'itemid'"),
        (ITEMS, LOG.drop(columns="user_id"), {}, "interactions have no column 'user_id'"),
        (
            ITEMS,
            LOG,
            {"text": ("titel",)},
            "no column 'titel', which data.text names: did you mean",
        ),
        (ITEMS, LOG, {"image": "foto"}, "no column 'foto', which data.image names"),
        (
            ITEMS,
            LOG,
            {"attributes": {"year": AttributeConfig("number")}},
            "no column 'year', which data.attributes.year names",
        ),
        (
            ITEMS.assign(item_id="a"),
            LOG,
            {},
            "1 repeated ids (got 'a'): keep one row of each; this one is in rows 0 and 1",
        ),
        (
            ITEMS.assign(item_id=["a", None]),
            LOG,
            {},
            "items have 1 rows without item_id (got 'row 1')",
        ),
        (ITEMS.assign(item_id=["a", ""]), LOG, {}, "items have 1 rows without item_id"),
        (ITEMS, LOG.assign(user_id=[np.nan, "v"]), {}, "interactions have 1 rows without user_id"),
        (ITEMS, LOG.assign(item_id=[["a"], ["b"]]), {}, "column 'item_id' holds lists"),
        (
            ITEMS,
            LOG.assign(item_id=["p", "q"]),
            {},
            "first unknown item 'p', first catalogue item 'a'",
        ),
        (ITEMS, LOG.assign(weight=[1, -1]), {}, "missing or infinite weight (got '-1.0 in row 1')"),
        (
            ITEMS,
            LOG.assign(weight=[1, np.nan]),
            {},
            "missing or infinite weight (got 'nan in row 1')",
        ),
        (
            ITEMS,
            LOG.assign(weight=[np.inf, 1]),
            {},
            "missing or infinite weight (got 'inf in row 0')",
        ),
        (
            ITEMS,
            LOG.assign(weight=[1e39, 1]),
            {},
            "a weight above 1e+09 (got '1e+39 in row 0')",
        ),
        (ITEMS, LOG.assign(weight=["1", "two"]), {}, "has no number in row 1 (got 'two')"),
        (ITEMS, LOG.assign(weight=0), {}, "every interaction has weight 0"),
        (ITEMS, LOG.assign(rating=[1, -1]), {}, "missing or infinite rating"),
        (ITEMS, LOG.assign(split=["train", "validation"]), {}, "did you mean 'valid'"),
        (ITEMS, LOG.assign(split=["train", None]), {}, "1 rows of an unknown split"),
        (ITEMS, LOG, {"positive": "rating >= 3"}, "interactions have no column 'rating'"),
        (ITEMS, LOG.assign(rating=1), {"positive": "rating >= 3"}, "no interaction is positive"),
        (
            ITEMS,
            LOG.assign(timestamp=["2020-01-01", "soon"]),
            {},
            "holds no time in row 1 (got 'soon')",
        ),
        (ITEMS, LOG.assign(timestamp=[1.0, np.inf]), {}, "holds no time in row 1"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    items: pd.DataFrame, log: pd.DataFrame, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        build(items, log, **config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_users_must_have_distinct_ids() -> None:
    users = pd.DataFrame({"user_id": ["u", "u"]})
    with pytest.raises(DataError, match="users have 1 repeated ids"):
        Catalog.from_pandas(ITEMS, LOG, users)


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        ([1, 20], ["1", "20"]),
        ([1.0, 20.0], ["1", "20"]),
        (pd.array([1, 20], dtype="Int64"), ["1", "20"]),
        (["007", "7"], ["007", "7"]),
        ([7, "007"], ["7", "007"]),
        (["茶 壺", " é "], ["茶 壺", " é "]),
        (["NA", "null"], ["NA", "null"]),
        (pd.Categorical(["x", "y"]), ["x", "y"]),
        ([2**63 - 1, 2**53 + 1], ["9223372036854775807", "9007199254740993"]),
        (["café".encode(), b"\xff"], ["café", "\\xff"]),
    ],
)
def test_ids_are_texts_just_as_they_are(ids: Any, texts: list[str]) -> None:
    frame = pd.DataFrame({"item_id": ids})
    catalog = Catalog.from_pandas(frame, frame.assign(user_id=ids, split="train"))
    assert catalog.item_ids.tolist() == texts
    assert catalog.user_ids.tolist() == sorted(texts)
    assert catalog.matrix().nnz == 2


def test_half_a_character_is_refused_in_one_line() -> None:
    cut = pd.DataFrame({"item_id": ["a", "x\ud83c"]}, dtype=object)
    with pytest.raises(DataError, match="'item_id' holds half a character"):
        Catalog.from_pandas(cut, LOG)


@pytest.mark.parametrize("missing", [slice(None), slice(1, None)])
def test_missing_times_may_be_those_of_whole_numbers(missing: slice) -> None:
    times = pd.Series(pd.array([1, 2], dtype="Int64"))
    times[missing] = pd.NA
    catalog = build(log=LOG.assign(timestamp=times))
    assert catalog.interactions["timestamp"].isna().tolist() == times.isna().tolist()
    assert audit(catalog).leakage["test_before_train"] == 0.0


def test_ids_may_be_the_index() -> None:
    assert build(ITEMS.set_index("item_id")).item_ids.tolist() == ["a", "b"]


def test_ids_that_become_the_same_text_are_duplicates() -> None:
    with pytest.raises(DataError, match=r"repeated ids \(got '1'\)"):
        build(pd.DataFrame({"item_id": [1, "1"]}), LOG)


@pytest.mark.parametrize(
    ("cells", "noted"),
    [
        (["red;blue", "green; red", "blue"], "'red;blue' as one value: if it is several"),
        (["red, blue", "green", None], None),
        (["red, blue", "green, red"], "'red, blue' as one value"),
        (["red, blue", "green|red, dark"], None),
        ([["red, dark"], ["green", "blue, pale"]], None),
        (["red", "green"], None),
        ([None, None], None),
    ],
)
def test_values_that_seem_parted_by_something_else_are_noted(cells: Any, noted: str | None) -> None:
    items = pd.DataFrame({"item_id": list("abc")[: len(cells)], "tags": cells})
    notices: list[str] = []
    clean_items(items, DataConfig(attributes={"tags": AttributeConfig("multi")}), notices)
    assert len(notices) == (noted is not None)
    assert (noted or "") in "".join(notices)


def test_what_a_pattern_does_not_find_is_noted() -> None:
    items = pd.DataFrame({"item_id": list("abcd"), "price": ["$9.50", "free", " ", None]})
    config = DataConfig(attributes={"price": AttributeConfig("number", pattern=r"([\d.]+)")})
    notices: list[str] = []
    clean_items(items, config, notices)
    (notice,) = notices
    assert "price is no finite number in 1 items, first item 'b' with 'free': taken as" in notice


def test_a_split_that_leaves_no_item_cold_says_so() -> None:
    rows = [(f"u{u}", f"i{i}", float(i // 17)) for u in range(4) for i in range(20)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    items = pd.DataFrame({"item_id": log["item_id"].unique()})
    noted = "no item is cold in test: they arrive at the same moments, or are too few"
    tied = build(items, log, split=SplitConfig("cold_after"))
    assert noted in tied.notices
    apart = build(items, log.assign(timestamp=log.index % 20), split=SplitConfig("cold_after"))
    assert not [notice for notice in apart.notices if "no item is cold" in notice]


def test_rows_with_unknown_items_are_dropped_and_counted() -> None:
    log = pd.concat([LOG, LOG.assign(item_id=["zz", "y"])])
    catalog = build(log=log)
    assert len(catalog.interactions) == 2
    (notice,) = catalog.notices
    assert notice.startswith("2 interactions with items that are not in the catalogue")
    assert notice.endswith("first item 'zz'")


def test_columns_that_are_not_named_are_carried_along() -> None:
    catalog = build(ITEMS[["title", "photo", "item_id"]], LOG.assign(event="buy", device="phone"))
    assert list(catalog.items) == ["item_id", "title", "photo"]
    assert list(catalog.interactions) == [
        "user_id",
        "item_id",
        "weight",
        "split",
        "event",
        "device",
    ]


def test_rating_weighs_unless_it_was_the_condition() -> None:
    log = LOG.assign(rating=[4, 5])
    assert build(log=log).interactions["weight"].tolist() == [4, 5]
    judged = build(log=log, positive="rating > 4").interactions
    assert judged["weight"].tolist() == [1]
    both = build(log=log.assign(weight=[0.5, 2])).interactions
    assert both["weight"].tolist() == [0.5, 2]
    assert build().interactions["weight"].tolist() == [1, 1]


def test_a_rating_that_is_not_positive_need_not_be_a_weight() -> None:
    catalog = build(log=LOG.assign(rating=[-1.0, 8]), positive="rating >= 0")
    assert catalog.interactions["item_id"].tolist() == ["b"]
    assert catalog.notices == ("1 of 2 interactions are not rating >= 0",)


def test_rows_of_weight_zero_are_dropped() -> None:
    catalog = build(log=LOG.assign(weight=[0, 3]))
    assert catalog.warm.tolist() == [False, False]
    assert catalog.notices == ("1 interactions of weight 0 were dropped",)


def test_times_are_seconds() -> None:
    for times in (
        ["1970-01-01T00:01", "1970-01-02"],
        pd.to_datetime(["1970-01-01 00:01", "1970-01-02 00:00"]),
        [60, 86400],
        ["60", "86400"],
    ):
        log = build(log=LOG.assign(timestamp=times)).interactions
        assert log["timestamp"].tolist() == [60, 86400]


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (["2500", "2600"], [2500, 2600]),
        (["2500-01-01", None], [16725225600, np.nan]),
        (["20200101", "1600000000"], [20200101, 1600000000]),
    ],
)
def test_times_far_off_and_numbers_that_look_like_dates(cells, seconds) -> None:
    found = as_seconds(pd.Series(cells, name="t", dtype=object), "log")
    np.testing.assert_array_equal(found.to_numpy(np.float64), seconds)


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        (["1", "2", "soon"], "row 2 (got 'soon')"),
        (["2020-01-01", "soon", "2020-01-02"], "row 1 (got 'soon')"),
        (["2020-01-01", "2020-01-02", "1600000000"], "row 2 (got '1600000000')"),
    ],
)
def test_the_cell_that_is_no_time_is_named(cells, wrong) -> None:
    with pytest.raises(DataError, match=re.escape(wrong)):
        as_seconds(pd.Series(cells, name="t", dtype=object), "log")


def test_a_small_number_is_no_date() -> None:
    texts = ["1700000000", "12", "2020-01-02", "123456789", "12345678"]
    assert is_date(pd.Series(texts)).tolist() == [True, False, True, True, False]


def test_times_in_milliseconds_get_a_hint() -> None:
    ms = build(ITEMS, LOG.assign(timestamp=[1_600_000_000_000, 1_600_000_001_000]))
    assert "if they are milliseconds, divide them by 1,000" in "".join(ms.notices)
    assert not build(ITEMS, LOG.assign(timestamp=[1_600_000_000, 1_600_000_001])).notices


def test_a_rating_weighs_unless_it_has_judged() -> None:
    log = LOG.assign(split="train", rating=[2.0, 5.0], event="buy")
    for positive, weights in ((None, [2, 5]), ("event == 'buy'", [2, 5]), ("rating >= 2", [1, 1])):
        assert build(log=log, positive=positive).interactions["weight"].tolist() == weights


def test_a_large_weight_that_models_can_take_is_kept() -> None:
    assert build(ITEMS, LOG.assign(weight=[1e9, 1])).matrix("train", "valid", "test").max() == 1e9


@pytest.mark.parametrize("table", ["items", "interactions"])
@pytest.mark.parametrize("column", ["item_id", "note"])
def test_two_columns_of_one_name_are_refused(table: str, column: str) -> None:
    frames = {
        "items": pd.DataFrame({"item_id": ["a"], "note": ["x"]}),
        "interactions": pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "note": ["x"]}),
    }
    frames[table] = frames[table][[*frames[table], column]]
    with pytest.raises(DataError, match=rf"{table} have two columns of the same name.*{column}"):
        Catalog.from_pandas(frames["items"], frames["interactions"])


def test_dates_whose_order_is_not_told_are_noted() -> None:
    dates = ["13/01/2012", "01/05/2008", "3.7.2010", "05/05/2005", "2020-01-05", None]
    items = pd.DataFrame({"item_id": list("abcdef"), "out": dates})
    config = {"attributes": {"out": AttributeConfig("date")}}
    log = LOG.assign(split="train")
    said = [n for n in build(items, log, **config).notices if "month first" in n]
    assert said == [
        "attribute out has dates like '01/05/2008' in 2 items, which are read with the month "
        "first: write year-month-day"
    ]
    clear = items.assign(out=["2012-01-13", "2008-05-01", "2010-07-03", None, None, None])
    assert not [n for n in build(clear, log, **config).notices if "month first" in n]


@pytest.mark.parametrize("cell", ['["a", 1, "b"]', '["a", ["b"], "c"]', "['a', 2, 'b']"])
def test_a_written_list_of_other_things_than_texts_is_a_text(cell: str) -> None:
    assert in_line(pd.Series([cell])).tolist() == [cell]


def test_lists_that_a_csv_holds_as_texts_are_lists(tmp_path: Any) -> None:
    tags = [["gothic", "award"], ["award", "gothic"], ["a, b"], [], None]
    items = pd.DataFrame({"item_id": list("abcde"), "tags": tags, "title": "[REC]"})
    items.to_csv(tmp_path / "items.csv", index=False)  # as Python writes lists
    LOG.assign(split="train").to_csv(tmp_path / "interactions.csv", index=False)
    config = DataConfig(
        path=str(tmp_path), text=("title", "tags"), attributes={"tags": AttributeConfig("multi")}
    )
    catalog = Catalog.read(config)
    assert catalog.attribute_values("tags").tolist() == [
        *("gothic|award", "award|gothic", "a, b"),
        *(None, None),
    ]
    assert catalog.texts_of("title")[0] == "[REC]"
    has = Condition.parse("tags == 'gothic'").mask(catalog.items, "items")
    assert has.tolist() == [True, True, False, False, False]
