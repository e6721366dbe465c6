"""Models behind one interface: closed forms, neighbours, and the aligned network."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from mmalign.errors import ConfigError, nearest
from mmalign.models.aligned import Aligned, AlignedConfig
from mmalign.models.base import Model, TrainData
from mmalign.models.closed_form import (
    CollectiveConfig,
    Ease,
    EaseConfig,
    KernelRidge,
    KernelRidgeConfig,
    RidgeConfig,
)
from mmalign.models.kernel import KernelConfig
from mmalign.models.neighbours import ContentKNN, ContentKNNConfig, ItemKNN, ItemKNNConfig
from mmalign.models.popularity import Popularity, PopularityConfig, RandomConfig, RandomModel

__all__ = ["MODELS", "Aligned", "Model", "ModelConfig", "TrainData", "build_model", "kernel_of"]

MODELS: dict[str, type[Model[Any]]] = {
    "aligned": Aligned,
    "collective": KernelRidge,
    "kernel_ridge": KernelRidge,
    "ridge": KernelRidge,
    "ease": Ease,
    "item_knn": ItemKNN,
    "content_knn": ContentKNN,
    "popularity": Popularity,
    "random": RandomModel,
}


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and the settings of each, so that ``--model.name`` alone switches.

    Attributes:
        name: One of :data:`MODELS`.
    """

    name: str = "aligned"
    aligned: AlignedConfig = field(default_factory=AlignedConfig)
    collective: CollectiveConfig = field(default_factory=CollectiveConfig)
    kernel_ridge: KernelRidgeConfig = field(default_factory=KernelRidgeConfig)
    ridge: RidgeConfig = field(default_factory=RidgeConfig)
    ease: EaseConfig = field(default_factory=EaseConfig)
    item_knn: ItemKNNConfig = field(default_factory=ItemKNNConfig)
    content_knn: ContentKNNConfig = field(default_factory=ContentKNNConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        if self.name not in MODELS:
            raise ConfigError(f"unknown model {self.name!r}", fix=nearest(self.name, MODELS))


assert {f.name for f in fields(ModelConfig)} == {"name", *MODELS} - {"popularity"}


def kernel_of(config: ModelConfig) -> KernelConfig | None:
    """The content kernel of the named model; None for a model without content."""
    chosen = getattr(config, config.name, None)
    kernel: KernelConfig | None = getattr(getattr(chosen, "teacher", chosen), "kernel", None)
    return kernel


def build_model(config: ModelConfig) -> Model[Any]:
    """Make the named model, not fitted yet."""
    settings = getattr(config, config.name, PopularityConfig())
    return MODELS[config.name](settings)
