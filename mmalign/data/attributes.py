"""Values of the items' attributes, as the config says where they stand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmalign.data.cells import as_line, as_text, is_date
from mmalign.data.config import AttributeConfig

__all__ = ["attribute_values"]


def attribute_values(items: pd.DataFrame, name: str, attribute: AttributeConfig) -> pd.Series:
    r"""Value of an attribute of each item, ``[I]``.

    Numbers are float64 with NaN where the value is missing, infinite or no number; what a pattern
    pulls out may be written as in "1,116.50" or "12,50". Values of the other kinds are texts, or
    None where one is missing or no date; the values of a list are joined by ``|``.

    Example:
        >>> items = pd.DataFrame({"title": ["Alien (1979)", "Untitled"]})
        >>> year = AttributeConfig("number", column="title", pattern=r"\((\d{4})\)")
        >>> attribute_values(items, "year", year).tolist()
        [1979.0, nan]
    """
    cells = items[attribute.column or name].rename(name)
    if attribute.pattern is not None:
        cells = as_text(cells).str.extract(attribute.pattern, expand=False)
    if attribute.kind == "number":
        numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
        if attribute.pattern is not None:
            numbers = numbers.fillna(pd.to_numeric(_plain(cells), errors="coerce"))
        return numbers.where(np.isfinite(numbers))
    texts = pd.Series(as_line(cells, "|"), cells.index, name=name, dtype=object)
    if attribute.kind == "date":
        texts[~is_date(texts)] = None
    return texts


def _plain(cells: pd.Series) -> pd.Series:
    """Drop marks between thousands and make the mark of the fraction a point.

    The last mark begins the fraction, except in groups of three digits: after commas, or after
    several points.
    """
    texts = as_text(cells).astype("str").str.replace(r"[\s'\u2019]", "", regex=True)
    grouped = texts.str.fullmatch(r"[+-]?\d{1,3}(?:(?:,\d{3})+|(?:\.\d{3}){2,})").fillna(False)
    last = texts.str.replace(r"[.,](?=.*[.,])", "", regex=True).str.replace(",", ".")
    return last.where(~grouped, texts.str.replace(r"[.,]", "", regex=True))
