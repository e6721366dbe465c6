"""One experiment as a config: data, encoders, fine-tuning, model, training, evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmalign.data.config import DataConfig
from mmalign.errors import ConfigError, nearest
from mmalign.finetuning import FinetuneConfig
from mmalign.models import MODELS, ModelConfig

__all__ = ["BenchmarkConfig", "EvaluationConfig", "ExperimentConfig", "TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """What is watched on valid while a network trains, and whether all rows are learned in the end.

    Attributes:
        monitor: Logged metric, higher is better, for early stopping and the checkpoint; the
            default is the harmonic mean of NDCG@20 over the warm, cold and all slices.
        patience: Validations without an improvement before training stops.
        refit: Whether ``mmalign fit``, once valid has told the best epoch and the calibration, fits
            anew on all rows, those of valid and test too: for serving, since nothing is left to
            measure on.

    Raises:
        ConfigError: ``patience`` is below 1.
    """

    monitor: str = "valid/ndcg@20"
    patience: int = 10
    refit: bool = False

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
class BenchmarkConfig:
    """Which models are compared, and with what effort each.

    Attributes:
        models: Names of models; empty means all that can run on the data.
        trials: Settings tried on valid per model, the configured ones among them.
        minutes: No trial of a model starts after so many minutes; by default there is no limit.
        seeds: Of the final runs of each model.
        monitor: What tuning maximises on valid: ``valid/ndcg@20``, the harmonic mean over the
            slices, or one slice as in ``valid/warm_recall@20``. A model that knows nothing of cold
            items is tuned on the warm slice.
        reference: The model that is compared to all others.
        samples: Resamples of the paired bootstrap.
        search: Model to search space, laid over the one that ships; see
            :mod:`mmalign.benchmark.space`.

    Raises:
        ConfigError: A number is too small, a model is unknown, a seed comes twice, or the
            reference is not among the models.
    """

    models: tuple[str, ...] = ()
    trials: int = 20
    minutes: float | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    monitor: str = "valid/ndcg@20"
    reference: str = "aligned"
    samples: int = 10_000
    search: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("samples", 100)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(
                    f"benchmark.{name} must be {least} or more",
                    got=value,
                    fix="leave it out for the default",
                )
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError("benchmark.minutes must be positive", got=self.minutes, fix="try 30")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(
                "benchmark.seeds must be different numbers from 0", got=self.seeds, fix="[0, 1, 2]"
            )
        for name in (*self.models, self.reference, *self.search):
            if name not in MODELS:
                raise ConfigError(f"benchmark has no model {name!r}", fix=nearest(name, MODELS))
        if self.models and self.reference not in self.models:
            raise ConfigError(
                "benchmark.reference is not among benchmark.models",
                got=self.reference,
                fix="add it, or name another reference",
            )


@dataclass(frozen=True)
class ExperimentConfig:
    """All that a command may be told.

    Attributes:
        seed: Of every random choice.
        data: Files and columns.
        encoders: Modality (``text``, ``image``, or one column as ``text.title``) to a preset's name
            or a local folder. What follows an ``@``, as in ``text.title@fame``, names
            one more reading of the same content.
        cache: Folder of encoded features.
        model: The model and its settings.
        training: Early stopping and checkpoint.
        trainer: Arguments of ``lightning.Trainer``.
        evaluation: Cut-offs and exclusions.
        benchmark: Models to compare, tuning budget and seeds.
        finetune: Objectives and towers of encoder fine-tuning.

    Raises:
        ConfigError: The seed is negative or takes more than 32 bits.
    """

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    encoders: dict[str, str] = field(default_factory=dict)
    cache: str = ".mmalign/cache"
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(
                "seed must be a number from 0 to 2^32 - 1", got=self.seed, fix="pass 0"
            )
