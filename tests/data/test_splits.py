from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.data.splits import (
    SplitConfig,
    apply,
    cold_after,
    cold_items,
    global_time,
    leave_last,
    random_per_user,
)
from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import SPLITS

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 20)), min_size=1, max_size=60
)
SHARES = st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.4]), st.sampled_from([0.0, 0.1, 0.3, 0.5]))
SEEDS = st.integers(0, 3)
KINDS = ["random", "leave_last", "global_time", "cold_items", "cold_after"]


def frame(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return log.astype({"user_id": str, "item_id": str})


def parts_of(log: pd.DataFrame, labels: Any, column: str) -> dict[str, set[str]]:
    return {split: set(log[column][labels == split]) for split in SPLITS}


def num_parts_per_pair(log: pd.DataFrame, labels: Any) -> pd.Series:
    return log.assign(split=labels).groupby(["user_id", "item_id"])["split"].nunique()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, shares=SHARES, seed=SEEDS)
def test_every_row_gets_one_label_by_seed_alone(
    kind: Any, rows: list[tuple[int, int, int]], shares: tuple[float, float], seed: int
) -> None:
    config = SplitConfig(kind, valid=shares[0], test=shares[1], seed=seed)
    log = frame(rows)
    before = log.copy(deep=True)
    labels = apply(config, log)
    assert labels.shape == (len(log),)
    assert set(labels) <= set(SPLITS)
    assert labels.tolist() == apply(config, log.set_index(np.full(len(log), 7))).tolist()
    pd.testing.assert_frame_equal(log, before)


@pytest.mark.parametrize("kind", ["random", "leave_last", "cold_items", "cold_after"])
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, shares=SHARES, seed=SEEDS)
def test_no_user_item_pair_is_in_two_parts(
    kind: Any, rows: list[tuple[int, int, int]], shares: tuple[float, float], seed: int
) -> None:
    log = frame(rows)
    labels = apply(SplitConfig(kind, valid=shares[0], test=shares[1], seed=seed), log)
    assert (num_parts_per_pair(log, labels) == 1).all()


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, shares=SHARES, seed=SEEDS)
def test_random_gives_each_user_a_share_within_one_item(
    rows: list[tuple[int, int, int]], shares: tuple[float, float], seed: int
) -> None:
    log = frame(rows)
    labels = random_per_user(log, valid=shares[0], test=shares[1], seed=seed)
    pairs = log.assign(split=labels).drop_duplicates(["user_id", "item_id"])
    for _, mine in pairs.groupby("user_id"):
        size = len(mine)
        num = {split: int((mine["split"] == split).sum()) for split in SPLITS}
        assert num["train"] >= 1
        # a share is rounded either way, then cut to what train and test have left over
        test = {min(way(size * shares[1]), size - 1) for way in (math.floor, math.ceil)}
        assert num["test"] in test
        left = size - 1 - num["test"]
        assert num["valid"] in {min(way(size * shares[0]), left) for way in (math.floor, math.ceil)}


def test_random_keeps_its_shares_in_the_mean_even_for_short_histories() -> None:
    log = frame([(user, item, 0) for user in range(4000) for item in range(3)])
    labels = random_per_user(log, valid=0.1, test=0.2, seed=0)
    share = pd.Series(labels).value_counts(normalize=True)
    assert share["valid"] == pytest.approx(0.1, abs=0.01)
    assert share["test"] == pytest.approx(0.2, abs=0.01)


def test_random_draws_differ_by_seed() -> None:
    log = frame([(0, item, 0) for item in range(100)])
    first, second = (random_per_user(log, seed=seed) for seed in (0, 1))
    assert (first == "test").sum() == (second == "test").sum() == 10
    assert (first != second).any()


def test_leave_last_by_hand() -> None:
    log = frame(
        [
            (0, 0, 5),  # the latest of user 0
            (0, 1, 3),
            (0, 2, 4),  # the one before
            (0, 1, 1),  # belongs to item 1, whose latest time is 3
            (1, 0, 9),  # the only one of user 1
            (2, 0, 1),
            (2, 1, 1),  # same time, but the later row
            (3, 5, 1),  # taken again at 9, which makes it the last item
            (3, 6, 2),
            (3, 7, 3),
            (3, 5, 9),
        ]
    )
    expected = "test train valid train  train  train test  test train valid test"
    assert leave_last(log).tolist() == expected.split()


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_leave_last_tests_one_item_that_no_train_row_is_later_than(
    rows: list[tuple[int, int, int]],
) -> None:
    log = frame(rows)
    log["split"] = leave_last(log)
    for _, mine in log.groupby("user_id"):
        num_items = mine["item_id"].nunique()
        latest = mine.groupby("split")["timestamp"].max()
        items = mine.groupby("split")["item_id"].nunique()
        assert items.get("test", 0) == (num_items >= 2)
        assert items.get("valid", 0) == (num_items >= 3)
        order = [latest[split] for split in SPLITS if split in latest]
        assert order == sorted(order)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, shares=SHARES)
