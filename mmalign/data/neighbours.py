"""Given neighbour lists: content that is known only as which items are alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.data.cells import as_number, as_text
from mmalign.data.reading import locate, read_table
from mmalign.errors import DataError, nearest
from mmalign.interfaces import ITEM_ID, WEIGHT

__all__ = ["NEIGHBOUR_ID", "neighbour_graph", "read_neighbours"]

NEIGHBOUR_ID = "neighbour_id"


def read_neighbours(
    folder: Path, files: Mapping[str, str], item_ids: NDArray[np.object_]
) -> dict[str, sp.csr_matrix]:
    """Read the lists of each modality from the files of a data folder.

    Args:
        folder: The data folder.
        files: Modality to file name, with or without ending.
        item_ids: Items in row order.

    Returns:
        Modality to ``[I, I]`` graph, see :func:`neighbour_graph`.

    Raises:
        DataError: A file is absent or cannot be used.
    """
    graphs = {}
    for modality, name in files.items():
        path = locate(folder, name)
        if path is None:
            raise DataError(
                f"{folder} has no file {name} for data.neighbours.{modality}",
                fix=nearest(name, [p.name for p in folder.iterdir()]),
            )
        graphs[modality] = neighbour_graph(read_table(path, {NEIGHBOUR_ID}), item_ids, str(path))
    return graphs


def neighbour_graph(
    table: pd.DataFrame, item_ids: NDArray[np.object_], source: str = "the table"
) -> sp.csr_matrix:
    """Make the graph of a table ``item_id, neighbour_id`` and optionally ``weight``.

    An item is not its own neighbour: such rows are left out.

    Shapes:
        item_ids: ``[I]``; returns ``[I, I]`` float32, row i lists whom item i is like.

    Raises:
        DataError: A column is missing, an id is unknown, or a weight is negative or not finite.

    Example:
        >>> table = pd.DataFrame({"item_id": ["a", "a"], "neighbour_id": ["a", "b"]})
        >>> neighbour_graph(table, np.array(["a", "b"], dtype=object)).toarray()
        array([[0., 1.],
               [0., 0.]], dtype=float32)
    """
    index = pd.Index(item_ids)
    rows = []
    for column in (ITEM_ID, NEIGHBOUR_ID):
        if column not in table:
            raise DataError(
                f"{source} has no column {column}", fix=nearest(column, map(str, table))
            )
        ids = as_text(table[column])
        found = index.get_indexer(ids.astype(object))
        if (found < 0).any():
            unknown = ids.iloc[np.flatnonzero(found < 0)[0]]
            raise DataError(
                f"{source} names an unknown item as {column}", got=unknown, fix="drop the row"
            )
        rows.append(found)
    item, neighbour = rows
    weight = np.ones(len(table), np.float32)
    if WEIGHT in table:
        weight = as_number(table[WEIGHT], source).to_numpy(np.float32)
        broken = ~(np.isfinite(weight) & (weight >= 0))
        if broken.any():
            raise DataError(
                f"{source} has a weight that is negative or not finite",
                got=float(weight[broken][0]),
                fix="drop the row",
            )
    others = item != neighbour
    shape = len(item_ids), len(item_ids)
    graph = sp.csr_matrix((weight[others], (item[others], neighbour[others])), shape=shape)
    graph.sum_duplicates()
    return graph
