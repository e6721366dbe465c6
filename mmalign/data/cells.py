"""Cells of tables as they come, turned into texts, numbers and times."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import numpy as np
import pandas as pd

from mmalign.errors import DataError
from mmalign.interfaces import BoolArray

__all__ = [
    "as_ids",
    "as_line",
    "as_number",
    "as_seconds",
    "as_text",
    "in_line",
    "is_date",
    "is_list",
    "plain",
]

_WRITTEN_LIST = re.compile(r"""\s*\[\s*(["'].*["'])?\s*\]\s*""", re.DOTALL)


def as_text(values: pd.Series) -> pd.Series:
    """Write every cell as text: whole numbers without ``.0``, missing cells as NaN.

    Raises:
        DataError: A cell is a list or another container, or holds half of a surrogate pair.

    Example:
        >>> as_text(pd.Series([7.0, None, 1.5])).tolist()
        ['7', nan, '1.5']
    """
    if isinstance(values.dtype, pd.StringDtype):
        return values.astype("str")
    try:
        codes, distinct = pd.factorize(values)
    except TypeError:
        raise DataError(
            f"column {values.name!r} holds lists where texts or numbers belong",
            got=values.iloc[0],
            fix="name another column, or use an attribute of kind multi",
        ) from None
    texts = np.array([*map(_text, distinct), np.nan], dtype=object)
    try:
        return pd.Series(texts[codes], index=values.index, name=values.name, dtype="str")
    except UnicodeEncodeError as error:
        raise DataError(
            f"column {values.name!r} holds half a character",
            got=ascii(error.object),
            fix="mend the cell, which was cut inside a character",
        ) from None


def as_ids(values: pd.Series, table: str) -> pd.Series:
    """Write ids as text, exactly as they are: no trimming, no change of case.

    Args:
        values: The column.
        table: What the table is called in an error message.

    Raises:
        DataError: An id is missing or empty.

    Example:
        >>> as_ids(pd.Series([10, 2], name="item_id"), "items").tolist()
        ['10', '2']
    """
    texts = as_text(values)
    missing = np.flatnonzero(texts.isna() | (texts == ""))
    if len(missing):
        raise DataError(
            f"{table} have {len(missing)} rows without {values.name}",
            got=f"row {values.index[missing[0]]}",
            fix="fill in the id or drop the row",
        )
    return texts


def as_number(values: pd.Series, table: str) -> pd.Series:
    """Read numbers, missing cells as NaN.

    Raises:
        DataError: A cell holds something else.

    Example:
        >>> as_number(pd.Series(["1", None]), "items").tolist()
        [1.0, nan]
    """
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
    wrong = np.flatnonzero(numbers.isna() & values.notna())
    if len(wrong):
        raise DataError(
            f"column {values.name!r} of the {table} has no number in row {values.index[wrong[0]]}",
            got=plain(values.iloc[wrong[0]]),
            fix="correct the cell",
        )
    return numbers


def as_seconds(values: pd.Series, table: str) -> pd.Series:
    """Read times as seconds since 1970: dates and ISO texts are converted, numbers are kept.

    Raises:
        DataError: A cell is no time, or infinite.

    Example:
        >>> as_seconds(pd.Series(["1970-01-02"]), "interactions").tolist()
        [86400.0]
    """
    is_date = pd.api.types.is_datetime64_any_dtype(values.dtype)
    numbers = values if is_date else pd.to_numeric(values, errors="coerce").astype(np.float64)
    if not is_date and numbers.notna().equals(values.notna()):
        seconds = numbers
    else:
        written = None if is_date else "ISO8601"
        dates = pd.to_datetime(values, errors="coerce", utc=True, format=written)
        seconds = (dates - pd.Timestamp(0, tz="UTC").as_unit("s")) / pd.Timedelta(seconds=1)
        if not is_date and numbers.notna().sum() > seconds.notna().sum():
            seconds = numbers  # then what is wrong is the cell that is no number
    wrong = (seconds.isna() & values.notna()).to_numpy() | np.isinf(seconds.to_numpy(np.float64))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"column {values.name!r} of the {table} holds no time in row {values.index[row]}",
            got=plain(values.iloc[row]),
            fix="write seconds since 1970 or ISO dates",
        )
    return seconds


def is_date(texts: pd.Series) -> BoolArray:
    """Mark the texts that can be read as a date: whatever pandas reads, and Unix seconds.

    Example:
        >>> is_date(pd.Series(["1994-03-01", "soon", "1700000000", None])).tolist()
        [True, False, True, False]
    """
    texts = texts.astype("str")
    is_seconds = texts.str.fullmatch(r"\s*-?\d{9,}(\.\d*)?\s*").fillna(False).to_numpy(dtype=bool)
    dates = pd.to_datetime(texts.mask(is_seconds), errors="coerce", utc=True, format="mixed")
    marks: BoolArray = is_seconds | dates.notna().to_numpy()
    return marks


def plain(cell: object) -> object:
    """Take a cell out of its NumPy type, so that an error message shows ``3`` and not a type."""
    return cell.item() if isinstance(cell, np.generic) else cell


def is_list(cell: object) -> bool:
    """Say whether a cell holds several values."""
    return isinstance(cell, (list, tuple, set, frozenset, np.ndarray))


def _text(value: object) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return str(value)


def in_line(cells: pd.Series) -> pd.Series:
    """Write lists as ``a|b``; a value that is missing in one is left out.

    A text such as ``["a", "b"]``, which is how a list is written into a CSV, is a list too.

    Example:
        >>> in_line(pd.Series([["a", None, "b"], [None], "c"])).tolist()
        ['a|b', '', 'c']
        >>> in_line(pd.Series(['["a", "b"]', "['c']", "[sic]"])).tolist()
        ['a|b', 'c', '[sic]']
    """
    if cells.dtype == object or pd.api.types.is_string_dtype(cells):
        cells = cells.map(_unwritten)
    if cells.dtype == object and cells.map(is_list).any():
        return cells.map(_in_one_line)
    return cells


def _unwritten(cell: Any) -> Any:
    """Read a list of texts that was written as JSON or as Python writes it."""
    if not isinstance(cell, str) or _WRITTEN_LIST.fullmatch(cell) is None:
        return cell
    for read in (json.loads, ast.literal_eval):
        try:
            values = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(values, list) and all(v is None or isinstance(v, str) for v in values):
            return values
    return cell


def _in_one_line(cell: Any) -> Any:
    if not is_list(cell):
        return cell
    return "|".join(str(value) for value in cell if not _is_missing(value))


def _is_missing(value: Any) -> bool:
    return bool(np.ndim(value) == 0 and pd.isna(value))


def as_line(cells: pd.Series, separator: str) -> list[str | None]:
    """Write cells as texts, the values of a list or of ``a|b`` joined by a separator.

    Example:
        >>> as_line(pd.Series(["a|b", " ", None]), ", ")
        ['a, b', None, None]
    """
    texts = as_text(in_line(cells)).astype(object)
    stripped = (text.strip() if isinstance(text, str) else "" for text in texts)
    return [separator.join(text.split("|")) if text else None for text in stripped]
