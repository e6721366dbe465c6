"""Content of several modalities as one kernel, and as the features that kernel stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError, nearest
from mmalign.interfaces import BoolArray, Feature, Features, FloatArray
from mmalign.models.base import Arrays, C, Model, TrainData

__all__ = ["ContentKernel", "ContentModel", "KernelConfig"]

DEFAULT_WEIGHTS = {"text": 1.0, "image": 0.25}
ATTRIBUTE_WEIGHT = 0.5


@dataclass(frozen=True)
class KernelConfig:
    """How modalities make one similarity.

    Attributes:
        kind: ``product`` multiplies ``1 + weight * cosine`` over the modalities, so that they
            interact; ``sum`` adds ``weight * cosine``, which is ridge on concatenated features.
        weights: Modality to weight; unnamed ones have 1 (text), .25 (image), .5 (attributes).
        modalities: The modalities to use; empty means all there are.
        landmarks: At most so many warm items span the feature space (Nystrom); exact below it.
        rank: Keep at most so many leading directions of the kernel.
    """

    kind: Literal["product", "sum"] = "product"
    weights: dict[str, float] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    landmarks: int = 4000
    rank: int = 4000


class ContentKernel:
    """The kernel of item content, spanned by warm items, and its explicit features.

    Every modality is centred on the warm items that have it and scaled to unit rows; an item
    without it has a zero row, which leaves the other factors of the product as they are.
    ``features`` maps items so that ``z_i . z_j`` is the centred kernel (Williams and Seeger 2001,
    "Using the Nystrom method to speed up kernel machines"); it is exact when every warm item is
    a landmark.

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

    def fit(self, features: Features, warm: BoolArray, *, seed: int = 0) -> Self:
        """Draw means, landmarks and the spectrum from warm items only.

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
        self.means = {n: features[n].values[features[n].present & warm].mean(axis=0) for n in names}
        rows = np.flatnonzero(warm)
        if len(rows) > self.config.landmarks:
            rng = np.random.default_rng(seed)
            rows = np.sort(rng.choice(rows, self.config.landmarks, replace=False))
        unit = self.unit(features)
        self.landmarks = {n: unit[n].values[rows] for n in names}
        gram = self._gram(self.landmarks).astype(np.float64)
        average = gram.mean(axis=0)
        centred = gram - average - average[:, None] + average.mean()
        values, vectors = np.linalg.eigh(centred)
        keep = np.flatnonzero(values > values[-1] * 1e-7)[::-1][: self.config.rank]
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
        return np.concatenate(blocks) if blocks else np.zeros((0, self.dim), np.float32)

    def unit(self, features: Features) -> dict[str, Feature]:
        """Centre and scale each modality in use; absent items and modalities get zero rows."""
        count = len(next(iter(features.values())).present)
        return {
            name: _unit_rows(features[name], mean)
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
        """Become what :meth:`arrays` described."""
        self.basis, self.offset = arrays["kernel.basis"], arrays["kernel.offset"]
        self.means = _by_prefix(arrays, "kernel.mean.")
        self.landmarks = _by_prefix(arrays, "kernel.landmarks.")
        return self

    def _weight(self, name: str) -> float:
        return self.config.weights.get(name, DEFAULT_WEIGHTS.get(name, ATTRIBUTE_WEIGHT))

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


def _unit_rows(feature: Feature, mean: FloatArray) -> Feature:
    if feature.values.shape[1] != len(mean):
        raise DataError(
            f"a feature must be {len(mean)} wide, as the ones this model was fitted on",
            got=feature.values.shape[1],
            fix="encode with the encoder the model was fitted with",
        )
    rows = feature.values - mean
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = (rows / np.maximum(norms, 1e-9)).astype(np.float32)
    rows[~feature.present] = 0
    return Feature(rows, feature.present)


def _by_prefix(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, FloatArray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
