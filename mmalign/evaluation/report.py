"""Evaluations as tables: Markdown to compare models, one for the terminal, JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from rich.table import Table

from mmalign.errors import ConfigError
from mmalign.evaluation.metrics import BUCKETS
from mmalign.evaluation.result import Evaluation

__all__ = ["json_text", "markdown_table", "number", "rich_table"]

_TITLES = {"ndcg": "NDCG"}  # the others are plain words
_NOTHING = "-"


def markdown_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Compare models: one row each, NDCG and Recall of every slice, the best of a column in bold.

    Uses the largest cut-off that all of them share. The last column is the harmonic mean of the
    NDCG of the slices.

    Args:
        evaluations: Model name to its evaluation; the rows keep this order.

    Raises:
        ConfigError: No evaluations, or ones that do not compare: other splits, exclusions or
            slices, or no shared cut-off.
    """
    k = _shared_cutoff(evaluations)
    slices = list(next(iter(evaluations.values())).slices)
    titles = [f"{name} {_title(metric)}@{k}" for metric in ("ndcg", "recall") for name in slices]
    columns = [
        [evaluation.metrics[name][f"{metric}@{k}"] for evaluation in evaluations.values()]
        for metric in ("ndcg", "recall")
        for name in slices
    ]
    titles.append(f"harmonic NDCG@{k}")
    columns.append([e.harmonic_mean(f"ndcg@{k}") for e in evaluations.values()])

    cells = [_highlight([number(value, digits=4) for value in column]) for column in columns]
    names = [name.replace("|", "\\|") for name in evaluations]
    lines = [["model", *titles], ["---", *("---:" for _ in titles)]]
    lines += [list(row) for row in zip(names, *cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


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


def _shared_cutoff(evaluations: Mapping[str, Evaluation]) -> int:
    if not evaluations:
        raise ConfigError("there are no evaluations to compare", fix="pass at least one")
    protocols = {(e.split, e.excluded, tuple(e.slices)) for e in evaluations.values()}
    if len(protocols) > 1:
        raise ConfigError(
            "the evaluations follow different protocols",
            got=sorted(protocols),
            fix="evaluate all models with the same split, exclude_seen and slices",
        )
    shared = set.intersection(*(set(e.ks) for e in evaluations.values()))
    if not shared:
        raise ConfigError(
            "the evaluations share no cut-off",
            got={name: e.ks for name, e in evaluations.items()},
            fix="evaluate all models with the same ks",
        )
    return max(shared)


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric.capitalize())


def number(value: float, digits: int) -> str:
    """Write a measured value; a dash where nothing could be measured."""
    return _NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def _highlight(column: list[str]) -> list[str]:
    """Set the best value in bold, with all that print the same; a single row needs none."""
    best = max((cell for cell in column if cell != _NOTHING), key=float, default=None)
    if best is None or len(column) == 1:
        return column
    return [f"**{cell}**" if cell == best else cell for cell in column]
