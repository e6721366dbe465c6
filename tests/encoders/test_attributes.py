from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from mmalign.encoders import AttributeEncoder, AttributeSpec
from mmalign.errors import ConfigError, EncoderError


def encode(values, spec, rows=None):
    encoder = AttributeEncoder({"a": spec})
    index = np.arange(len(values)) if rows is None else rows
    return encoder.fit({"a": values}, index).transform({"a": values})["a"]


def test_category_is_one_hot_over_the_fitted_labels():
    feature = encode(["red", "blue", None, "green", "red"], "category", rows=[0, 1, 2, 4])
    assert feature.values.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0], [0, 1]]
    assert feature.present.tolist() == [True, True, False, False, True]


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), min_size=1, max_size=12),
    st.integers(1, 12),
)
def test_labels_are_encoded_as_scikit_learn_does(rows, fitted):
    encoder = AttributeEncoder({"a": "multi"}).fit(
        {"a": rows[:fitted]}, np.arange(len(rows[:fitted]))
    )
    got = encoder.transform({"a": rows})["a"]
    labels = sorted({label for row in rows[:fitted] for label in row})
    known = [[label for label in row if label in labels] for row in rows]
    expected = MultiLabelBinarizer(classes=labels).fit_transform(known)
    np.testing.assert_array_equal(got.values if labels else got.values[:, :0], expected)
    np.testing.assert_array_equal(got.present, expected.any(axis=1))


def test_a_boolean_mask_selects_the_fitted_rows():
    mask = np.array([True, False, True])
    assert encode(["a", "b", "c"], "category", rows=mask).values.tolist() == [
        [1, 0],
        [0, 0],
        [0, 1],
    ]


