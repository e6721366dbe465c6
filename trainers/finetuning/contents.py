"""The raw content of all items, and which of them are trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.data.catalog import Catalog
from mmalign.data.held_out import split_items
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import IntArray, Media
from mmalign.trainers.finetuning.fields import FieldText

__all__ = ["Contents"]


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
