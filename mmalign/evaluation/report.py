"""Evaluations as tables: Markdown to compare models, one for the terminal, JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from rich.table import Table

from mmalign.evaluation.metrics import BUCKETS
from mmalign.evaluation.result import Evaluation

__all__ = ["json_text", "number", "rich_table"]

_TITLES = {"ndcg": "NDCG"}  # the others are plain words
_NOTHING = "-"


def rich_table(evaluation: Evaluation) -> Table:
    """Lay one evaluation out for the terminal: slices side by side, and recall by popularity."""
    slices = evaluation.slices
    excluded = ", ".join(evaluation.excluded) or "nothing"
    table = Table(title=f"{evaluation.split} split, seen in {excluded} excluded")
    table.add_column("")
    for name in slices:
        table.add_column(name, justify="right")

    for count in ("users", "candidates", "truths", "unreachable"):
        counts = [result.counts[count] for result in slices.values()]
        if count != "unreachable" or any(counts):
            table.add_row(count, *(f"{value:,}" for value in counts))
    for family in (("recall", "ndcg"), ("coverage", "gini", "novelty")):
        table.add_section()
        for k in evaluation.ks:
            for metric in family:
                digits = 2 if metric == "novelty" else 4
                values = [measured[f"{metric}@{k}"] for measured in evaluation.metrics.values()]
                table.add_row(f"{_title(metric)}@{k}", *(number(v, digits) for v in values))
    table.add_section()
    for bucket in BUCKETS:
        found = [result.buckets.get(bucket) for result in slices.values()]
        if any(found):
            recalls = (number(b.recall, digits=4) if b else _NOTHING for b in found)
            table.add_row(f"Recall@{evaluation.ks[-1]} {bucket} items", *recalls)
    return table


def json_text(evaluations: Mapping[str, Evaluation]) -> str:
    """Write evaluations as JSON, model name to :meth:`Evaluation.to_dict`; NaN becomes null."""
    plain = {name: evaluation.to_dict() for name, evaluation in evaluations.items()}
    return json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric.capitalize())


def number(value: float, digits: int) -> str:
    """Write a measured value; a dash where nothing could be measured."""
    return _NOTHING if math.isnan(value) else f"{value:.{digits}f}"
