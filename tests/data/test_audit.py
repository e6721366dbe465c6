from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmalign.data import AttributeConfig, Catalog, DataConfig, audit
from mmalign.interfaces import Feature

ROWS = [
    ("u", "a", "train", 10),
    ("u", "a", "train", 11),  # a repeated row
    ("u", "b", "train", 30),
    ("u", "c", "test", 20),  # older than the user's last train row
    ("v", "a", "train", 10),
    ("v", "a", "test", 40),  # a pair in two splits
    ("w", "d", "valid", 5),  # a user without a train row
    ("w", "d", "test", 6),  # an item in valid and test alone
]


def make(tmp_path: Path, rows: list[Any] = ROWS, **changes: Any) -> Catalog:
    for name, content in (("1", b"one"), ("2", b"two"), ("3", b"one"), ("4", b"")):
        (tmp_path / name).write_bytes(content)
    items = pd.DataFrame(
        {
            "item_id": list("abcde"),
            "title": ["Tea", "Cup", "Tea", None, ""],
            "photo": ["1", "2", "3", "4", "absent"],
            "price": [1, np.nan, np.inf, 2, 3],
        }
    )
    settings: dict[str, Any] = {
        "text": ("title",),
        "image": "photo",
        "attributes": {"price": AttributeConfig("number")},
    }
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split", "timestamp"])
    config = DataConfig(**{**settings, **changes})
    return Catalog.from_pandas(items, log if len(rows) else None, config=config, root=tmp_path)


def test_the_findings_by_hand(tmp_path: Path) -> None:
    found = audit(make(tmp_path))
    assert found.counts == {
        "users": 3,
        "items": 5,
        "interactions": 8,
        "train": 4,
        "valid": 1,
        "test": 3,
        "warm_items": 2,
        "cold_items": 3,
        "users_without_train": 1,
    }
    assert found.coverage == {"text": 0.6, "image": 0.6, "price": 0.6}
    assert found.cold_share == pytest.approx({"items": 0.6, "valid": 1, "test": 2 / 3})
    assert found.duplicates == {"rows": 1, "texts": 1, "images": 1}
    # of the three test rows, c is older; w has no train row to be older than
    assert found.leakage == pytest.approx({"pairs": 2, "test_before_train": 1 / 3})
    # two users took a, one took b: the mean difference is 1 over 4 pairs, twice, the mean 1.5
    assert found.popularity == pytest.approx({"gini": 1 / 6, "top_tenth": 2 / 3})
    assert found.ok
    assert [line.split(":")[0] for line in found.warnings] == [
        "2 user-item pairs are in more than one split",
        "1 users have no train row",
        "1 items without a train row are in valid and in test",
    ]


def test_the_top_tenth_is_rounded() -> None:
    """Of fifteen items two: four users took the first, three the second, one each other."""
    takers = [4, 3, *[1] * 13]
    rows = [(f"u{user}", f"i{item}") for item, n in enumerate(takers) for user in range(n)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(split="train")
    assert audit(Catalog.from_pandas(None, log)).popularity["top_tenth"] == pytest.approx(7 / 20)


def test_what_looks_like_a_finding_and_is_none() -> None:
    log = pd.DataFrame(
        [
            ("u", "a", "train", 5),
            ("u", "b", "test", 5),  # as old as the last train row, not older
            ("v", "b", "train", 1),
            ("v", "a", "test", 2),  # a warm item in all parts, but with other users
            ("w", "c", "train", 1),
            ("w", "a", "valid", 2),
        ],
        columns=["user_id", "item_id", "split", "timestamp"],
    )
    found = audit(Catalog.from_pandas(None, log))
    assert found.warnings == ()
    assert found.leakage == {"pairs": 0, "test_before_train": 0}


def test_the_findings_are_lines_and_plain_values(tmp_path: Path) -> None:
    found = audit(make(tmp_path))
    text = "\n".join(found.lines())
    assert "items         5 (3 cold, 60.0%)" in text
    assert "interactions  8 (train 4, valid 1, test 3)" in text
    assert "text 60.0%, image 60.0%, price 60.0%" in text
    assert "33.3% of test rows older" in text
    assert "note: attribute price is no finite number" in text
    assert text.count("warning: ") == 3
    assert json.loads(json.dumps(found.to_dict()))["counts"]["users"] == 3
    assert found.to_dict()["ok"] is True


def test_a_clean_catalogue_has_nothing_to_say() -> None:
    log = pd.DataFrame({"user_id": list("uuu"), "item_id": list("abc")})
    found = audit(Catalog.from_pandas(None, log.assign(split=["train", "valid", "test"])))
    assert (found.errors, found.warnings, found.notices) == ((), (), ())
    assert found.coverage == {}
    assert "test_before_train" not in found.leakage
    assert not any(line.startswith("coverage") for line in found.lines())


@pytest.mark.parametrize(
    ("rows", "changes", "error"),
    [
        ([], {}, "there are no interactions"),
        ([("u", "a", "test", 1)], {}, "there are no train rows"),
        (ROWS, {"image": "title"}, "no item has a picture: column 'title', looked for in "),
        (
            ROWS,
            {"attributes": {"year": AttributeConfig("number", "title", r"(\d{4})")}},
            "no item has the attribute year",
        ),
    ],
)
def test_what_cannot_work_is_an_error(
    tmp_path: Path, rows: list[Any], changes: dict[str, Any], error: str
) -> None:
    catalog = make(tmp_path, rows, **changes)
    found = audit(catalog)
    assert not found.ok
    assert len(found.errors) == 1
    assert found.errors[0].startswith(error)
    assert found.lines()[-1] == f"error: {found.errors[0]}"


def test_a_text_that_no_item_has_is_an_error() -> None:
    items = pd.DataFrame({"item_id": ["a"], "title": [None]})
    log = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "split": ["train"]})
    found = audit(Catalog.from_pandas(items, log, config=DataConfig(text=("title",))))
    assert found.errors == ("no item has a text: columns title",)
    assert found.warnings[0].startswith("there are no valid rows")


