"""Data sets in the file formats of peers, read and never written.

MMRec (Zhou, 2023, arXiv 2302.03497) keeps a tab separated log ``name.inter`` with numbered users
and items and a column ``x_label`` that is 0, 1 or 2 for train, valid and test; rows of
``image_feat.npy`` and ``text_feat.npy`` belong to the items of the same number.

RecBole (Zhao et al., 2021, arXiv 2011.01731) keeps *atomic files* ``name.inter``, ``name.item``
and ``name.user``: tab separated, with a type after each column's name, such as ``rating:float``.
A log that is already divided comes as ``name.train.inter``, ``name.valid.inter`` and
``name.test.inter``.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from mmalign.data.catalog import Catalog
from mmalign.data.cells import plain
from mmalign.data.config import DataConfig
from mmalign.errors import DataError, nearest
from mmalign.interfaces import ITEM_ID, SPLIT, SPLITS, TIMESTAMP, USER_ID, WEIGHT, Feature

__all__ = ["is_peer_folder", "read_mmrec", "read_peer", "read_recbole"]

_MMREC_COLUMNS = {"userID": USER_ID, "itemID": ITEM_ID, "x_label": SPLIT, "timestamp": TIMESTAMP}
_MMREC_SPLITS = dict(enumerate(SPLITS))
_MMREC_FEATURES = {"text": "text_feat.npy", "image": "image_feat.npy"}
_RecBoleType = Literal["token", "token_seq", "float", "float_seq"]


def is_peer_folder(folder: str | Path) -> bool:
    """Say whether a folder holds a ``.inter`` file."""
    return any(Path(folder).glob("*.inter"))


def read_peer(folder: str | Path, config: DataConfig | None = None) -> Catalog:
    """Read the catalogue of a folder of either format; the log's header tells which it is.

    The arrays of an MMRec folder become :attr:`Catalog.features`.

    Raises:
        DataError: The files cannot be used.
    """
    first = min(Path(folder).glob("*.inter"))
    header = _read_tsv(first, nrows=0).columns
    if any(":" in str(column) for column in header):
        return read_recbole(folder, config)
    catalog, features = read_mmrec(folder, config)
    return replace(catalog, features=features)


def read_mmrec(
    folder: str | Path, config: DataConfig | None = None
) -> tuple[Catalog, dict[str, Feature]]:
    """Read an MMRec folder.

    Every row weighs 1, as it does there; a rating is carried along. The items are all numbers
    from 0 to the largest in the log or in the features, so that item ``"17"`` has row 17.

    Args:
        folder: Holds one ``.inter`` file and the features, each of which may be absent.
        config: What else to use; its file names are ignored.

    Returns:
        The catalogue, and its features ``text`` and ``image`` as far as they are there.

    Raises:
        DataError: A file cannot be used.
    """
    path = _only_log(Path(folder))
    log = _read_tsv(path)
    for column in ("userID", "itemID", "x_label"):
        if column not in log:
            raise DataError(f"{path} has no column {column!r}", fix=nearest(column, map(str, log)))
    unknown = log["x_label"][~log["x_label"].isin(_MMREC_SPLITS)]
    if len(unknown):
        raise DataError(
            f"{path} has an unknown x_label", got=plain(unknown.iloc[0]), fix="use 0, 1 or 2"
        )
    numbers = log["itemID"]
    if not pd.api.types.is_integer_dtype(numbers.dtype) or (numbers < 0).any():
        raise DataError(
            f"{path} has an itemID that is no row number", fix="number the items from 0"
        )
    log = log.rename(columns=_MMREC_COLUMNS)
    log = log.assign(**{SPLIT: log[SPLIT].map(_MMREC_SPLITS), WEIGHT: np.float32(1)})
    arrays = _mmrec_arrays(Path(folder))
    num_items = max(int(numbers.max()) + 1, *(len(array) for array in arrays.values()), 0)
    items = pd.DataFrame({ITEM_ID: [str(number) for number in range(num_items)]})
    catalog = Catalog.from_pandas(items, log, config=config, root=folder)
    return catalog, {name: _feature(array, num_items) for name, array in arrays.items()}


def read_recbole(folder: str | Path, config: DataConfig | None = None) -> Catalog:
    """Read a folder of RecBole's atomic files.

    ``token`` columns become texts, ``float`` columns numbers, ``float_seq`` columns lists of
    numbers. A ``token_seq`` stays a text with spaces, unless the config names it as an attribute
    of kind ``multi``: then each token is a value. Without a ``.item`` file the items are those of
    the log.

    Args:
        folder: Holds ``name.inter`` (or the three parts of it), and optionally ``name.item`` and
            ``name.user``.
        config: What to use of the columns, by their names without types; its file names are
            ignored.

    Raises:
        DataError: A file cannot be used.
    """
    folder, config = Path(folder), config or DataConfig()
    parts = {name: sorted(folder.glob(f"*.{name}.inter")) for name in SPLITS}
    if len(parts["train"]) == 1:
        frames = [_read_atomic(p[0]).assign(**{SPLIT: s}) for s, p in parts.items() if p]
        log = pd.concat(frames, ignore_index=True)
        name = parts["train"][0].name.removesuffix(".train.inter")
    else:
        path = _only_log(folder)
        log, name = _read_atomic(path), path.name.removesuffix(".inter")
    multi = {a.column or n for n, a in config.attributes.items() if a.kind == "multi"}
    items, users = folder / f"{name}.item", folder / f"{name}.user"
    return Catalog.from_pandas(
        _read_atomic(items, multi) if items.is_file() else None,
        log,
        _read_atomic(users) if users.is_file() else None,
        config=config,
        root=folder,
    )


def _only_log(folder: Path) -> Path:
    logs = sorted(folder.glob("*.inter"))
    if len(logs) != 1:
        raise DataError(
            f"{folder} must hold exactly one .inter file",
            got=[path.name for path in logs],
            fix="keep one data set to a folder",
        )
    return logs[0]


def _read_tsv(path: Path, **options: object) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", encoding="utf-8", quoting=csv.QUOTE_NONE, **options)
    except (OSError, ValueError) as error:  # parser and Unicode errors are ValueErrors
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot read {path}", got=reason, fix="mend or replace it") from error


def _unquoted(cell: str) -> str:
    """Take away the quotes that some writers put around a cell that holds quotes."""
    inside = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if is_quoted else cell


def _read_atomic(path: Path, multi: Collection[str] = ()) -> pd.DataFrame:
    raw = _read_tsv(path, dtype="str", keep_default_na=False, na_values=[""])
    columns = {}
    for header in map(str, raw):
        name, _, kind = header.rpartition(":")
        if not name or kind not in get_args(_RecBoleType):
            raise DataError(
                f"a column of {path} has no known type",
                got=header,
                fix=f"write name:type with a type of {', '.join(get_args(_RecBoleType))}",
            )
        cells = raw[header].map(_unquoted, na_action="ignore")
        columns[name] = _typed(cells, name, kind, multi, path)
    return pd.DataFrame(columns)


def _typed(cells: pd.Series, name: str, kind: str, multi: Collection[str], path: Path) -> pd.Series:
    if kind == "token_seq" and name in multi:
        return cells.map(lambda cell: "|".join(cell.split()), na_action="ignore")
    try:
        if kind == "float":
            return pd.to_numeric(cells)
        if kind == "float_seq":
            return cells.map(lambda cell: [float(x) for x in cell.split()], na_action="ignore")
    except ValueError as error:
        raise DataError(
            f"column {name!r} of {path} holds no {kind}", got=str(error), fix="correct the cell"
        ) from None
    return cells


def _mmrec_arrays(folder: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for name, file in _MMREC_FEATURES.items():
        path = folder / file
        if not path.is_file():
            continue
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot read {path}", got=str(error), fix="save it as a plain array of numbers"
            ) from error
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.number):
            raise DataError(
                f"{path} is no table of numbers",
                got=f"{array.dtype} of shape {array.shape}",
                fix="save one row of numbers an item",
            )
        arrays[name] = array
    return arrays


def _feature(array: np.ndarray, num_items: int) -> Feature:
    """Lay rows out for all items; rows that are zero, absent or not finite are no content."""
    values = np.zeros((num_items, array.shape[1]), dtype=np.float32)
    values[: len(array)] = array
    values[~np.isfinite(values).all(axis=1)] = 0
    present = (values != 0).any(axis=1)
    return Feature(values, np.asarray(present, dtype=bool))
