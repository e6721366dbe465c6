"""Values of the items' attributes, as the config says where they stand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmalign.data.cells import as_line, as_text, is_date
from mmalign.data.config import AttributeConfig

__all__ = ["attribute_values"]


def attribute_values(items: pd.DataFrame, name: str, attribute: AttributeConfig) -> pd.Series:
    r"""Value of an attribute of each item, ``[I]``.

    Numbers are float64 with NaN where the value is missing, infinite or no number. Values of
    the other kinds are texts, or None where one is missing or no date; the values of a list
    are joined by ``|``.

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
        return numbers.where(np.isfinite(numbers))
    texts = pd.Series(as_line(cells, "|"), cells.index, name=name, dtype=object)
    if attribute.kind == "date":
        texts[~is_date(texts)] = None
    return texts
