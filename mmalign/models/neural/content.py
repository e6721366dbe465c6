"""Content of items as the neural baselines read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import BoolArray, Features, FloatArray
from mmalign.models.kernel import check_width, unit_rows

__all__ = ["ContentInput", "Projections"]


class ContentInput:
    """Modalities centred on the warm items that have them and scaled to unit rows.

    An item without a modality has a zero row, which is the average item's.

    Args:
        modalities: Those to use; empty means all that there are.

    Attributes:
        means: Modality to ``[D]``, drawn from warm items only.

    Example:
        >>> from mmalign.interfaces import Feature
        >>> x = Feature(np.array([[1, 0], [3, 0], [2, 5]], np.float32), np.ones(3, bool))
        >>> content = ContentInput(()).fit({"text": x}, np.array([True, True, False]))
        >>> content.rows({"text": x})["text"]
        tensor([[-1.,  0.],
                [ 1.,  0.],
                [ 0.,  1.]])
    """

    def __init__(self, modalities: tuple[str, ...]) -> None:
        self.modalities = modalities
        self.means: dict[str, FloatArray] = {}

    @property
    def dim(self) -> int:
        """Width of all modalities side by side."""
        return sum(len(mean) for mean in self.means.values())

    def fit(self, features: Features, warm: BoolArray) -> Self:
        """Draw the means.

        Raises:
            ConfigError: A modality is named that is not there.
            DataError: No warm item has any content.
        """
        for name in self.modalities:
            if name not in features:
                raise ConfigError(
                    f"no modality {name!r} in the features", fix=nearest(name, features)
                )
        self.means = {}
        for name in sorted(self.modalities or features):
            known = features[name].values[features[name].present & warm]
            if len(known):
                self.means[name] = known.mean(axis=0, dtype=np.float64).astype(np.float32)
        if not self.means:
            raise DataError(
                "no warm item has any content",
                fix="name text, image or attributes in data, or use a model without content",
            )
        return self

    def check(self, features: Features) -> None:
        """Check the widths of the modalities in use.

        Raises:
            DataError: One is not as wide as in :meth:`fit`.
        """
        for name in self.means.keys() & features.keys():
            check_width(name, features[name], len(self.means[name]))

    def rows(self, features: Features) -> dict[str, Tensor]:
        """Modality to ``[N, D]``; one that is not named is absent for all.

        Raises:
            DataError: A modality is not as wide as in :meth:`fit`.
        """
        count = len(next(iter(features.values())).present) if features else 0
        return {
            name: torch.from_numpy(unit_rows(name, features[name], mean).values)
            if name in features
            else torch.zeros(count, len(mean))
            for name, mean in self.means.items()
        }

    def concatenated(self, features: Features) -> Tensor:
        """``[N, Z]``, all modalities side by side."""
        return torch.cat(list(self.rows(features).values()), dim=1)


class Projections(nn.Module):
    """A linear map per modality, of content that is a constant and stays one.

    Args:
        inputs: Modality to ``[W, D_m]``.
        dim: Width that all are mapped to.
    """

    def __init__(self, inputs: Mapping[str, Tensor], dim: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(x.shape[1], dim) for x in inputs.values())
        for place, x in enumerate(inputs.values()):
            self.register_buffer(f"content_{place}", x, persistent=False)

    def content(self) -> list[Tensor]:
        """The constants, one per modality."""
        return [self.get_buffer(f"content_{place}") for place in range(len(self.maps))]

    def forward(self) -> list[Tensor]:
        """``[W, dim]`` per modality, in the order of the inputs."""
        return [project(x) for project, x in zip(self.maps, self.content(), strict=True)]
