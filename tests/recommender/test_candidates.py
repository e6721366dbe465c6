"""Which items pass a filter."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmalign.data.config import AttributeConfig
from mmalign.errors import DataError
from mmalign.recommender.candidates import choose

ATTRIBUTES = {
    "year": AttributeConfig("number", column="title", pattern=r"\((\d{4})\)"),
    "price": AttributeConfig("number", pattern=r"\$([\d.]+)"),
    "kind": AttributeConfig("category", column="genre"),
    "weight": AttributeConfig("number"),
}


@pytest.fixture
def items() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": list("abcd"),
            "title": ["Alien (1979)", "Heat (1995)", "Untitled", None],
            "price": ["$14.11", "$9.50", "free", "$10"],
            "genre": ["space", "crime", "space", "crime"],
            "weight": [1.0, 2.0, 3.0, np.nan],
        }
    )


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("year >= 1980", [1]),
        ("year != 1979", [1]),
        ("price < 12", [1, 3]),
        ("kind == 'space'", [0, 2]),
        ("genre == 'space'", [0, 2]),
        ("weight > 1", [1, 2]),
    ],
)
def test_a_condition_reads_what_an_attribute_is_made_of(items, condition, rows):
    assert choose(items, np.ones(4, bool), "all", condition, ATTRIBUTES).tolist() == rows


@pytest.mark.parametrize(
    ("condition", "rows"),
    [("stock > 0", [0, 2]), ("added > '2024-01-01'", [1]), ("added == 'soon'", [2])],
)
def test_a_cell_that_cannot_be_read_is_missing(items, condition, rows):
    items["stock"] = ["3", "abc", 1, None]
    items["added"] = ["2023-05-01", "2024-05-01", "soon", None]
    assert choose(items, np.ones(4, bool), "all", condition, ATTRIBUTES).tolist() == rows


def test_a_column_of_which_no_cell_can_be_read_is_refused(items):
    with pytest.raises(DataError, match="column 'genre' of the items has no number in row 0"):
        choose(items, np.ones(4, bool), "all", "genre > 3", ATTRIBUTES)


def test_a_function_sees_the_columns_as_they_are(items):
    found = choose(items, np.ones(4, bool), "all", lambda f: f.price == "free", ATTRIBUTES)
    assert found.tolist() == [2]
    assert items.columns.tolist() == ["item_id", "title", "price", "genre", "weight"]


def test_an_unknown_name_is_told_the_attributes_too(items):
    with pytest.raises(DataError, match="no column 'yaer': did you mean 'year'"):
        choose(items, np.ones(4, bool), "all", "yaer > 1980", ATTRIBUTES)
