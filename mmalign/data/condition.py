"""A condition on one column, as it is written in a config: ``rating >= 3.5``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmalign.data.cells import as_number, as_text
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


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a number or a text. Missing values never fulfil it.

    Args:
        column: Name of the column.
        operator: One of ``>= > <= < == !=``; a text knows only the last two.
        value: What the column is compared with.
    """

    column: str
    operator: str
    value: float | str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition: a column, an operator, and a number or a quoted text.

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
        if comparison not in ("==", "!="):
            raise ConfigError("a text can only be compared with == or !=", got=text, fix=fix)
        return cls(name, comparison, found["text"])

    def mask(self, frame: pd.DataFrame, table: str = "interactions") -> BoolArray:
        """Mark the rows that fulfil the condition.

        Args:
            frame: The table.
            table: What the table is called in an error message.

        Shapes:
            returns: ``[rows]`` bool.

        Raises:
            DataError: The column is absent, or holds no numbers where a number is asked for.

        Example:
            >>> Condition.parse("x > 1").mask(pd.DataFrame({"x": [1, 2, None]})).tolist()
            [False, True, False]
        """
        if self.column not in frame:
            raise DataError(
                f"{table} have no column {self.column!r}", fix=nearest(self.column, map(str, frame))
            )
        cells = frame[self.column]
        values = as_text(cells) if isinstance(self.value, str) else as_number(cells, table)
        compared: pd.Series = _OPERATORS[self.operator](values, self.value)
        mask: BoolArray = (compared & values.notna()).to_numpy(dtype=bool)
        return mask
