"""The demo's HTML report, gathered from what the run left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from mmalign import __version__
from mmalign.data.catalog import Catalog
from mmalign.evaluation.embedding_map import embedding_map
from mmalign.evaluation.html_data import (
    Curve,
    Example,
    Fact,
    ItemMap,
    MetricTable,
    ReportData,
    Step,
)
from mmalign.evaluation.report import number
from mmalign.evaluation.result import Evaluation
from mmalign.interfaces import SLICES, SPLITS
from mmalign.recommender import Recommender
from mmalign.trainers.train import CurvePoint

__all__ = ["METRIC", "METRIC_NAME", "Run", "gather_report", "map_items"]

_K = 20
METRIC = f"ndcg@{_K}"
METRIC_NAME = f"NDCG@{_K}"
_CHARTS = {
    f"{METRIC_NAME} of the network alone, on valid": {
        name: f"valid/{name}_ndcg@{_K}" for name in SLICES
    },
    "Losses": {name: f"train/{name}" for name in ("rank", "content", "alignment")},
    "Gap between a modality and the graph": {
        name: f"diagnostics/modality_gap_{name}" for name in ("text", "image")
    },
    "Uniformity of the items, lower is more spread out": {"warm items": "diagnostics/uniformity"},
}
"""Title of a chart to the lines in it: their names, and what training calls the values."""


@dataclass(frozen=True)
class Run:
    """What a run of the demo left.

    Attributes:
        catalog: The shop.
        ours: Name of the model that is shown.
        recommender: That model.
        evaluations: Model to its figures on test, in the order of the table.
        curve: What training logged.
        map: Where the items lie.
        examples: What some shoppers are recommended.
        seconds: Step to wall time.
        command: What was typed.
    """

    catalog: Catalog
    ours: str
    recommender: Recommender
    evaluations: Mapping[str, Evaluation]
    curve: Sequence[CurvePoint]
    map: ItemMap
    examples: tuple[Example, ...]
    seconds: Mapping[str, float]
    command: str


def gather_report(run: Run) -> ReportData:
    """Put together what the report shows."""
    return ReportData(
        title="A shop that knows its new items",
        subtitle=(
            "A generated shop, real encoders, a real training run. What people like is half in the"
            " pictures and half in the texts, and some items arrive after training: they are"
            " ranked by their content alone."
        ),
        summary=_summary(run),
        dataset=_dataset(run),
        tables=(_table(run),),
        curves=_curves(run.curve),
        map=run.map,
        examples=run.examples,
        steps=tuple(Step(name, seconds) for name, seconds in run.seconds.items()),
        footer=f"mmalign {__version__} · {run.command} · {date.today().isoformat()}",
    )


def map_items(recommender: Recommender, catalog: Catalog, *, seed: int = 0) -> ItemMap:
    """Lay all items out by the model's own vectors, coloured by category.

    Args:
        recommender: Its model has the vectors.
        catalog: What it was fitted on, in the same row order.
        seed: Of the layout.
    """
    return ItemMap(
        embedding_map(recommender.model.item_vectors(), seed=seed),
        np.asarray(~catalog.warm),
        tuple(catalog.items["category"]),
        tuple(catalog.items["title"]),
    )


def _summary(run: Run) -> tuple[Fact, ...]:
    facts = []
    for name in ("cold", "warm", "all"):
        values = {model: e.metrics[name][METRIC] for model, e in run.evaluations.items()}
        own = values.pop(run.ours)
        known = {model: value for model, value in values.items() if not math.isnan(value)}
        best = max(known, key=known.__getitem__, default="")
        note = f"best of the others: {best} {known[best]:.3f}" if best else ""
        facts.append(Fact(f"{METRIC_NAME}, {name} items", number(own, digits=3), note))
    return (
        *facts,
        Fact("whole run", f"{sum(run.seconds.values()):.0f} s", "offline, on this machine"),
    )


def _dataset(run: Run) -> tuple[Fact, ...]:
    catalog, config = run.catalog, run.recommender.config
    splits = catalog.interactions["split"].value_counts()
    pictures = run.recommender.features["image"].present
    return (
        Fact("items", f"{catalog.num_items:,}", f"{int((~catalog.warm).sum())} not in train"),
        Fact("shoppers", f"{catalog.num_users:,}"),
        Fact(
            "purchases",
            f"{len(catalog.interactions):,}",
            ", ".join(f"{name} {splits.get(name, 0):,}" for name in SPLITS),
        ),
        Fact("pictures", f"{int(pictures.sum()):,}", f"by {config.encoders['image']}"),
        Fact("texts", f"{catalog.num_items:,}", f"by {config.encoders['text']}"),
        Fact("attributes", str(len(config.data.attributes)), ", ".join(config.data.attributes)),
    )


def _table(run: Run) -> MetricTable:
    counts = {name: part.counts for name, part in run.evaluations[run.ours].slices.items()}
    chance = ", ".join(
        f"{min(1.0, _K / max(count['candidates'], 1)):.3f} {name}" for name, count in counts.items()
    )
    return MetricTable(
        "Test split, every candidate ranked",
        {model: evaluation.metrics for model, evaluation in run.evaluations.items()},
        ours=run.ours,
        note=(
            f"Cold: {counts['cold']['candidates']} items whose first purchase is in test."
            f" A random order would have a Recall@{_K} of about {chance}."
            " Popularity, item_knn and ease know nothing of cold items."
        ),
    )


def _curves(curve: Sequence[CurvePoint]) -> tuple[Curve, ...]:
    found = []
    for chart, lines in _CHARTS.items():
        for name, logged in lines.items():
            points = tuple((p.epoch + 1.0, p.value) for p in curve if p.name == logged)
            if points:
                found.append(Curve(chart, name, points))
    return tuple(found)