def test_multi_takes_pipes_and_lists():
    values = ["x|y", ["y", "z"], ("x",), "", [], np.array(["z", None]), "y | y"]
    feature = encode(values, "multi")
    expected = [[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert feature.values.tolist() == expected
    assert feature.present.tolist() == [True, True, True, False, False, True, True]


def test_a_known_label_counts_when_another_is_unknown():
    feature = encode(["x|y", "x|new", "new"], "multi", rows=[0])
    assert feature.values.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert feature.present.tolist() == [True, True, False]


def test_whole_numbers_are_the_same_label_with_and_without_gaps():
    # A gap turns pandas' integers into floats.
    encoder = AttributeEncoder({"a": "category"}).fit({"a": pd.Series([1, 2])}, [0, 1])
    feature = encoder.transform({"a": pd.Series([1, None, 2])})["a"]
    assert feature.values.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_only_the_most_frequent_labels_are_kept():
    feature = encode(["a", "b", "b", "c", "c"], AttributeSpec("category", max_labels=2))
    assert feature.values.sum(axis=0).tolist() == [2, 2]
    assert not feature.present[0]


def test_of_labels_as_frequent_the_first_in_the_alphabet_are_kept():
    feature = encode(["c", "b", "a", "b", "a", "c"], AttributeSpec("category", max_labels=2))
    assert feature.values.tolist() == [[0, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 0]]


def test_number_worked_by_hand():
    # Fitted on 0..100: 1st and 99th percentile 1 and 99; width 49 puts centres at 1, 50, 99.
    values = np.arange(101.0)
    feature = encode(values, AttributeSpec("number", width=49, shape="gauss"))
    clipped = np.clip(values, 1, 99)
    expected = [(clipped - clipped.mean()) / clipped.std()]
    expected += [np.exp(-(((clipped - centre) / 49) ** 2)) for centre in (1, 50, 99)]
    np.testing.assert_allclose(feature.values, np.transpose(expected), atol=1e-6)


def test_laplace_features_have_the_laplace_kernel_as_inner_product():
    # Fitted on 0..100 with width 8: the grid is every 1 from 1 to 99.
    values = np.arange(101.0)
    feature = encode(values, AttributeSpec("number", width=8)).values[1:100]
    expected = np.exp(-np.abs(values[1:100, None] - values[1:100]) / 8)
    np.testing.assert_allclose(feature @ feature.T, expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "parts"), [("laplace", 6), ("gauss", 12)])
def test_default_width_is_a_part_of_the_middle_range(shape, parts):
    spec = AttributeSpec("number", shape=shape)
    encoder = AttributeEncoder({"a": spec}).fit({"a": np.arange(101.0)}, np.arange(101))
    assert encoder.to_dict()["a"]["learned"]["width"] == pytest.approx((95 - 5) / parts)


@pytest.mark.parametrize(("shape", "most"), [("laplace", 258), ("gauss", 50)])
def test_long_tails_do_not_make_many_columns(shape, most):
    values = np.concatenate([np.linspace(0, 1, 950), np.geomspace(1, 1e9, 50)])
    assert encode(values, AttributeSpec("number", shape=shape)).values.shape[1] <= most


def test_values_out_of_range_are_the_extremes():
    values = [*range(101), 1e9, -1e9]
    feature = encode(values, "number", rows=np.arange(101))
    np.testing.assert_array_equal(feature.values[101], feature.values[100])
    np.testing.assert_array_equal(feature.values[102], feature.values[0])


def test_a_constant_number():
    assert encode([5, 5, 5], "number").values.tolist() == [[1]] * 3
    gauss = encode([5, 5, 5], AttributeSpec("number", shape="gauss"))
    assert gauss.values.tolist() == [[0, 1]] * 3


def test_cold_rows_do_not_change_what_is_learned():
    warm = ["1990", "2000", "2010", "1950"]
    one = AttributeEncoder({"a": "number"}).fit({"a": [*warm, 1e6]}, [0, 1, 2, 3])
    two = AttributeEncoder({"a": "number"}).fit({"a": [*warm, None]}, [0, 1, 2, 3])
    assert one.to_dict() == two.to_dict()


def test_missing_and_unusable_numbers_are_absent_and_told_apart():
    values = pd.Series([1.0, None, np.nan, np.inf, -np.inf, "seven", "7", "", 1e300], dtype=object)
    encoder = AttributeEncoder({"a": "number"}).fit({"a": values}, [0, 6])
    feature = encoder.transform({"a": values})["a"]
    assert np.flatnonzero(feature.present).tolist() == [0, 6]
    assert not feature.values[~feature.present].any()
    assert set(encoder.problems({"a": values})["a"]) == {3, 4, 5, 8}
    assert "'seven'" in encoder.problems({"a": values})["a"][5]


def test_dates_of_every_kind_are_days():
    texts = ["2020-01-01", "2020-01-11", "1 Jan 2020", None, "never", "2020-01-01T12:00:00+00:00"]
    spec = AttributeSpec("date", width=5)
    encoder = AttributeEncoder({"a": spec}).fit({"a": texts}, [0, 1])
    feature = encoder.transform({"a": texts})["a"]
    assert feature.present.tolist() == [True, True, True, False, False, True]
    np.testing.assert_array_equal(feature.values[0], feature.values[2])
    assert encoder.problems({"a": texts}) == {"a": {4: "not a date: 'never'"}}
    learned = encoder.to_dict()["a"]["learned"]
    assert learned["low"] == pytest.approx(18262 + 0.1)  # days from 1970 to 2020, 1st percentile
    times = pd.Series(pd.to_datetime(texts[:2]))
    np.testing.assert_array_equal(encoder.transform({"a": times})["a"].values, feature.values[:2])
    seconds = pd.Series([1577836800, 1578700800])
    np.testing.assert_allclose(encoder.transform({"a": seconds})["a"].values, feature.values[:2])
    mixed = [1577836800, "1578700800"]
    np.testing.assert_allclose(encoder.transform({"a": mixed})["a"].values, feature.values[:2])


@pytest.mark.parametrize("kind", ["category", "multi", "number", "date"])
def test_an_attribute_without_a_value_is_absent_everywhere(kind):
    feature = encode([None, None], kind)
    assert feature.values.shape == (2, 1)
    assert not feature.values.any()
    assert not feature.present.any()


@pytest.mark.parametrize("kind", ["category", "multi", "number", "date"])
def test_no_rows_at_all(kind):
    assert len(encode([], kind).values) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AttributeEncoder({"a": "colour"}), "no such attribute kind"),
        (lambda: AttributeSpec("number", width=0), "width must be positive"),
        (lambda: AttributeSpec("number", width=float("nan")), "width must be positive"),
        (lambda: AttributeSpec("multi", max_labels=0), "max_labels"),
        (lambda: AttributeEncoder({"a": "number"}).fit({"b": [1]}, [0]), "no values"),
        (lambda: AttributeEncoder({"a": "number"}).transform({"a": [1]}), "not fitted"),
        (
            lambda: encode([0.0, 1e6], AttributeSpec("number", width=1, shape="gauss")),
            "more than 512 columns",
        ),
        (
            lambda: encode(range(2001), AttributeSpec("number", width=10)),
            r"too small a width for values from 20 to 1980 \(got 10.*\): pass a width of 15\.3",
        ),
    ],
)
def test_wrong_use_is_one_line(call, message):
    with pytest.raises(EncoderError, match=message):
        call()


