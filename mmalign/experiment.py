"""One experiment as a config: data, encoders, model, training, evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmalign.data.config import DataConfig
from mmalign.errors import ConfigError, nearest
from mmalign.models import ModelConfig

__all__ = ["EvaluationConfig", "ExperimentConfig", "TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """What is watched on valid while a network trains.

    Attributes:
        monitor: Logged metric, higher is better, for early stopping and the checkpoint; the
            default is the harmonic mean of NDCG@20 over the warm, cold and all slices.
        patience: Validations without an improvement before training stops.

    Raises:
        ConfigError: ``patience`` is below 1.
    """

    monitor: str = "valid/ndcg@20"
    patience: int = 10

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError("training.patience must be 1 or more", got=self.patience, fix="try 5")


@dataclass(frozen=True)
class EvaluationConfig:
    """How rankings are measured.

    Attributes:
        ks: Cut-offs of Recall and NDCG.
        exclude_seen: Splits whose rows are taken out of a user's candidates.

    Raises:
        ConfigError: A cut-off is below 1, or ``exclude_seen`` names anything but train and valid.
    """

    ks: tuple[int, ...] = (10, 20)
    exclude_seen: tuple[str, ...] = ("train", "valid")

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ConfigError("evaluation.ks must be 1 or more", got=self.ks, fix="write [10, 20]")
        for name in self.exclude_seen:
            if name not in ("train", "valid"):
                raise ConfigError(
                    f"evaluation.exclude_seen cannot name {name!r}",
                    fix=nearest(name, ("train", "valid")),
                )


@dataclass(frozen=True)
class ExperimentConfig:
    """All that a command may be told.

    Attributes:
        seed: Of every random choice.
        data: Files and columns.
        encoders: Modality (``text``, ``image``) to a preset's name or a local folder.
        cache: Folder of encoded features.
        model: The model and its settings.
        training: Early stopping and checkpoint.
        trainer: Arguments of ``lightning.Trainer``.
        evaluation: Cut-offs and exclusions.
    """

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    encoders: dict[str, str] = field(default_factory=dict)
    cache: str = ".mmalign/cache"
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
