"""What ``mmalign validate --strict`` finds beyond the files: what the model would learn from."""

from __future__ import annotations

from dataclasses import replace

from mmalign.cli.setup import attribute_encoder, encode, load_encoders
from mmalign.data.audit import Audit, audit
from mmalign.data.catalog import Catalog
from mmalign.evaluation.leakage import Leak, find_attribute_leaks, find_leaks
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Feature, Features, Recommends
from mmalign.models import MODELS

__all__ = ["strict_audit"]

_EPOCHS = 2
"""Enough for anything that training reads to leave a trace."""


def strict_audit(config: ExperimentConfig, catalog: Catalog) -> tuple[Audit, tuple[Leak, ...]]:
    """Audit catalogue and features, and fit the model to see whether cold items reach it.

    Networks are trained for two epochs. What is not in the feature cache is encoded.
    """
    from mmalign.benchmark.fitting import fit_scorer

    epochs = min(int(config.trainer.get("max_epochs") or _EPOCHS), _EPOCHS)
    trainer = {**config.trainer, "max_epochs": epochs, "check_val_every_n_epoch": 1}
    short = replace(config, trainer=trainer)

    def fit(catalog: Catalog, features: Features) -> Recommends:
        return fit_scorer(short, catalog, features)[0]

    features: dict[str, Feature] = {}
    leaks: tuple[Leak, ...] = ()
    if MODELS[config.model.name].uses_content:
        attributes = attribute_encoder(config.data)
        features, _ = encode(config, catalog, load_encoders(config), attributes)
        if attributes is not None:
            leaks = find_attribute_leaks(lambda other: _attributes(config, other), catalog)
    return audit(catalog, features), (*leaks, *find_leaks(fit, catalog, features, seed=config.seed))


def _attributes(config: ExperimentConfig, catalog: Catalog) -> Features:
    features, _ = encode(config, catalog, {}, attribute_encoder(config.data), quiet=True)
    return features
