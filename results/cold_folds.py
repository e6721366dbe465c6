"""Measure cold items on folds: ``python results/cold_folds.py DATA`` writes ``cold_folds.md``.

The test split has 241 cold items, one draw. Here all warm items of the films play cold once: they
are dealt into eight folds of that size, and each fold leaves train and valid altogether, is ranked
on its own and compared. Test rows are never read. ``DATA`` is the folder of the films with
``benchmark.parquet``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmalign.benchmark.environment import provenance
from mmalign.cli import setup
from mmalign.config import from_dict, load_yaml, merge
from mmalign.data.catalog import Catalog
from mmalign.evaluation.protocol import evaluate
from mmalign.evaluation.significance import holm, resampled_t
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import ITEM_ID, SPLIT, IntArray
from mmalign.recommender import Recommender
from mmalign.trainers.fit import fit

HERE = Path(__file__).parent
CONFIGS = ("configs/movies.yaml", "configs/movies_large.yaml")
MODELS = ("ials", "l3ae", "ease_knn", "collective", "aligned")
FOLDS, SIZE, SEED = 8, 241, 1


def playing_cold(catalog: Catalog, items: IntArray) -> Catalog:
    """The same catalogue, whose test rows are what was train of these items, and nothing else."""
    log = catalog.interactions
    chosen = log[ITEM_ID].isin(catalog.item_ids[items])
    kept = log[np.where(chosen, log[SPLIT] == "train", log[SPLIT] != "test")].copy()
    kept.loc[chosen[kept.index], SPLIT] = "test"
    return replace(catalog, interactions=kept.reset_index(drop=True))


def table(found: list[dict[str, float]], test_per_train: float) -> str:
    """Means over folds, and what the last model has over each of the others."""
    values = {name: np.array([fold[name] for fold in found]) for name in MODELS}
    ours = values[MODELS[-1]]
    tests = [
        resampled_t(ours - values[name], test_per_train) if len(found) > 1 else (np.nan, np.nan)
        for name in MODELS[:-1]
    ]
    corrected = holm([p for _, p in tests]) if len(found) > 1 else [np.nan] * len(tests)
    lines = ["| model | cold ndcg@20 | aligned has more | p (Holm) |", "|---|---:|---:|---:|"]
    for name, (error, _), p in zip(MODELS[:-1], tests, corrected, strict=True):
        mean, gain = values[name].mean(), (ours - values[name]).mean()
        lines.append(f"| {name} | {mean:.4f} | {gain:+.4f} ± {error:.4f} | {p:.4f} |")
    return "\n".join([*lines, f"| **aligned** | {ours.mean():.4f} | | |"])


def main() -> None:
    """Measure fold by fold; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the films")
    parser.add_argument("--config", nargs="+", default=CONFIGS)
    parser.add_argument("--cache", default=".mmalign/cache")
    options = parser.parse_args()
    origin, started = provenance(), time.perf_counter()
    place = {"path": options.data, "interactions": "benchmark.parquet"}
    values = {"data": place, "cache": options.cache, "training": {"patience": 4}}
    for layer in reversed(options.config):
        values = merge(load_yaml(layer), values)
    config = from_dict(ExperimentConfig, values)
    catalog = Catalog.read(config.data)
    encoders = setup.load_encoders(config)
    features, _ = setup.encode(config, catalog, encoders, setup.attribute_encoder(config.data))
    dealt = np.random.default_rng(SEED).permutation(np.flatnonzero(catalog.warm))
    found: list[dict[str, float]] = []
    for number in range(FOLDS):
        fold = playing_cold(catalog, dealt[number * SIZE : (number + 1) * SIZE])
        row = {}
        for name in MODELS:
            chosen = replace(config, model=replace(config.model, name=name))
            result = fit(chosen, fold, features, folder=".mmalign/runs/folds", progress=False)
            fitted = Recommender.from_catalog(
                result.model, result.calibration, chosen, fold, features
            )
            scorer = fitted.for_catalog(fold)
            row[name] = evaluate(scorer, fold, ks=(20,), slices=("cold",)).metrics["cold"][
                "ndcg@20"
            ]
        found.append(row)
        print(number, {name: round(value, 4) for name, value in row.items()}, flush=True)
        head = (
            "# Films: all warm items play cold once\n\n"
            f"`python results/cold_folds.py DATA --config {' '.join(options.config)}`, {origin}; "
            f"{(time.perf_counter() - started) / 60:.0f} minutes.\n\n"
            f"{len(found)} folds of {SIZE} items that leave train and valid and are ranked on "
            "their own; models as configured, seed 0. Mean difference with its standard error over "
            "folds, widened for what their training has in common, and the two-sided p of that "
            "t-test (Nadeau and Bengio 2003) after Holm's correction. Settings were chosen on such "
            "folds of the same items and on valid, so these items were not unknown.\n\n"
        )
        rows = table(found, SIZE / (catalog.warm.sum() - SIZE))
        (HERE / "cold_folds.md").write_text(f"{head}{rows}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
