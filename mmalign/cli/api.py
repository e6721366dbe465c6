"""What ``import mmalign`` offers in Python of what the command line does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmalign.cli.fit import fit_recommender
from mmalign.cli.setup import check_trainer_names, resolve_paths
from mmalign.config import from_dict, load_yaml
from mmalign.experiment import ExperimentConfig
from mmalign.recommender import Recommender

__all__ = ["fit"]


def fit(
    config: str | Path | Mapping[str, Any] | ExperimentConfig, *, progress: bool = True
) -> Recommender:
    """Read, check, encode, fit and measure on valid, as ``mmalign fit`` does.

    Args:
        config: A YAML file, the same as plain values, or the config itself.
        progress: Whether to show bars and notes on standard error.

    Returns:
        A recommender; keep it with ``save_pretrained``.

    Raises:
        MMAlignError: The config or the data cannot be used, or training failed.
    """
    if isinstance(config, str | Path):
        config = load_yaml(config)
    if not isinstance(config, ExperimentConfig):
        config = from_dict(ExperimentConfig, config)
    check_trainer_names(config)
    recommender, _, _ = fit_recommender(resolve_paths(config), "python", progress=progress)
    return recommender
