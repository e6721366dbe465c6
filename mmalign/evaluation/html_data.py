"""What an HTML report shows: plain values, gathered by whoever ran the experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.errors import DataError
from mmalign.interfaces import BoolArray, FloatArray

__all__ = [
    "Curve",
    "Example",
    "Fact",
    "ItemCard",
    "ItemMap",
    "MetricTable",
    "Recommendation",
    "ReportData",
    "Step",
]


@dataclass(frozen=True)
class Fact:
    """A labelled value, already written out: ``Fact("items", "2,000", "119 of them cold")``."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class MetricTable:
    """Models against slices; the best value of a column is set in bold.

    Attributes:
        title: Heading of the table.
        rows: Model name to slice to metric to value, as ``Evaluation.metrics`` gives it per model.
            Values that are absent or NaN are shown as a dash.
        metrics: The metrics to show in each slice, higher being better.
        ours: The row to highlight, if any.
        note: A sentence below the table.
    """

    title: str
    rows: Mapping[str, Mapping[str, Mapping[str, float]]]
    metrics: tuple[str, ...] = ("ndcg@20", "recall@20")
    ours: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a training chart; curves with the same ``chart`` share axes.

    Attributes:
        chart: Title of the chart, such as ``NDCG@20 on valid``.
        name: Legend of the line, such as ``cold``.
        points: Pairs of epoch and value; NaN values leave a gap.
    """

    chart: str
    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ItemMap:
    """Items on a plane, from :func:`mmalign.evaluation.embedding_map.embedding_map`.

    Shapes:
        points: ``[N, 2]``.
        cold: ``[N]``.

    Attributes:
        categories: ``N`` names that colour the points; beyond eight they share one colour.
        titles: ``N`` texts shown when a point is hovered.
    """

    points: FloatArray
    cold: BoolArray
    categories: tuple[str, ...]
    titles: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.points), len(self.cold), len(self.categories), len(self.titles)}
        if len(lengths) > 1 or np.shape(self.points)[1:] != (2,):
            raise DataError(
                "a map needs one point [x, y], cold flag, category and title per item",
                got=f"points {np.shape(self.points)} and lengths {sorted(lengths)}",
                fix="pass aligned sequences",
            )
        if not np.isfinite(self.points).all():
            raise DataError("a map has points that are not finite", fix="drop those items")


@dataclass(frozen=True)
class ItemCard:
    """An item as shown to people.

    Attributes:
        title: Its name.
        image: A picture file or its bytes; it is shrunk and embedded. A broken or absent picture
            is replaced by the initial of the title.
        detail: A few words below the title, such as category and price.
    """

    title: str
    image: Path | bytes | None = None
    detail: str = ""


@dataclass(frozen=True)
class Recommendation:
    """A recommended item and why.

    Attributes:
        item: The item.
        score: The score it was ranked by.
        cold: True for an item without a train interaction.
        hit: True when the user did choose it in the evaluated split.
        nearest: Warm items of the history that the recommendation rests on, nearest first.
        shares: Modality to its share of the reason; non-negative, scaled to sum to 1 when drawn.
    """

    item: ItemCard
    score: float
    cold: bool
    hit: bool = False
    nearest: tuple[ItemCard, ...] = ()
    shares: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Example:
    """One user: what was chosen before, and what is recommended."""

    user: str
    history: tuple[ItemCard, ...]
    recommendations: tuple[Recommendation, ...]
    note: str = ""


@dataclass(frozen=True)
class Step:
    """How long a step of the run took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class ReportData:
    """Everything :func:`mmalign.evaluation.html.render_report` shows; empty parts are left out.

    Attributes:
        title: Heading of the page.
        subtitle: One or two sentences below it.
        summary: The few numbers that matter most, shown large.
        dataset: Facts about the data.
        tables: Measured tables.
        curves: Training curves.
        map: The embedding map.
        examples: Recommendations for some users.
        steps: The time of each step, in order.
        footer: Last line, such as version, command and date.
    """

    title: str
    subtitle: str = ""
    summary: tuple[Fact, ...] = ()
    dataset: tuple[Fact, ...] = ()
    tables: tuple[MetricTable, ...] = ()
    curves: tuple[Curve, ...] = ()
    map: ItemMap | None = None
    examples: tuple[Example, ...] = ()
    steps: tuple[Step, ...] = ()
    footer: str = ""
