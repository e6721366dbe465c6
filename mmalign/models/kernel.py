"""Content of several modalities as one kernel, and as the features that kernel stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import BoolArray, Feature, Features, FloatArray
from mmalign.models.base import Arrays, C, Model, TrainData, part

__all__ = ["ContentKernel", "ContentModel", "KernelConfig", "check_width", "unit_rows"]

DEFAULT_WEIGHTS = {"text": 1.0, "image": 0.25}
OTHER_WEIGHT = 0.5


@dataclass(frozen=True)
class KernelConfig:
    """How modalities make one similarity.

    Attributes:
        kind: ``product`` multiplies ``1 + weight * cosine`` over the modalities, so that they
            interact; ``sum`` adds ``weight * cosine``, which is ridge on concatenated features.
        weights: Modality to weight; unnamed ones have 1 (text), .25 (image), .5 (others).
        modalities: The modalities to use; empty means all there are.
        landmarks: At most so many warm items span the feature space (Nystrom); exact below it.
        rank: Keep at most so many leading directions of the kernel.

    Raises:
        ConfigError: A weight is negative, or ``landmarks`` or ``rank`` is below 1.
    """

    kind: Literal["product", "sum"] = "product"
    weights: dict[str, float] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    landmarks: int = 4000
    rank: int = 4000

    def __post_init__(self) -> None:
        for name in ("landmarks", "rank"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"kernel.{name} must be at least 1",
                    got=getattr(self, name),
                    fix="leave it out for the default",
                )
        for name, weight in self.weights.items():
            if not 0 <= weight < np.inf:
                raise ConfigError(
                    f"kernel.weights.{name} must be finite and not negative",
                    got=weight,
                    fix="0 leaves the modality out",
                )


class ContentKernel:
    """The kernel of item content, spanned by warm items, and its explicit features.

    Every modality is centred on the warm items that have it and scaled to unit rows; an item
    without it has a zero row, which leaves the other factors of the product as they are.
    :meth:`transform` maps items so that ``z_i . z_j`` is the centred kernel (Williams and Seeger
    2001, "Using the Nystrom method to speed up kernel machines"); it is exact when every warm item
    is a landmark. An item without any modality is placed at the centre, a zero row: nothing is
    known about it, and it resembles nothing.

    Example:
        >>> x = Feature(np.eye(3, dtype=np.float32), np.ones(3, bool))
        >>> kernel = ContentKernel(KernelConfig()).fit({"text": x}, np.ones(3, bool))
        >>> kernel.transform({"text": x}).shape
        (3, 2)
    """

    def __init__(self, config: KernelConfig) -> None:
        self.config = config
        self.means: dict[str, FloatArray] = {}
        self.landmarks: dict[str, FloatArray] = {}
        self.offset: FloatArray = np.zeros(0, np.float32)
        self.basis: FloatArray = np.zeros((0, 0), np.float32)

    @property
    def modalities(self) -> list[str]:
        """The modalities in use, in a fixed order."""
        return sorted(self.means)

    @property
    def dim(self) -> int:
        """Length of one row of :meth:`transform`."""
        return int(self.basis.shape[1])

    def fit(self, features: Features, warm: BoolArray) -> Self:
        """Draw means, landmarks and the spectrum from warm items only; the landmarks by seed 0.

        Raises:
            ConfigError: The config names a modality that is not there.
            DataError: There is no content at all.
        """
        names = self.config.modalities or tuple(features)
        for name in (*names, *self.config.weights):
            if name not in features:
                raise ConfigError(
                    f"no modality {name!r} in the features", fix=nearest(name, features)
                )
        names = tuple(n for n in names if (features[n].present & warm).any())
        if not names:
            raise DataError(
                "no warm item has any content",
                fix="name text, image or attributes in data, or use a model without content",
            )
        self.means = {n: _mean(features[n].values[features[n].present & warm]) for n in names}
        rows = np.flatnonzero(warm & _any_present([features[n] for n in names]))
        if len(rows) > self.config.landmarks:
            rng = np.random.default_rng(0)
            rows = np.sort(rng.choice(rows, self.config.landmarks, replace=False))
        unit = self.unit(features)
        self.landmarks = {n: unit[n].values[rows] for n in names}
        gram = self._gram(self.landmarks).astype(np.float64)
        average = gram.mean(axis=0)
        centred = gram - average - average[:, None] + average.mean()
        values, vectors = np.linalg.eigh(centred)
        rounding = np.finfo(np.float32).eps * np.sqrt(len(rows)) * np.abs(gram).max()
        keep = np.flatnonzero(values > max(values[-1] * 1e-7, rounding))[::-1][: self.config.rank]
        self.basis = (vectors[:, keep] / np.sqrt(values[keep])).astype(np.float32)
        self.offset = average.astype(np.float32)
        return self

    def transform(self, features: Features, *, block_size: int = 4096) -> FloatArray:
        """Map items to ``[N, D]`` features whose inner products are the centred kernel."""
        unit = self.unit(features)
        count = len(next(iter(unit.values())).present)
        blocks = []
        for start in range(0, count, block_size):
            part = {n: x.values[start : start + block_size] for n, x in unit.items()}
            gram = self._gram(part) - self.offset
            # basis columns sum to zero, so centring the rows of the Gram matrix changes nothing
            blocks.append(gram @ self.basis)
        empty = np.zeros((0, self.dim), np.float32)
        mapped = np.concatenate([empty, *blocks]).astype(np.float32, copy=False)
        mapped[~_any_present(unit.values())] = 0
        return mapped

    def unit(self, features: Features) -> dict[str, Feature]:
        """Centre and scale each modality in use; absent items and modalities get zero rows."""
        count = len(next(iter(features.values())).present)
        return {
            name: unit_rows(name, features[name], mean)
            if name in features
            else Feature(np.zeros((count, len(mean)), np.float32), np.zeros(count, dtype=bool))
            for name, mean in sorted(self.means.items())
        }

    def similarities(self, features: Features, others: Features) -> dict[str, FloatArray]:
        """Per modality, the weighted factor's logarithm (product) or addend (sum), ``[N, M]``.

        Adding them over modalities gives the (log) kernel, so each one's share can be shown.
        """
        left, right = self.unit(features), self.unit(others)
        parts = {n: self._weight(n) * (left[n].values @ right[n].values.T) for n in self.modalities}
        if self.config.kind == "product":
            return {n: np.log1p(np.maximum(p, -0.999)) for n, p in parts.items()}
        return parts

    def arrays(self) -> Arrays:
        """All that was drawn from warm items, as named arrays."""
        stored: Arrays = {"kernel.basis": self.basis, "kernel.offset": self.offset}
        for name in self.modalities:
            stored[f"kernel.mean.{name}"] = self.means[name]
            stored[f"kernel.landmarks.{name}"] = self.landmarks[name]
        return stored

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described.

        Raises:
            KeyError: An array is missing.
            ValueError: The arrays do not fit together.
        """
        self.basis, self.offset = arrays["kernel.basis"], arrays["kernel.offset"]
        self.means = part(arrays, "kernel.mean.")
        self.landmarks = {name: arrays[f"kernel.landmarks.{name}"] for name in self.means}
        for name, mean in self.means.items():
            if self.landmarks[name].shape != (len(self.basis), len(mean)):
                raise ValueError(f"landmarks of {name!r} do not fit the mean and the basis")
        if self.offset.shape != (len(self.basis),):
            raise ValueError("the kernel's offset does not fit its basis")
        return self

    def _weight(self, name: str) -> float:
        return self.config.weights.get(name, DEFAULT_WEIGHTS.get(name, OTHER_WEIGHT))

    def _gram(self, left: Mapping[str, FloatArray]) -> FloatArray:
        gram: FloatArray | None = None
        for name in self.modalities:
            part = self._weight(name) * (left[name] @ self.landmarks[name].T)
            if self.config.kind == "product":
                part = 1 + part
                gram = part if gram is None else gram * part
            else:
                gram = part if gram is None else gram + part
        assert gram is not None
        return gram


