"""One configuration, fitted and ready to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory

from lightning.pytorch import Callback

from mmalign.benchmark.space import lay
from mmalign.data.catalog import Catalog
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Features, Recommends
from mmalign.recommender import Recommender
from mmalign.trainers.fit import FitResult, fit

__all__ = ["fit_scorer", "seeded"]


def fit_scorer(
    config: ExperimentConfig,
    catalog: Catalog,
    features: Features,
    *,
    callbacks: Sequence[Callback] = (),
) -> tuple[Recommends, FitResult]:
    """Fit and calibrate as ``mmalign fit`` does, and rank as the saved recommender would.

    Logs and checkpoints go to a temporary folder that is gone afterwards.
    """
    with TemporaryDirectory(prefix="mmalign-") as folder:
        result = fit(config, catalog, features, folder=folder, progress=False, callbacks=callbacks)
    ready = Recommender.from_catalog(result.model, result.calibration, config, catalog, features)
    return ready.for_catalog(catalog), result


def seeded(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    """Give a config its seed, and the named model too where it has one of its own.

    Example:
        >>> config = lay(ExperimentConfig(), "random", {})
        >>> seeded(config, 3).model.random.seed
        3
    """
    config, name = replace(config, seed=seed), config.model.name
    if hasattr(getattr(config.model, name, None), "seed"):
        return lay(config, name, {"seed": seed})
    return config
