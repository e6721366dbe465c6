"""Models behind one interface: closed forms, neighbours, and the aligned network."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from mmalign.errors import ConfigError, nearest
from mmalign.models.aligned import Aligned, AlignedConfig
from mmalign.models.base import Model, TrainData
from mmalign.models.bpr import BPR, BPRConfig
from mmalign.models.closed_form import (
    CollectiveConfig,
    Ease,
    EaseConfig,
    KernelRidge,
    KernelRidgeConfig,
    RidgeConfig,
)
from mmalign.models.content_mean import ContentMean, ContentMeanConfig
from mmalign.models.ease_knn import EaseKNN, EaseKNNConfig
from mmalign.models.fused import Fused, FusedConfig
from mmalign.models.graph_ease import GraphEase, GraphEaseConfig
from mmalign.models.ials import IALS, IALSConfig
from mmalign.models.l3ae import L3AE, L3AEConfig
from mmalign.models.neighbours import ContentKNN, ContentKNNConfig, ItemKNN, ItemKNNConfig
from mmalign.models.neural.aldi import ALDI, ALDIConfig
from mmalign.models.neural.alpharec import AlphaRec, AlphaRecConfig
from mmalign.models.neural.bm3 import BM3, BM3Config
from mmalign.models.neural.clcrec import CLCRec, CLCRecConfig
from mmalign.models.neural.dropoutnet import DropoutNet, DropoutNetConfig
from mmalign.models.neural.freedom import Freedom, FreedomConfig
from mmalign.models.neural.gar import GAR, GARConfig
from mmalign.models.neural.lightgcn import LightGCN, LightGCNConfig
from mmalign.models.neural.mgcn import MGCN, MGCNConfig
from mmalign.models.neural.pgl import PGL, PGLConfig
from mmalign.models.neural.vbpr import VBPR, VBPRConfig
from mmalign.models.popularity import Popularity, PopularityConfig, RandomConfig, RandomModel
from mmalign.models.slim import SLIM, SLIMConfig

__all__ = ["MODELS", "Aligned", "Model", "ModelConfig", "TrainData", "build_model", "modalities_of"]

MODELS: dict[str, type[Model[Any]]] = {
    "aligned": Aligned,
    "collective": KernelRidge,
    "kernel_ridge": KernelRidge,
    "ridge": KernelRidge,
    "ease": Ease,
    "ease_knn": EaseKNN,
    "graph_ease": GraphEase,
    "fused": Fused,
    "l3ae": L3AE,
    "slim": SLIM,
    "ials": IALS,
    "bpr": BPR,
    "item_knn": ItemKNN,
    "content_knn": ContentKNN,
    "content_mean": ContentMean,
    "lightgcn": LightGCN,
    "vbpr": VBPR,
    "dropoutnet": DropoutNet,
    "alpharec": AlphaRec,
    "aldi": ALDI,
    "bm3": BM3,
    "clcrec": CLCRec,
    "freedom": Freedom,
    "gar": GAR,
    "mgcn": MGCN,
    "pgl": PGL,
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
    ease_knn: EaseKNNConfig = field(default_factory=EaseKNNConfig)
    graph_ease: GraphEaseConfig = field(default_factory=GraphEaseConfig)
    fused: FusedConfig = field(default_factory=FusedConfig)
    l3ae: L3AEConfig = field(default_factory=L3AEConfig)
    slim: SLIMConfig = field(default_factory=SLIMConfig)
    ials: IALSConfig = field(default_factory=IALSConfig)
    bpr: BPRConfig = field(default_factory=BPRConfig)
    item_knn: ItemKNNConfig = field(default_factory=ItemKNNConfig)
    content_knn: ContentKNNConfig = field(default_factory=ContentKNNConfig)
    content_mean: ContentMeanConfig = field(default_factory=ContentMeanConfig)
    lightgcn: LightGCNConfig = field(default_factory=LightGCNConfig)
    vbpr: VBPRConfig = field(default_factory=VBPRConfig)
    dropoutnet: DropoutNetConfig = field(default_factory=DropoutNetConfig)
    alpharec: AlphaRecConfig = field(default_factory=AlphaRecConfig)
    aldi: ALDIConfig = field(default_factory=ALDIConfig)
    bm3: BM3Config = field(default_factory=BM3Config)
    clcrec: CLCRecConfig = field(default_factory=CLCRecConfig)
    freedom: FreedomConfig = field(default_factory=FreedomConfig)
    gar: GARConfig = field(default_factory=GARConfig)
    mgcn: MGCNConfig = field(default_factory=MGCNConfig)
    pgl: PGLConfig = field(default_factory=PGLConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        if self.name not in MODELS:
            raise ConfigError(f"unknown model {self.name!r}", fix=nearest(self.name, MODELS))


assert {f.name for f in fields(ModelConfig)} == {"name", *MODELS} - {"popularity"}


def modalities_of(config: ModelConfig) -> tuple[str, ...]:
    """Modalities that the named model is told to read; nothing when it reads all, or none."""
    chosen = getattr(config, config.name, None)
    reader = getattr(getattr(chosen, "teacher", chosen), "kernel", chosen)
    modalities: tuple[str, ...] = getattr(reader, "modalities", ())
    return modalities


def build_model(config: ModelConfig, *, seed: int = 0) -> Model[Any]:
    """Make the named model, not fitted yet; ``seed`` is for settings that name none."""
    settings = getattr(config, config.name, PopularityConfig())
    if getattr(settings, "seed", seed) is None:
        settings = replace(settings, seed=seed)
    return MODELS[config.name](settings)
