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


def test_a_function_sees_the_columns_as_they_are(items):
    found = choose(items, np.ones(4, bool), "all", lambda f: f.price == "free", ATTRIBUTES)
    assert found.tolist() == [2]
    assert items.columns.tolist() == ["item_id", "title", "price", "genre", "weight"]


def test_an_unknown_name_is_told_the_attributes_too(items):
    with pytest.raises(DataError, match="no column 'yaer': did you mean 'year'"):
        choose(items, np.ones(4, bool), "all", "yaer > 1980", ATTRIBUTES)
