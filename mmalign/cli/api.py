"""What ``import mmalign`` offers in Python of what the command line does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmalign.cli.fit import fit_recommender
from mmalign.cli.items import add_items as append_items
from mmalign.cli.setup import check_trainer_names, resolve_paths
from mmalign.config import from_dict, load_yaml
from mmalign.data.catalog import Catalog
from mmalign.errors import DataError
from mmalign.experiment import ExperimentConfig
from mmalign.recommender import Recommender

if TYPE_CHECKING:
    from lightning.pytorch import Callback

__all__ = ["add_items", "fit"]


def fit(
    config: str | Path | Mapping[str, Any] | ExperimentConfig,
    *,
    catalog: Catalog | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Recommender:
    """Read, check, encode, fit and measure on valid, as ``mmalign fit`` does.

    Args:
        config: A YAML file, the same as plain values, or the config itself.
        catalog: Data at hand, such as of :meth:`mmalign.data.Catalog.from_pandas`; its config takes
            the place of ``data``, and nothing is read.
        callbacks: More of Lightning's for a network's training.
        progress: Whether to show bars and notes on standard error.

    Returns:
        A recommender; keep it with ``save_pretrained``.

    Raises:
        MMAlignError: The config or the data cannot be used, or training failed.
    """
    if isinstance(config, str | Path):
        config = load_yaml(config)
    if not isinstance(config, ExperimentConfig):
        config = from_dict(ExperimentConfig, config)
    check_trainer_names(config)
    if catalog is not None:
        config = replace(config, data=catalog.config)
    recommender, _, _ = fit_recommender(
        resolve_paths(config), None, catalog=catalog, callbacks=callbacks, progress=progress
    )
    return recommender


def add_items(
    recommender: Recommender,
    items: pd.DataFrame,
    folder: str | Path | None = None,
    *,
    progress: bool = True,
) -> int:
    """Encode new items and append them by content alone, as ``mmalign add-items`` does.

    The encoders are those the recommender was fitted with. Features that were made elsewhere are
    for :meth:`mmalign.Recommender.add_items`.

    Args:
        recommender: Grows in place; nothing is trained and nobody's scores change.
        items: ``item_id``, and the columns that it was fitted on.
        folder: Where paths of pictures start; by default the folder of the fitted data.
        progress: Whether to show bars and notes on standard error.

    Returns:
        How many.

    Raises:
        DataError: The table cannot be used, an item is known already, or the model cannot place
            items that nobody has touched.
        EncoderError: An encoder here is not the one the recommender was fitted with.
    """
    config = recommender.config
    if not isinstance(items, pd.DataFrame):
        raise DataError(
            "new items must be a pandas frame",
            got=type(items).__name__,
            fix="pass pandas.DataFrame(...)",
        )
    if folder is not None and not Path(folder).is_dir():
        raise DataError("no such folder of pictures", got=str(folder), fix="check the path")
    folders = [Path(config.data.path if folder is None else folder)]
    return append_items(recommender, items, config, folders, progress=progress)
