from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmalign.data import duplicates
from mmalign.data.audit import audit
from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.data.duplicates import duplicates_across_split, normalise_text
from mmalign.interfaces import Feature


def make(titles=None, images=None):
    """Items 0-2 are warm, 3 is cold in valid, 4 and 5 in test, 6 has no row."""
    items = pd.DataFrame({"item_id": list("abcdefg")})
    if titles:
        items["title"] = titles
    if images:
        items["image"] = images
    rows = [("u", "a", "train"), ("u", "b", "train"), ("u", "c", "train"), ("u", "a", "test")]
    rows += [("u", "d", "valid"), ("u", "e", "test"), ("u", "f", "test")]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    config = DataConfig(text=("title",) if titles else (), image="image" if images else None)
    return Catalog.from_pandas(items, log, config=config)


def pairs(found):
    return [(one.by, one.cold, one.warm) for one in found]


def test_texts_that_differ_by_case_and_signs():
    catalog = make(["Red Cup", "Blue cup", None, "red-cup!", "green cup", "BLUE  CUP", "red cup"])
    assert pairs(duplicates_across_split(catalog)) == [("text", "d", "a"), ("text", "f", "b")]


def test_texts_without_words_are_nothing():
    catalog = make(["...", "x", "y", "???", "-", None, None])
    assert duplicates_across_split(catalog) == ()


def test_pictures_by_their_bytes(tmp_path):
    catalog = make(images=[b"one", b"two", b"six", b"two", b"ten", b"four", b"one"])
    assert pairs(duplicates_across_split(catalog)) == [("picture", "d", "b")]


def test_features_by_cosine(monkeypatch):
    x = np.eye(7, 4, dtype=np.float32)
    x[3] = [0, 5, 0.2, 0]  # nearly parallel to b
    x[4] = [5, 1, 0, 0]  # a cosine of .981 with a
    x[5] = x[6] = 0
    feature = Feature(x, np.array([True] * 5 + [False] * 2))
    for block in (1, 2048):
        monkeypatch.setattr(duplicates, "_BLOCK", block)
        features = {"text.title": feature, "text.title@fame": feature, "genre": feature}
        found = duplicates_across_split(make(), features)
        assert pairs(found) == [("text.title", "d", "b")]
        assert found[0].similarity == pytest.approx(5 / np.sqrt(25.04))


def test_absent_features_equal_nothing():
    for present in ([0] * 7, [1] * 3 + [0] * 4, [0] * 3 + [1] * 4):  # neither, warm, or cold ones
        feature = Feature(np.ones((7, 3), np.float32), np.array(present, bool))
        assert duplicates_across_split(make(), {"image": feature}) == ()


@pytest.mark.parametrize(
    ("text", "normal"),
    [("Amélie", "amelie"), ("A_b-c", "a b c"), ("  x\n y ", "x y"), ("Ⅳ", "iv"), ("猫", "猫")],
)
def test_normal_form(text, normal):
    assert normalise_text(text) == normal


def test_the_audit_says_so():
    found = audit(make(["Red Cup", "x", "y", "red cup", "z", "w", "v"]))
    assert pairs(found.across_split) == [("text", "d", "a")]
    line = next(line for line in found.lines() if line.startswith("across split"))
    assert line == "across split  cold items that equal a warm one: text 1 (d = a)"
    assert found.to_dict()["across_split"][0]["cold"] == "d"
    assert not any("across" in warning for warning in found.warnings)
