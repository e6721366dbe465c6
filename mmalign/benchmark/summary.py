"""All that a benchmark found, as plain values: what ``benchmark.json`` holds and tables show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mmalign.benchmark.comparison import LEVEL, best_baselines, compare
from mmalign.benchmark.environment import commit, hardware, versions
from mmalign.benchmark.objective import Objective
from mmalign.benchmark.results import Run
from mmalign.benchmark.runs import Outcome
from mmalign.data.catalog import Catalog
from mmalign.interfaces import SPLITS

__all__ = ["summarise"]


def summarise(outcome: Outcome, catalog: Catalog, command: str) -> dict[str, Any]:
    """Gather means and deviations over seeds, comparisons, and where all was measured.

    Args:
        outcome: Of all runs.
        catalog: What was measured on.
        command: The line that does it again.

    Returns:
        Plain values that JSON can hold; None stands for what is not there.
    """
    settings = outcome.plan.config.benchmark
    objective = Objective.parse(settings.monitor)
    comparisons = compare(
        outcome.runs, settings.reference, objective.metric, samples=settings.samples
    )
    best = best_baselines(comparisons)
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "data": {
            "digest": asdict(outcome.plan.data),
            "users": catalog.num_users,
            "items": catalog.num_items,
            **{split: int(catalog.matrix(split).nnz) for split in SPLITS},
        },
        "protocol": {
            "ks": sorted({*outcome.plan.config.evaluation.ks, objective.k}),
            "excluded": list(outcome.plan.config.evaluation.exclude_seen),
        },
        "budget": {
            "trials": settings.trials,
            "minutes": settings.minutes,
            "monitor": settings.monitor,
        },
        "seeds": list(settings.seeds),
        "reference": settings.reference,
        "metric": objective.metric,
        "models": {
            model: {**_measured(runs), "tuned": asdict(outcome.tuned[model])}
            for model, runs in outcome.runs.items()
        },
        "comparisons": [asdict(one) for one in comparisons],
        "best_baselines": {name: one.baseline for name, one in best.items()},
        "statistics": {"samples": settings.samples, "level": LEVEL, "family": len(comparisons)},
        "failed": outcome.failed,
        "not_run": outcome.not_run,
    }


def _measured(runs: Sequence[Run]) -> dict[str, Any]:
    total = [sum(run.seconds.values()) for run in runs]
    return {
        "test": _slices([run.test for run in runs]),
        "valid": _slices([run.valid for run in runs]),
        "seconds": {
            "total": _spread(total),
            **{step: _spread([run.seconds[step] for run in runs]) for step in runs[0].seconds},
        },
        "memory": {name: max(run.memory[name] for run in runs) for name in ("peak", "start")},
        "runs": [{"seed": run.seed, "commit": run.commit, "date": run.date} for run in runs],
    }


def _slices(evaluations: Sequence[Any]) -> dict[str, Any]:
    found = {}
    for name, first in evaluations[0]["slices"].items():
        slices = [evaluation["slices"][name] for evaluation in evaluations]
        found[name] = {
            "counts": first["counts"],
            "metrics": {
                metric: _spread([one["metrics"][metric] for one in slices])
                for metric in first["metrics"]
            },
            "buckets": {
                bucket: {
                    "items": values["items"],
                    "users": values["users"],
                    "recall": _spread([one["buckets"][bucket]["recall"] for one in slices]),
                }
                for bucket, values in first["buckets"].items()
            },
        }
    return found


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample deviation; no deviation of one value, nothing of none."""
    known = np.array([math.nan if value is None else value for value in values])
    if not np.isfinite(known).all():
        return {"mean": None, "std": None}
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)) if len(known) > 1 else None,
    }
