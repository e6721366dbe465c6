"""A condition on one column, as it is written in a config: ``rating >= 3.5``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmalign.data.cells import as_number, as_seconds, as_text, in_line
from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import BoolArray

__all__ = ["Condition"]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_PATTERN = re.compile(
    r"""\s* (?P<column>[^<>=!"']+?) \s* (?P<operator>>=|<=|==|!=|>|<) \s*
        (?: (?P<number> [+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? )
          | (?P<quote>["']) (?P<text>(?:(?!(?P=quote)).)*) (?P=quote) )
        \s*""",
    re.VERBOSE,
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d.*")


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a number, a text or a date. Missing values never fulfil it.

    A cell of several values, in a list or separated by ``|``, is equal to each of them.

    Args:
        column: Name of the column.
        operator: One of ``>= > <= < == !=``; a text that is no ISO date knows only the last two.
        value: What the column is compared with.
    """

    column: str
    operator: str
    value: float | str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition: a column, an operator, and a number, a quoted text or a quoted date.

        Raises:
            ConfigError: The text is no such condition.

        Example:
            >>> Condition.parse("rating >= 3.5")
            Condition(column='rating', operator='>=', value=3.5)
            >>> Condition.parse("event == 'purchase'").value
            'purchase'
        """
        found = _PATTERN.fullmatch(text)
        fix = "write it like rating >= 3.5 or event == 'purchase'"
        if found is None:
            raise ConfigError("cannot read the condition", got=text, fix=fix)
        name, comparison = found["column"], found["operator"]
        if found["number"] is not None:
            return cls(name, comparison, float(found["number"]))
        if comparison not in ("==", "!=") and not _is_day(found["text"]):
            raise ConfigError(
                "a text that is no date can only be compared with == or !=", got=text, fix=fix
            )
        return cls(name, comparison, found["text"])

    def mask(
        self, frame: pd.DataFrame, table: str = "interactions", *, lenient: bool = False
    ) -> BoolArray:
        """Mark the rows that fulfil the condition.

        Args:
            frame: The table.
            table: What the table is called in an error message.
            lenient: Whether a cell that is no number or time is missing, as long as another is one.

        Shapes:
            returns: ``[rows]`` bool.

        Raises:
            DataError: The column is absent, or holds no numbers or times where such are asked for.

        Example:
            >>> Condition.parse("x > 1").mask(pd.DataFrame({"x": [1, 2, None]})).tolist()
            [False, True, False]
        """
        if self.column not in frame:
            raise DataError(
                f"{table} have no column {self.column!r}", fix=nearest(self.column, map(str, frame))
            )
        cells = frame[self.column]
        compare = _OPERATORS[self.operator]
        if lenient:
            cells = self._without_unreadable(cells)
        if isinstance(self.value, float):
            values = as_number(cells, table)
            compared = compare(values, self.value)
        elif self.operator in ("==", "!=") and not _is_moment(cells, self.value):
            values = _joined(cells)
            has = values.fillna("").str.contains(f"|{self.value.strip()}|", regex=False)
            compared = compare(has, True)
        else:
            values = as_seconds(cells, table)
            compared = compare(values, as_seconds(pd.Series([self.value]), table).iloc[0])
        mask: BoolArray = (compared & values.notna()).to_numpy(dtype=bool)
        return mask

    def _without_unreadable(self, cells: pd.Series) -> pd.Series:
        if isinstance(self.value, float):
            read = pd.to_numeric(cells, errors="coerce")
        elif self.operator in ("==", "!=") or pd.api.types.is_numeric_dtype(cells):
            return cells
        else:
            read = pd.to_datetime(cells, errors="coerce", utc=True, format="ISO8601")
        return cells.where(read.notna()) if read.notna().any() else cells


def _is_moment(cells: pd.Series, text: str) -> bool:
    """Whether a column of times is compared with a date, and not text with text."""
    return pd.api.types.is_datetime64_any_dtype(cells) and _is_day(text)


def _is_day(text: str) -> bool:
    moment = pd.to_datetime(text, errors="coerce", format="ISO8601")
    return _DAY.fullmatch(text) is not None and not pd.isna(moment)


def _joined(cells: pd.Series) -> pd.Series:
    """Write the values of every cell between bars, without spaces around: ``|Comedy|Drama|``."""
    return ("|" + as_text(in_line(cells)) + "|").str.replace(r"\s*\|\s*", "|", regex=True)