def test_a_damaged_description_is_refused():
    with pytest.raises(ConfigError, match="unknown key"):
        AttributeEncoder.from_dict({"a": {"spec": {"kind": "number", "widht": 3}}})


CELLS = st.one_of(
    st.none(),
    st.floats(),
    st.integers(-(10**20), 10**20),
    st.text(max_size=6),
    st.sampled_from(["a|b", "b", "1995", "2001-02-03", "nan", "inf"]),
    st.booleans(),
    st.dates(),
)
LISTS = st.lists(
    st.one_of(CELLS, st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)), min_size=1
)


@settings(max_examples=50)
@given(values=st.lists(CELLS, min_size=1, max_size=30), kind=st.sampled_from(["number", "date"]))
def test_any_number_or_date_is_finite_and_absent_rows_are_zero(values, kind):
    check(values, kind)


@settings(max_examples=50)
@given(values=LISTS, kind=st.sampled_from(["category", "multi"]))
def test_any_label_is_finite_and_absent_rows_are_zero(values, kind):
    check(values, kind)


def check(values, kind):
    series = pd.Series(values, dtype=object)
    rows = np.arange(0, len(values), 2)
    encoder = AttributeEncoder({"a": kind}).fit({"a": series}, rows)
    feature = encoder.transform({"a": series})["a"]
    assert feature.values.dtype == np.float32
    assert feature.values.shape[0] == len(values) == len(feature.present)
    assert np.isfinite(feature.values).all()
    assert not feature.values[~feature.present].any()
    assert feature.values[feature.present].any(axis=1).all()
    # Fitted rows that can be read are present; each row is encoded on its own.
    alone = encoder.transform({"a": series.iloc[[-1]]})["a"]
    np.testing.assert_allclose(alone.values[0], feature.values[-1], atol=1e-6)
    rebuilt = AttributeEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    again = rebuilt.transform({"a": series})["a"]
    np.testing.assert_array_equal(again.values, feature.values)
    np.testing.assert_array_equal(again.present, feature.present)
    assert rebuilt.to_dict() == encoder.to_dict()
    problems = encoder.problems({"a": series}).get("a", {})
    assert not feature.present[list(problems)].any()


@given(st.lists(st.floats(1900, 2020), min_size=5, max_size=50))
def test_neighbouring_numbers_are_alike(values):
    feature = encode(values, AttributeSpec("number", width=7, shape="gauss"))
    bumps = feature.values[:, 1:].astype(np.float64)
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    order = np.argsort(values)
    nearest = (bumps[order[0]] * bumps[order[1]]).sum()
    farthest = (bumps[order[0]] * bumps[order[-1]]).sum()
    assert nearest >= farthest - 1e-2


def test_the_smallest_laplace_width_still_tells_values_apart():
    values = np.arange(0.0, 2001.0)
    rows = encode(values, AttributeSpec("number", width=16)).values[100:1900]
    lengths = (rows**2).sum(axis=1)
    assert lengths.min() > 0.7
    assert lengths.max() < 1.001
