"""The raw content of all items, and which of them are trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.data.catalog import Catalog
from mmalign.errors import DataError, nearest
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import SPLIT, SPLITS, IntArray, Media
from mmalign.trainers.finetuning.fields import FieldText

__all__ = ["Contents", "split_items"]

HELD_OUT = 0.1


@dataclass(frozen=True)
class Contents:
    """What towers read.

    Attributes:
        plain: ``text``, ``image`` or ``text.<column>`` to the content of each item as it is encoded
            after training, None where there is none.
        render: Text of an item in an epoch of training.

    Shapes:
        ids: ``[I]``, item ids.
        train, valid, test: rows of the items that are trained on, and of those measured.
    """

    plain: Mapping[str, Sequence[Media | None]]
    render: Callable[[int, int], str | None]
    ids: NDArray[np.object_]
    train: IntArray
    valid: IntArray
    test: IntArray

    @classmethod
    def of(cls, catalog: Catalog, config: FinetuneConfig, *, seed: int) -> Contents:
        """Read the content that the data section names.

        Raises:
            ConfigError: The template or the text pairs name no text column.
        """
        text = FieldText.of(catalog, config.template, config.field_dropout, seed)
        plain: dict[str, Sequence[Media | None]] = {"text": text.plain(), "image": catalog.images()}
        for column in config.text_pairs:
            plain[f"text.{column}"] = text.column(column)
        return cls(plain, text.render, catalog.item_ids, *split_items(catalog, seed))

    def __call__(self, name: str, row: int, epoch: int) -> Media | None:
        """Content of an item in an epoch of training."""
        return self.render(row, epoch) if name == "text" else self.plain[name][row]

    def measured(self, split: str) -> IntArray:
        """Rows of ``valid`` or ``test``."""
        return self.valid if split == "valid" else self.test


def split_items(catalog: Catalog, seed: int = 0) -> tuple[IntArray, IntArray, IntArray]:
    """Say which items are trained on and which are only measured: rows of train, valid and test.

    By the items' own column ``split`` where there is one; else items with a train row are trained
    on, and cold items of valid and test are measured; in a catalogue without a log a tenth each is
    held out by the seed. Whatever is measured is never trained on.

    Raises:
        DataError: The column names another split.
    """
    if SPLIT in catalog.items.columns:
        named = catalog.items[SPLIT].astype(str).to_numpy()
        wrong = np.flatnonzero(~np.isin(named, SPLITS))
        if len(wrong):
            raise DataError(
                f"items have an unknown split in row {wrong[0]}",
                got=named[wrong[0]],
                fix=nearest(named[wrong[0]], SPLITS),
            )
        train, valid, test = (np.flatnonzero(named == name) for name in SPLITS)
    elif len(catalog.interactions):
        valid, test = (
            np.flatnonzero(~catalog.warm & (catalog.matrix(name).getnnz(axis=0) > 0))
            for name in ("valid", "test")
        )
        train, valid = np.flatnonzero(catalog.warm), np.setdiff1d(valid, test)
    else:
        order = np.random.default_rng(seed).permutation(catalog.num_items)
        held = int(HELD_OUT * catalog.num_items)
        valid, test, train = (np.sort(part) for part in np.split(order, [held, 2 * held]))
    return train, valid, test
