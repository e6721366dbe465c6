"""One experiment as a config."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmalign.config import from_dict, load_yaml, to_dict
from mmalign.errors import ConfigError
from mmalign.experiment import (
    BenchmarkConfig,
    EvaluationConfig,
    ExperimentConfig,
    TrainingConfig,
)

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_defaults_make_an_experiment() -> None:
    config = from_dict(ExperimentConfig, {})
    assert config == ExperimentConfig()
    assert config.model.name == "aligned"
    assert config.evaluation.exclude_seen == ("train", "valid")


def test_defaults_are_not_shared() -> None:
    assert ExperimentConfig().encoders is not ExperimentConfig().encoders


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_config_that_ships_can_be_read(path: Path) -> None:
    config = from_dict(ExperimentConfig, load_yaml(path))
    assert from_dict(ExperimentConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"ks": (0, 10)}, "ks"),
        ({"ks": ()}, "ks"),
        ({"exclude_seen": ("tran",)}, "did you mean 'train'"),
        ({"exclude_seen": ("test",)}, "cannot name 'test'"),
    ],
)
def test_impossible_evaluation(section: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        EvaluationConfig(**section)  # type: ignore[arg-type]


def test_impossible_patience() -> None:
    with pytest.raises(ConfigError, match=r"training\.patience"):
        TrainingConfig(patience=0)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"trials": 0}, "benchmark.trials must be 1 or more"),
        ({"samples": 50}, "benchmark.samples must be 100 or more"),
        ({"minutes": 0}, "benchmark.minutes"),
        ({"seeds": ()}, "benchmark.seeds"),
        ({"seeds": (1, 1)}, "benchmark.seeds"),
        ({"seeds": (-1,)}, "benchmark.seeds"),
        ({"models": ("eese", "aligned")}, "did you mean 'ease'"),
        ({"reference": "alined"}, "did you mean 'aligned'"),
        ({"search": {"eas": {}}}, "did you mean 'ease'"),
        ({"models": ("ease",)}, "reference is not among"),
    ],
)
def test_impossible_benchmark(section: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        BenchmarkConfig(**section)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(ConfigError, match="seed must be a number from 0"):
        ExperimentConfig(seed=seed)