@pytest.mark.parametrize(
    ("values", "present", "error"),
    [
        (np.zeros((4, 2)), np.ones(4, bool), "feature text has 4 rows for 5 items"),
        (np.full((5, 2), np.nan), np.ones(5, bool), "feature text holds values that are NaN"),
        (np.zeros((5, 2)), np.zeros(5, bool), "feature text is present in no item"),
    ],
)
def test_features_that_cannot_work_are_errors(
    tmp_path: Path, values: Any, present: Any, error: str
) -> None:
    found = audit(make(tmp_path), {"text": Feature(values.astype(np.float32), present)})
    assert found.errors[0].startswith(error)


def test_encoded_features_decide_the_coverage(tmp_path: Path) -> None:
    present = np.array([True, False, False, False, False])
    found = audit(make(tmp_path), {"image": Feature(np.eye(5, 3, dtype=np.float32), present)})
    assert found.coverage["image"] == 0.2
    assert found.ok


def test_pictures_in_memory_are_compared_too() -> None:
    items = pd.DataFrame({"item_id": list("abc"), "image": [b"x", b"x", b"y"]})
    found = audit(Catalog.from_pandas(items, None, config=DataConfig(image="image")))
    assert found.duplicates["images"] == 1
    assert found.coverage["image"] == 1


def test_a_log_with_times_but_without_test_rows(tmp_path: Path) -> None:
    found = audit(make(tmp_path, [row for row in ROWS if row[2] != "test"]))
    assert found.leakage["test_before_train"] == 0
    assert "there are no test rows: nothing can be measured on test" in found.warnings


def test_a_date_that_cannot_be_read_does_not_count_as_there(tmp_path: Path) -> None:
    items = pd.DataFrame(
        {
            "item_id": list("abcde"),
            "date": ["1994-03-01", "soon", None, "1700000000", "5 May 2001"],
        }
    )
    log = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "split": ["train"]})
    config = DataConfig(attributes={"date": AttributeConfig("date")})
    catalog = Catalog.from_pandas(items, log, config=config)
    assert audit(catalog).coverage == {"date": 0.6}
    assert catalog.attribute_values("date").isna().tolist() == [False, True, True, False, False]
    assert catalog.notices == (
        "attribute date is no date in 1 items, first item 'b' with 'soon': taken as missing",
    )


def test_a_picture_whose_path_no_system_takes_is_one_that_is_not_there() -> None:
    items = pd.DataFrame(
        {"item_id": ["a", "b"], "image": ["data:image/png;base64," + "A" * 9000, "b.png"]}
    )
    catalog = Catalog.from_pandas(items, None, config=DataConfig(image="image"), root=".")
    assert audit(catalog).coverage == {"image": 0.0}
