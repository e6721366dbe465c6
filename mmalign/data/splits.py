"""Ways to divide an interaction log into train, valid and test rows.

Every kind is a pure function of the log, its shares or times, and a seed. Repeated rows of one user
and item stay together wherever time does not decide, since a pair that is known from training is no
longer a question for testing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import ITEM_ID, TIMESTAMP, USER_ID, BoolArray, IntArray

__all__ = [
    "SplitConfig",
    "apply",
    "cold_after",
    "cold_items",
    "global_time",
    "leave_last",
    "random_per_user",
]

Kind = Literal["random", "leave_last", "global_time", "cold_items", "cold_after"]
Labels = NDArray[np.object_]
Moment = float | str | None


@dataclass(frozen=True)
class SplitConfig:
    """How a log without a ``split`` column is divided.

    Args:
        kind: ``random`` per user, ``leave_last`` per user, ``global_time``, ``cold_items`` or
            ``cold_after``; see the function of the same name in this module.
        valid: Share that goes to valid, in [0, 1); together with ``test`` below 1.
        test: Share that goes to test, in [0, 1).
        seed: Seed of whatever is drawn.
        train_until: Last moment of training, inclusive, for the two kinds that go by time: seconds
            since 1970 or an ISO date. The shares decide when it is not given.
        valid_until: Last moment of validation, inclusive; given together with ``train_until``.

    Raises:
        ConfigError: A share or the seed is out of range, or only one of the two moments is given.
    """

    kind: Kind = "random"
    valid: float = 0.1
    test: float = 0.1
    seed: int = 0
    train_until: Moment = None
    valid_until: Moment = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(
                "no such kind of split", got=self.kind, fix=nearest(str(self.kind), get_args(Kind))
            )
        _check_shares(self.valid, self.test)
        if self.seed < 0:
            raise ConfigError("data.split.seed must be 0 or more", got=self.seed, fix="try 0")
        if (self.train_until is None) != (self.valid_until is None):
            raise ConfigError(
                "train_until and valid_until go together",
                got=(self.train_until, self.valid_until),
                fix="give both or neither",
            )

    def describe(self) -> str:
        """Name the kind and the settings that it uses.

        Example:
            >>> SplitConfig("cold_items", valid=0.05).describe()
            'cold_items, valid 0.05, test 0.1, seed 0'
        """
        if self.kind == "leave_last":
            return self.kind
        settings: list[str] = [self.kind]
        if self.train_until is not None and self.kind in ("global_time", "cold_after"):
            settings += [f"train until {self.train_until}", f"valid until {self.valid_until}"]
        if self.train_until is None or self.kind != "global_time":
            settings += [f"valid {self.valid:g}", f"test {self.test:g}"]
        if self.kind != "global_time":
            settings.append(f"seed {self.seed}")
        return ", ".join(settings)


def apply(config: SplitConfig, interactions: pd.DataFrame) -> Labels:
    """Label every row of a log with ``train``, ``valid`` or ``test``.

    Args:
        config: The kind of split and its settings.
        interactions: Columns ``user_id``, ``item_id`` and, for kinds that go by time,
            ``timestamp``.

    Shapes:
        returns: ``[E]`` labels in the row order of ``interactions``.

    Raises:
        DataError: The kind needs timestamps that are absent or missing in a row.

    Example:
        >>> log = pd.DataFrame(
        ...     {"user_id": list("aaab"), "item_id": list("wxyx"), "timestamp": [3, 1, 2, 9]}
        ... )
        >>> apply(SplitConfig("leave_last"), log).tolist()
        ['test', 'train', 'valid', 'train']
    """
    valid, test, seed = config.valid, config.test, config.seed
    first, second = config.train_until, config.valid_until
    match config.kind:
        case "random":
            return random_per_user(interactions, valid=valid, test=test, seed=seed)
        case "leave_last":
            return leave_last(interactions)
        case "global_time":
            return global_time(
                interactions, valid=valid, test=test, train_until=first, valid_until=second
            )
        case "cold_items":
            return cold_items(interactions, valid=valid, test=test, seed=seed)
        case "cold_after":
            return cold_after(
                interactions,
                valid=valid,
                test=test,
                seed=seed,
                train_until=first,
                valid_until=second,
            )


def random_per_user(
    interactions: pd.DataFrame, *, valid: float = 0.1, test: float = 0.1, seed: int = 0
) -> Labels:
    """Draw a share of each user's items for valid and for test.

    A share that is no whole number of items is rounded up or down at random, so that short
    histories are neither spared nor overdrawn. Every user keeps at least one item in train.
    """
    _check_shares(valid, test)
    generator = np.random.default_rng(seed)
    pair_of_row, user, _ = _pairs(interactions)
    size = np.bincount(user)
    num_test = np.floor(size * test + generator.random(len(size))).astype(np.int64)
    num_test = np.minimum(num_test, size - 1)
    num_valid = np.floor(size * valid + generator.random(len(size))).astype(np.int64)
    num_valid = np.minimum(num_valid, size - 1 - num_test)
    rank = _rank_within(user, generator.random(len(user)))
    return _labels(rank < num_test[user], rank < (num_test + num_valid)[user])[pair_of_row]


def leave_last(interactions: pd.DataFrame) -> Labels:
    """Put each user's last item into test, the one before into valid and the rest into train.

    A user with two items has no valid row, a user with one item only a train row. An item that a
    user took repeatedly counts at its latest time; of equal times the later row is the later one.
    """
    times = _times(interactions, "leave_last")
    pair_of_row, user, _ = _pairs(interactions)
    by_time = np.argsort(times, kind="stable")
    moment = np.zeros(len(user), dtype=np.int64)
    moment[pair_of_row[by_time]] = np.arange(
        len(by_time)
    )  # the latest row of a pair is written last
    rank_from_last = _rank_within(user, -moment)
    size = np.bincount(user)[user]
    is_test = (rank_from_last == 0) & (size >= 2)
    is_valid = (rank_from_last == 1) & (size >= 3)
    return _labels(is_test, is_valid)[pair_of_row]


def global_time(
    interactions: pd.DataFrame,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    train_until: Moment = None,
    valid_until: Moment = None,
) -> Labels:
    """Cut the log at two moments that hold for everybody.

    Rows up to ``train_until`` (inclusive) are train, later ones up to ``valid_until`` valid, the
    rest test. Without moments they are set so that train and train plus valid hold at least their
    share of rows; rows of the same time are never parted. A user may take an item again in a
    later part.
    """
    times = _times(interactions, "global_time")
    cuts = _cuts(times, valid, test, train_until, valid_until)
    return _labels(times > cuts[1], times > cuts[0])


def cold_items(
    interactions: pd.DataFrame, *, valid: float = 0.1, test: float = 0.1, seed: int = 0
) -> Labels:
    """Take a share of the items out of training altogether.

    All rows of a random share ``test`` of the items are test rows, all rows of another share
    ``valid`` are valid rows. Rows of the other, warm items are divided as in
    :func:`random_per_user` with the same shares, after which every warm item that was left without
    a train row gets one back: the cold items are exactly those drawn.
    """
    _check_shares(valid, test)
    _, _, item = _pairs(interactions)
    num_items = int(item.max(initial=-1)) + 1
    order = np.random.default_rng([seed, 1]).permutation(num_items)
    num_test = min(_at_least_one(test, num_items), max(num_items - 1, 0))
    num_valid = min(_at_least_one(valid, num_items), max(num_items - 1 - num_test, 0))
    part = np.zeros(num_items, dtype=np.int64)
    part[order[:num_test]] = 2
    part[order[num_test : num_test + num_valid]] = 1
    return _with_cold(interactions, part, valid, test, seed)


def cold_after(
    interactions: pd.DataFrame,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    train_until: Moment = None,
    valid_until: Moment = None,
) -> Labels:
    """Take the newest items out of training altogether.

    An item arrives at the time of its first row. Items that arrive after ``valid_until`` have all
    their rows in test; those that arrive after ``train_until`` and up to ``valid_until`` have all
    theirs in valid. Without moments these are set on the arrivals of the items, so that at most a
    share ``test`` of the items is cold in test and at most ``valid + test`` is cold at all. Rows of
    older items are divided at random per user, at whatever time they happened, exactly as the warm
    rows of :func:`cold_items`.
    """
    times = _times(interactions, "cold_after")
    codes, _ = pd.factorize(interactions[ITEM_ID])
    arrival = np.full(int(codes.max(initial=-1)) + 1, np.inf)
    np.minimum.at(arrival, codes, times)
    cuts = _cuts(arrival, valid, test, train_until, valid_until)
    part = (arrival > cuts[0]).astype(np.int64) + (arrival > cuts[1])
    return _with_cold(interactions, part, valid, test, seed)


def _with_cold(
    interactions: pd.DataFrame, part: IntArray, valid: float, test: float, seed: int
) -> Labels:
    """Label rows by the part of their item (1 valid, 2 test); rows of part 0 at random per user."""
    codes, _ = pd.factorize(interactions[ITEM_ID])
    row_part = part[codes]
    labels = _labels(row_part == 2, row_part == 1)
    warm = np.flatnonzero(row_part == 0)
    if len(warm) == 0:
        return labels
    rest = interactions.iloc[warm]
    drawn = random_per_user(rest, valid=valid, test=test, seed=seed)
    pair_of_row, _, item = _pairs(rest)
    in_train = np.zeros(int(item.max()) + 1, dtype=bool)
    in_train[item[pair_of_row[drawn == "train"]]] = True
    orphans = np.flatnonzero(~in_train)
    _, first_pair = np.unique(item, return_index=True)
    drawn[np.isin(pair_of_row, first_pair[orphans])] = "train"
    labels[warm] = drawn
    return labels


def _pairs(interactions: pd.DataFrame) -> tuple[IntArray, IntArray, IntArray]:
    """Number the distinct user-item pairs: pair of each row [E], user and item of each pair [P]."""
    user, _ = pd.factorize(interactions[USER_ID])
    item, items = pd.factorize(interactions[ITEM_ID])
    pair_of_row, pairs = pd.factorize(user.astype(np.int64) * max(len(items), 1) + item)
    numbers = np.asarray(pairs, dtype=np.int64)
    return pair_of_row, numbers // max(len(items), 1), numbers % max(len(items), 1)


def _rank_within(group: IntArray, key: NDArray[Any]) -> IntArray:
    """Rank every element among those of its group by ascending key, from 0."""
    order = np.lexsort((key, group))
    size = np.bincount(group)
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    return rank


def _labels(is_test: BoolArray, is_valid: BoolArray) -> Labels:
    """Name the parts; test wins where both hold."""
    return np.where(is_test, "test", np.where(is_valid, "valid", "train")).astype(object)


def _cuts(
    times: NDArray[np.float64], valid: float, test: float, train_until: Moment, valid_until: Moment
) -> tuple[float, float]:
    if train_until is not None and valid_until is not None:
        first, second = _seconds(train_until), _seconds(valid_until)
        if first > second:
            raise ConfigError(
                "train_until lies after valid_until",
                got=(train_until, valid_until),
                fix="swap them",
            )
        return first, second
    _check_shares(valid, test)
    if len(times) == 0:
        return np.inf, np.inf
    shares = [1 - valid - test, 1 - test]
    # 1 - 0.1 - 0.1 is a hair above 0.8 in floating point, and must not cost a row
    cuts = np.quantile(times, np.round(shares, 12), method="inverted_cdf")
    return float(cuts[0]), float(cuts[1])


def _seconds(moment: float | str) -> float:
    if not isinstance(moment, str):
        return float(moment)
    try:
        return float(pd.Timestamp(moment).timestamp())
    except ValueError:
        raise ConfigError(
            "cannot read a moment of the split", got=moment, fix="write an ISO date or seconds"
        ) from None


def _times(interactions: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    if TIMESTAMP not in interactions:
        raise DataError(
            f"split kind {kind} needs a timestamp column",
            got=list(interactions.columns),
            fix="add the column, or use kind random or cold_items",
        )
    times: NDArray[np.float64] = interactions[TIMESTAMP].to_numpy(dtype=np.float64)
    missing = np.flatnonzero(~np.isfinite(times))
    if len(missing):
        raise DataError(
            f"split kind {kind} needs a timestamp in every row",
            got=f"{len(missing)} rows without, first row {missing[0]}",
            fix="fill or drop those rows",
        )
    return times


def _check_shares(valid: float, test: float) -> None:
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ConfigError(
            "shares must be at least 0 and sum to less than 1",
            got={"valid": valid, "test": test},
            fix="for example valid 0.1 and test 0.1",
        )


def _at_least_one(share: float, count: int) -> int:
    return max(1, round(share * count)) if share > 0 else 0
