"""Projections that start where ridge regression would put them, instead of anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import IntArray, Tower, TowerBatch
from mmalign.trainers.finetuning.contents import Contents
from mmalign.trainers.finetuning.seeding import seeded
from mmalign.trainers.finetuning.validation import to_device
from mmalign.trainers.finetuning.views import Views

__all__ = ["check_startable", "shared_directions", "start_projections"]

BATCH_SIZE = 64
PENALTY = 10.0
"""Of the regression, in mean squared lengths of a picture's row."""


def check_startable(towers: Mapping[str, Tower]) -> None:
    """Fail before any work if there is nothing to start.

    Raises:
        ConfigError: A tower has no new linear projection.
    """
    for modality in ("text", "image"):
        if modality not in towers or not towers[modality].starts_anew:
            raise ConfigError(
                f"finetune.start: ridge sets a new linear projection, and {modality} gets none",
                fix=f"set finetune.{modality}.dim and hidden: 0, or finetune.start: random",
            )


@torch.no_grad()
def start_projections(
    towers: Mapping[str, Tower], contents: Contents, views: Mapping[str, Views], *, seed: int
) -> None:
    """Set the new linear projections of a text and an image tower to :func:`shared_directions`.

    Args:
        towers: ``text`` and ``image``; their projections are changed, nothing else is.
        contents: Pairs of the items that are trained on are encoded once, as they are.
        views: Where pictures have them, one view each stands for the picture.
        seed: Decides which.

    Raises:
        DataError: Pictures or texts of the pairs that can be read are all alike.
    """
    pairs = [r for r in contents.train if contents.plain["text"][r] and contents.plain["image"][r]]
    pictures, texts = [], []
    for start in range(0, len(pairs), BATCH_SIZE):
        block = np.array(pairs[start : start + BATCH_SIZE])
        with seeded(seed, start):
            image, text = (
                _frozen(towers[name], _batch(towers[name], contents, views, block))
                for name in ("image", "text")
            )
        both = sorted(image.keys() & text.keys())
        pictures += [image[place] for place in both]
        texts += [text[place] for place in both]
    if not all(_differ(rows) for rows in (pictures, texts)):
        raise DataError(
            "finetune.start: ridge needs pairs of different pictures and texts",
            got=f"{len(pictures)} that can be read",
            fix="check data.image and data.text, or set finetune.start: random",
        )
    weights = shared_directions(torch.stack(pictures), torch.stack(texts))
    for modality, weight in zip(("image", "text"), weights, strict=True):
        towers[modality].start_at(weight)


def shared_directions(pictures: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Directions of texts that pictures predict best, and how they predict them.

    Ridge regression gives the text's unit row, centred, from the picture's without what all
    pictures share, since a projection has no bias; the directions are the principal ones of the
    predictions (reduced-rank regression: Izenman 1975, doi 10.1016/0047-259X(75)90042-1).

    Shapes:
        pictures: ``[N, P]``; texts: ``[N, T]``; returns: ``[T, P]`` and ``[T, T]``, a direction a
        row, the best first. Projected pictures have mean length 1.
    """
    x, y = pictures.double(), normalize(texts.double(), dim=1)
    shared = normalize(x.mean(dim=0), dim=0)
    x = x - (x @ shared)[:, None] * shared
    gram = x.T @ x
    gram.diagonal().add_(PENALTY * x.square().sum(dim=1).mean())
    weight = torch.linalg.solve(gram, x.T @ (y - y.mean(dim=0)))
    predicted = x @ weight
    _, vectors = torch.linalg.eigh(predicted.T @ predicted)
    directions = vectors.flip(1)
    length = predicted.norm(dim=1).mean()
    return (weight @ directions / length).T.float(), directions.T.float()


def _differ(rows: Sequence[Tensor]) -> bool:
    return any(not torch.allclose(row, rows[0]) for row in rows[1:])


def _batch(
    tower: Tower, contents: Contents, views: Mapping[str, Views], rows: IntArray
) -> TowerBatch:
    if tower.modality in views:
        return views[tower.modality].collate(rows)
    plain = contents.plain[tower.modality]
    given = [value for row in rows if (value := plain[row]) is not None]
    return tower.collate(given, training=False)


def _frozen(tower: Tower, batch: TowerBatch) -> dict[int, Tensor]:
    """Position to what the projection is given of it."""
    if not batch.kept:
        return {}
    device = next(torch.nn.ModuleList([tower]).parameters()).device  # type: ignore[list-item]
    rows = tower.below_projection(to_device(batch.inputs, device)).float().cpu()
    return dict(zip(batch.kept, rows, strict=True))
