"""What could not be read: how it is counted, and when nothing was compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmalign.data.held_out import split_items
from mmalign.errors import DataError
from mmalign.trainers.finetune import finetune


def with_images(shop, images):
    return type(shop).from_pandas(
        shop.items.assign(image=images), shop.interactions, config=shop.config
    )


@pytest.mark.parametrize("left", [1, 3])
def test_what_cannot_be_read_is_not_counted_as_measured(shop, towers, told, tmp_path, capsys, left):
    _, valid, _ = split_items(shop)
    images = shop.items["image"].tolist()
    for row in valid[left:]:
        images[row] = b"broken"
    broken = len(valid) - left
    result = finetune(told(2), with_images(shop, images), towers, folder=tmp_path)
    said = [n for n in capsys.readouterr().err.splitlines() if n.startswith("valid measures")]
    few = f"image and text of {left} items, {broken} could not be read, too few for recall"
    assert said == [f"valid measures {few} to say anything"]
    assert result.measure.counts("valid") == {"image and text": left}
    assert result.measure.unread("valid") == {"image and text": broken}
    assert result.measure("test")
    assert result.measure.unread("test") == {}


def test_batches_without_two_readable_pairs_compared_nothing(shop, towers, told, tmp_path):
    """Of each item one side is broken: each side has many, but never of the same item."""
    images = [
        value if n % 2 or not shop.warm[n] else b"broken"
        for n, value in enumerate(shop.items.image)
    ]
    collate = towers["text"].collate
    readable = {
        shop.items.title[n] for n in range(shop.num_items) if n % 2 == 0 or not shop.warm[n]
    }

    def some(values, *, training):
        kept = [p for p, v in enumerate(values) if any(v.startswith(t) for t in readable)]
        batch = collate([values[p] for p in kept], training=training)
        problems = {p: "no text" for p in range(len(values)) if p not in kept}
        return replace(batch, inputs=batch.inputs if kept else None, kept=kept, problems=problems)

    towers["text"].collate = some
    with pytest.raises(DataError, match="nothing could be compared in epoch 1"):
        finetune(told(1), with_images(shop, images), towers, folder=tmp_path, progress=False)


def test_one_pair_in_each_batch_compared_nothing(shop, towers, told, tmp_path):
    only = np.flatnonzero(shop.warm)[0]
    images = [
        f"broken {n}".encode() if shop.warm[n] and n != only else value
        for n, value in enumerate(shop.items.image)
    ]
    with pytest.raises(DataError, match="nothing could be compared in epoch 1"):
        finetune(told(1), with_images(shop, images), towers, folder=tmp_path, progress=False)
