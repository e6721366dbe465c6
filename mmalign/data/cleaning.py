"""From raw tables to tables that every other room can rely on.

What cannot be used is refused with the first offending row; what can be mended or left out is,
and is noted. The caller's frames are never changed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmalign.data.attributes import attribute_values
from mmalign.data.cells import as_ids, as_line, as_number, as_seconds, as_text, plain
from mmalign.data.condition import Condition
from mmalign.data.config import AttributeConfig, DataConfig
from mmalign.data.splits import SplitConfig, apply
from mmalign.errors import DataError, nearest
from mmalign.interfaces import (
    EVENT,
    ITEM_ID,
    RATING,
    SPLIT,
    SPLITS,
    TIMESTAMP,
    USER_ID,
    WEIGHT,
)

__all__ = [
    "check_names",
    "clean_interactions",
    "clean_items",
    "clean_users",
    "drop_unknown_items",
    "no_interactions",
    "with_split",
]

MAX_WEIGHT = 1e9
"""Above it, sums of squared weights leave the range in which models can calculate."""
_MILLISECONDS = 1e11  # as seconds, the year 5138


def clean_items(items: pd.DataFrame, config: DataConfig, notices: list[str]) -> pd.DataFrame:
    """Check the items: ids unique and first, every named column there.

    Args:
        items: The raw table.
        config: Names the columns in use.
        notices: Receives a line for each thing that was mended.

    Raises:
        DataError: No rows, a missing or repeated id, or a named column that is absent.
    """
    items = _with_ids(items, (ITEM_ID,), "items")
    _refuse_duplicates(items[ITEM_ID], "items")
    for column, key in config.columns().items():
        if column not in items:
            raise DataError(
                f"items have no column {column!r}, which {key} names",
                fix=nearest(column, map(str, items)),
            )
    if config.image is not None:
        pictures = [_picture(cell) for cell in items[config.image]]
        items = items.assign(**{config.image: pd.Series(pictures, items.index, dtype=object)})
    for name, attribute in config.attributes.items():
        if attribute.kind in ("number", "date"):
            _note_unusable(items, name, attribute, notices)
        if attribute.kind == "multi" and attribute.pattern is None:
            _note_separator(items[attribute.column or name], name, notices)
    return _ordered(items, [ITEM_ID])


def clean_users(users: pd.DataFrame) -> pd.DataFrame:
    """Check the users: ids unique and first.

    Raises:
        DataError: No rows, or a missing or repeated id.
    """
    users = _with_ids(users, (USER_ID,), "users")
    _refuse_duplicates(users[USER_ID], "users")
    return _ordered(users, [USER_ID])


def clean_interactions(
    interactions: pd.DataFrame, positive: str | None, notices: list[str]
) -> pd.DataFrame:
    """Check the log, drop rows that are not positive, and give each row a weight.

    The weight is the column ``weight``, or else ``rating`` unless ``positive`` has judged by the
    rating already, or else 1. Rows of weight 0 say nothing and are dropped.

    Args:
        interactions: The raw table.
        positive: Condition that rows must fulfil, see :class:`~mmalign.data.condition.Condition`.
        notices: Receives a line for each thing that was dropped.

    Raises:
        DataError: No rows, a missing id, no positive row, or a weight that is negative, NaN,
            infinite or above 1e9.
    """
    log = _with_ids(interactions, (USER_ID, ITEM_ID), "interactions")
    condition = Condition.parse(positive) if positive is not None else None
    if condition is not None:
        mask = condition.mask(log)
        if not mask.any():
            raise DataError("no interaction is positive", got=positive, fix="relax data.positive")
        if not mask.all():
            notices.append(f"{(~mask).sum():,} of {len(mask):,} interactions are not {positive}")
        log = log[mask]
    judged = condition is not None and condition.column == RATING
    source = WEIGHT if WEIGHT in log else RATING if RATING in log and not judged else None
    log = _with_weight(log, source, notices)
    if TIMESTAMP in log:
        log = log.assign(**{TIMESTAMP: as_seconds(log[TIMESTAMP], "interactions")})
        _note_milliseconds(log[TIMESTAMP], notices)
    return log.reset_index(drop=True)


def drop_unknown_items(log: pd.DataFrame, item_ids: pd.Series, notices: list[str]) -> pd.DataFrame:
    """Drop rows whose item is not in the catalogue.

    Raises:
        DataError: No row is left.
    """
    known = log[ITEM_ID].isin(item_ids).to_numpy()
    if known.all():
        return log
    first = log[ITEM_ID].iloc[int(np.argmin(known))]
    if not known.any():
        raise DataError(
            "no interaction is with an item of the catalogue",
            got=f"first unknown item {first!r}, first catalogue item {item_ids.iloc[0]!r}",
            fix="check that both files use the same item ids",
        )
    notices.append(
        f"{(~known).sum():,} interactions with items that are not in the catalogue were dropped, "
        f"first item {first!r}"
    )
    return log[known].reset_index(drop=True)


def with_split(log: pd.DataFrame, split: SplitConfig, notices: list[str]) -> pd.DataFrame:
    """Check the split column, or make one.

    Raises:
        DataError: A split has another name than train, valid or test.
    """
    if SPLIT in log:
        wrong = log[SPLIT][~log[SPLIT].isin(SPLITS)]
        if len(wrong):
            value = plain(wrong.iloc[0])
            raise DataError(
                f"interactions have {len(wrong):,} rows of an unknown split",
                got=value,
                fix=nearest(str(value), SPLITS),
            )
        labels = log[SPLIT].to_numpy(dtype=object)
        if split != SplitConfig():
            notices.append("the log has a split column: data.split does nothing")
    else:
        labels = apply(split, log)
        notices.append(f"the log has no split column: split by {split.describe()}")
        if split.kind in ("cold_items", "cold_after"):
            trained = log[ITEM_ID].isin(log[ITEM_ID][labels == "train"])
            notices += [
                f"no item is cold in {part}: they arrive at the same moments, or are too few"
                for part in ("valid", "test")
                if getattr(split, part) and not (~trained & (labels == part)).any()
            ]
    log = log.assign(**{SPLIT: pd.Series(labels, log.index, dtype="str")})
    return _ordered(log, [USER_ID, ITEM_ID, WEIGHT, SPLIT, TIMESTAMP, EVENT])


def no_interactions() -> pd.DataFrame:
    """Make the log of a catalogue that nobody has touched."""
    return pd.DataFrame(
        {
            USER_ID: pd.Series(dtype="str"),
            ITEM_ID: pd.Series(dtype="str"),
            WEIGHT: pd.Series(dtype=np.float32),
            SPLIT: pd.Series(dtype="str"),
        }
    )


def _with_ids(frame: pd.DataFrame, columns: tuple[str, ...], table: str) -> pd.DataFrame:
    if frame.index.name in columns and frame.index.name not in frame:
        frame = frame.reset_index()
    frame = frame.reset_index(drop=True)
    if len(frame) == 0:
        raise DataError(f"{table} are empty", fix="give a table with at least one row")
    check_names(frame, table)
    for column in columns:
        if column not in frame:
            raise DataError(
                f"{table} have no column {column!r}", fix=nearest(column, map(str, frame))
            )
    return frame.assign(**{column: as_ids(frame[column], table) for column in columns})


def check_names(frame: pd.DataFrame, table: str) -> None:
    """Check that no two columns have one name.

    Raises:
        DataError: Two have.
    """
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(
            f"{table} have two columns of the same name", got=twice, fix="rename one of them"
        )


def _refuse_duplicates(ids: pd.Series, table: str) -> None:
    repeated = ids.duplicated(keep=False).to_numpy()
    if repeated.any():
        first = ids.iloc[int(np.argmax(repeated))]
        rows = np.flatnonzero(ids == first)
        raise DataError(
            f"{table} have {int(ids.duplicated().sum()):,} repeated ids",
            got=first,
            fix=f"keep one row of each; this one is in rows {rows[0]} and {rows[1]}",
        )


def _with_weight(log: pd.DataFrame, source: str | None, notices: list[str]) -> pd.DataFrame:
    if source is None:
        return log.assign(**{WEIGHT: np.ones(len(log), dtype=np.float32)})
    weights = as_number(log[source], "interactions").to_numpy()
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"interactions have {wrong.sum():,} rows with a negative, missing or infinite {source}",
            got=f"{weights[row]} in row {log.index[row]}",
            fix="correct these rows, or drop them with data.positive",
        )
    if weights.max() > MAX_WEIGHT:
        row = int(np.argmax(weights))
        raise DataError(
            f"interactions have {(weights > MAX_WEIGHT).sum():,} rows with a {source} above "
            f"{MAX_WEIGHT:.0e}",
            got=f"{weights[row]:g} in row {log.index[row]}",
            fix="correct these rows, or divide all weights by the same number",
        )
    weights = weights.astype(np.float32)
    log = log.assign(**{WEIGHT: weights})
    zero = weights == 0
    if zero.all():
        raise DataError(f"every interaction has {source} 0", fix="give weights above 0")
    if zero.any():
        notices.append(f"{zero.sum():,} interactions of {source} 0 were dropped")
        log = log[~zero]
    return log


def _note_milliseconds(seconds: pd.Series, notices: list[str]) -> None:
    middle = seconds.median()
    if middle > _MILLISECONDS:
        notices.append(
            f"half of the timestamps are above {middle:.3g}, far in the future when read as "
            "seconds since 1970: if they are milliseconds, divide them by 1,000"
        )


def _note_unusable(
    items: pd.DataFrame, name: str, attribute: AttributeConfig, notices: list[str]
) -> None:
    cells = as_text(items[attribute.column or name])
    if attribute.kind == "date":
        what = "date"
        _note_order(cells, name, notices)
    else:
        what = "finite number"
    usable = attribute_values(items, name, attribute).notna()
    unusable = (~usable & (cells.fillna("").str.strip() != "")).to_numpy(bool)
    if unusable.any():
        first = items.iloc[int(np.argmax(unusable))]
        notices.append(
            f"attribute {name} is no {what} in {unusable.sum():,} items, first item "
            f"{first[ITEM_ID]!r} with {plain(first[attribute.column or name])!r}: taken as missing"
        )


def _note_separator(cells: pd.Series, name: str, notices: list[str]) -> None:
    """Say that values are taken together where something else than ``|`` seems to part them."""
    texts = [text for text in as_line(cells, "|") if text is not None]
    parted = {mark: [text for text in texts if mark in text] for mark in (";", ",")}
    mark = max(parted, key=lambda mark: len(parted[mark]))
    if 2 * len(parted[mark]) > len(texts) and not any("|" in text for text in texts):
        notices.append(
            f"attribute {name} has {parted[mark][0]!r} as one value: if it is several, "
            f"write | in place of {mark} or a list"
        )


def _note_order(texts: pd.Series, name: str, notices: list[str]) -> None:
    """Say how dates are read in which day and month could change places."""
    parts = (
        texts.astype("str").str.extract(r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-]\d{4}\b").astype(float)
    )
    either = ((parts.max(axis=1) <= 12) & (parts[0] != parts[1])).to_numpy()
    if either.any():
        notices.append(
            f"attribute {name} has dates like {texts[either].iloc[0]!r} in {either.sum():,} items, "
            "which are read with the month first: write year-month-day"
        )


def _picture(cell: object) -> str | bytes | None:
    """Read a picture's cell: a path, bytes, or the struct of both that ``datasets`` stores."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return bytes(cell) or None
    if isinstance(cell, str):
        return cell if cell.strip() else None
    if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return None
    raise DataError(
        "a picture is neither a path nor bytes",
        got=cell,
        fix="give paths, bytes, or both in a struct",
    )


def _ordered(frame: pd.DataFrame, first: list[str]) -> pd.DataFrame:
    leading = [column for column in first if column in frame]
    return frame[[*leading, *(column for column in frame if column not in leading)]]