class ContentModel(Model[C]):
    """A model that sees items through a :class:`ContentKernel`; its config has a ``kernel``.

    Attributes:
        content: ``[I, D]``, the kernel's features of all items, warm and cold.
    """

    uses_content: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("warm", "content")
    kernel: ContentKernel
    content: FloatArray

    def fit_content(self, data: TrainData) -> None:
        """Fit the kernel on warm items and map all items through it."""
        self.warm = data.warm
        self.kernel = self._new_kernel().fit(data.features, data.warm)
        self.content = self.kernel.transform(data.features)

    def item_vectors(self) -> FloatArray:
        """``[I, D]`` content features."""
        return self.content

    def arrays(self) -> Arrays:
        """The kernel beside all else that was learned."""
        return super().arrays() | self.kernel.arrays()

    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become what :meth:`arrays` described."""
        self.kernel = self._new_kernel().load_arrays(arrays)
        return super().load_arrays(arrays)

    def _append(self, features: Features, count: int) -> None:
        self.content = np.concatenate([self.content, self.kernel.transform(features)])

    def _new_kernel(self) -> ContentKernel:
        kernel: KernelConfig = self.config.kernel  # type: ignore[attr-defined]
        return ContentKernel(kernel)


def check_width(name: str, feature: Feature, width: int) -> None:
    """Check that a feature is as wide as the one a model was fitted on.

    Raises:
        DataError: It is not.
    """
    if feature.values.shape[1] != width:
        raise DataError(
            f"feature {name!r} must be {width} wide, as the one this model was fitted on",
            got=feature.values.shape[1],
            fix="encode with the encoder the model was fitted with",
        )


def unit_rows(name: str, feature: Feature, mean: FloatArray) -> Feature:
    """Centre a feature's rows ``[N, D]`` and scale them to length 1; absent ones are zero.

    Raises:
        DataError: The width is not that of the mean.
    """
    check_width(name, feature, len(mean))
    centred = feature.values - mean
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    rounding = 1e-6 * np.linalg.norm(feature.values, axis=1, keepdims=True)
    rows: FloatArray = (centred / np.where(norms > rounding, norms, np.inf)).astype(np.float32)
    rows[~feature.present] = 0
    return Feature(rows, feature.present)


def _mean(rows: FloatArray) -> FloatArray:
    """Mean of rows, added up in double precision: float32 loses digits over many rows."""
    mean: FloatArray = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _any_present(features: Iterable[Feature]) -> BoolArray:
    """``[I]``: items that have at least one of the modalities."""
    marks: BoolArray = np.logical_or.reduce([x.present for x in features])
    return marks