def test_global_time_never_looks_ahead(
    rows: list[tuple[int, int, int]], shares: tuple[float, float]
) -> None:
    log = frame(rows)
    labels = global_time(log, valid=shares[0], test=shares[1])
    times = [log["timestamp"][labels == split] for split in SPLITS]
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if len(times[earlier]) and len(times[later]):
            assert times[earlier].max() < times[later].min()
    share_test = len(times[2]) / len(log)
    assert share_test <= shares[1] + 1e-9
    assert len(times[0]) / len(log) >= 1 - sum(shares) - 1e-9


def test_global_time_by_shares_and_by_moments() -> None:
    log = frame([(0, i, i) for i in range(10)])
    assert global_time(log).tolist() == ["train"] * 8 + ["valid", "test"]
    # in floating point 1 - 0.2 - 0.1 is above 0.7, which must not move a row
    assert global_time(log, valid=0.2).tolist() == ["train"] * 7 + ["valid"] * 2 + ["test"]
    timed = global_time(log, train_until=3, valid_until="1970-01-01T00:00:05")
    assert timed.tolist() == ["train"] * 4 + ["valid"] * 2 + ["test"] * 4


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, shares=SHARES, seed=SEEDS)
def test_cold_items_are_exactly_those_drawn(
    rows: list[tuple[int, int, int]], shares: tuple[float, float], seed: int
) -> None:
    log = frame(rows)
    labels = cold_items(log, valid=shares[0], test=shares[1], seed=seed)
    found = parts_of(log, labels, "item_id")
    num_items = log["item_id"].nunique()
    cold_test = found["test"] - found["train"]
    cold_valid = found["valid"] - found["train"]
    assert not cold_test & cold_valid
    num_test = min(max(1, round(shares[1] * num_items)) if shares[1] else 0, num_items - 1)
    assert len(cold_test) == num_test
    assert len(cold_valid) == min(
        max(1, round(shares[0] * num_items)) if shares[0] else 0, num_items - 1 - num_test
    )


def test_cold_items_leave_a_user_one_train_row_where_possible() -> None:
    log = frame([(user, item, 0) for user in range(50) for item in range(20)])
    labels = cold_items(log, seed=3)
    assert parts_of(log, labels, "user_id")["train"] == set(log["user_id"])
    share = pd.Series(labels).value_counts(normalize=True)
    assert share["test"] == pytest.approx(0.1 + 0.8 * 0.1, abs=0.02)


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, shares=SHARES, seed=SEEDS)
def test_cold_after_takes_the_items_that_arrive_last(
    rows: list[tuple[int, int, int]], shares: tuple[float, float], seed: int
) -> None:
    log = frame(rows)
    labels = cold_after(log, valid=shares[0], test=shares[1], seed=seed)
    arrival = log.groupby("item_id")["timestamp"].min()
    found = parts_of(log, labels, "item_id")
    cold_test = found["test"] - found["train"]
    cold_valid = found["valid"] - found["train"]
    warm = found["train"]
    assert warm
    assert len(cold_test) <= shares[1] * len(arrival) + 1e-9
    assert len(cold_test | cold_valid) <= sum(shares) * len(arrival) + 1e-9
    for earlier, later in ((warm, cold_valid), (cold_valid, cold_test), (warm, cold_test)):
        if earlier and later:
            assert arrival[sorted(earlier)].max() < arrival[sorted(later)].min()


def test_cold_after_a_moment_by_hand() -> None:
    log = frame([(0, 0, 1), (1, 0, 99), (0, 1, 10), (0, 2, 11), (1, 2, 50), (0, 3, 51)])
    labels = cold_after(log, valid=0, test=0, train_until=10, valid_until=50)
    assert labels.tolist() == ["train", "train", "train", "valid", "valid", "test"]


def test_equal_moments_leave_nothing_for_valid() -> None:
    log = frame([(0, i, i) for i in range(4)])
    labels = global_time(log, train_until=1, valid_until=1)
    assert labels.tolist() == ["train", "train", "test", "test"]


@pytest.mark.parametrize("kind", ["leave_last", "global_time", "cold_after"])
def test_kinds_that_go_by_time_need_times(kind: Any) -> None:
    log = frame([(0, 0, 1), (0, 1, 2)])
    with pytest.raises(DataError, match="needs a timestamp column"):
        apply(SplitConfig(kind), log.drop(columns="timestamp"))
    with pytest.raises(DataError, match="1 rows without, first row 1"):
        apply(SplitConfig(kind), log.assign(timestamp=[1, np.nan]))


def test_moments_must_be_readable_and_in_order() -> None:
    log = frame([(0, 0, 1)])
    with pytest.raises(ConfigError, match="cannot read a moment"):
        global_time(log, train_until="yesterday-ish", valid_until=3)
    with pytest.raises(ConfigError, match="lies after"):
        global_time(log, train_until=4, valid_until=3)


@pytest.mark.parametrize("split", [random_per_user, cold_items, cold_after, global_time])
def test_shares_are_checked(split: Any) -> None:
    with pytest.raises(ConfigError, match="sum to less than 1"):
        split(frame([(0, 0, 1)]), valid=0.5, test=0.6)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.split\.seed must be 0 or more \(got -1\)"):
        SplitConfig(seed=-1)
