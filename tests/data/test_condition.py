from __future__ import annotations

import operator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.data import Condition, DataConfig
from mmalign.errors import ConfigError, DataError

OPERATORS = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
NUMBERS = st.floats(-9, 9).map(lambda x: round(x, 1))


@given(
    cells=st.lists(NUMBERS | st.none(), min_size=1),
    symbol=st.sampled_from(list(OPERATORS)),
    bound=NUMBERS,
    space=st.sampled_from(["", " ", "  "]),
)
def test_a_number_compares_as_in_python(
    cells: list[float | None], symbol: str, bound: float, space: str
) -> None:
    mask = Condition.parse(f"x{space}{symbol}{space}{bound}").mask(
        pd.DataFrame({"x": pd.Series(cells, dtype=np.float64)})
    )
    assert mask.tolist() == [c is not None and bool(OPERATORS[symbol](c, bound)) for c in cells]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_text_is_equal_or_not(quote: str) -> None:
    frame = pd.DataFrame({"event type": ["buy", "view", None]})
    same = Condition.parse(f"event type == {quote}buy{quote}")
    other = Condition.parse(f"event type != {quote}buy{quote}")
    assert same.mask(frame).tolist() == [True, False, False]
    assert other.mask(frame).tolist() == [False, True, False]


def test_a_quoted_number_is_a_text() -> None:
    assert Condition.parse("x == '5'").mask(pd.DataFrame({"x": [5.0, 6.0]})).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rating",
        "rating >=",
        ">= 3",
        "rating => 3",
        "rating = 3",
        "rating >= three",
        "rating >= 3 and x > 1",
        "rating > '3'",
        "rating == 'a' 'b'",
        "__import__('os')",
        "rating >= 1e",
    ],
)
def test_anything_else_is_refused_before_the_data_is_read(text: str) -> None:
    with pytest.raises(ConfigError):
        DataConfig(positive=text)


def test_the_column_must_be_there_and_fit() -> None:
    with pytest.raises(DataError, match="did you mean 'rating'"):
        Condition.parse("ratng > 1").mask(pd.DataFrame({"rating": [1]}))
    with pytest.raises(DataError, match=r"no number in row 0 \(got 'good'\)"):
        Condition.parse("rating > 1").mask(pd.DataFrame({"rating": ["good"]}))


@pytest.mark.parametrize(
    "cells",
    [
        ["Comedy|Drama", "Dark Comedy", "Drama", None],
        ["Drama | Comedy ", "Dark Comedy", "Drama", None],
        [["Comedy", "Drama"], ["Dark Comedy"], ["Drama"], None],
        [np.array(["Drama", "Comedy"]), np.array(["Dark Comedy"]), np.array([]), None],
    ],
    ids=["bars", "spaces", "lists", "arrays"],
)
def test_a_cell_of_several_values_is_equal_to_each(cells: list[object]) -> None:
    frame = pd.DataFrame({"genres": pd.Series(cells, dtype=object)})
    has = Condition.parse("genres == 'Comedy'").mask(frame, "items").tolist()
    has_not = Condition.parse("genres != 'Comedy'").mask(frame, "items").tolist()
    assert has == [True, False, False, False]
    assert has_not == [False, True, True, False]


def test_a_date_compares_with_dates_in_any_form() -> None:
    days = ["2020-05-31", "2020-06-01", "2020-06-02T10:00:00", None]
    later = Condition.parse("date > '2020-06-01'")
    assert later.mask(pd.DataFrame({"date": days})).tolist() == [False, False, True, False]
    stamps = pd.to_datetime(pd.Series(days), format="ISO8601")
    assert later.mask(pd.DataFrame({"date": stamps})).tolist() == [False, False, True, False]
    seconds = pd.DataFrame({"date": [1590969599.0, 1590969600.0, np.nan]})  # around that midnight
    not_before = Condition.parse("date >= '2020-06-01'")
    assert not_before.mask(seconds).tolist() == [False, True, False]
    with pytest.raises(DataError, match="holds no time in row 0"):
        later.mask(pd.DataFrame({"date": ["soon"]}))


def test_a_date_is_equal_to_itself_in_a_column_of_times() -> None:
    stamps = pd.to_datetime(pd.Series(["2020-05-31", "2020-06-01", None]))
    frame = pd.DataFrame({"date": stamps})
    for sign, expected in {
        "==": [False, True, False],
        "!=": [True, False, False],
        ">=": [False, True, False],
        "<=": [True, True, False],
    }.items():
        condition = Condition.parse(f"date {sign} '2020-06-01'")
        assert condition.mask(frame).tolist() == expected, sign


def test_a_missing_value_in_a_list_is_no_value() -> None:
    genres = pd.Series([["Drama", None], [None], np.array(["None", np.nan], dtype=object)])
    frame = pd.DataFrame({"genres": genres})
    for text, expected in {
        "genres == 'None'": [False, False, True],
        "genres != 'None'": [True, True, False],
        "genres == 'Drama'": [True, False, False],
    }.items():
        assert Condition.parse(text).mask(frame, "items").tolist() == expected, text
