"""The reference model against every other, on every slice, with Holm's correction over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.benchmark.results import Run
from mmalign.errors import DataError
from mmalign.evaluation.significance import holm, paired_bootstrap

__all__ = ["LEVEL", "Comparison", "best_baselines", "compare"]

LEVEL = 0.95
"""Of the confidence intervals."""


@dataclass(frozen=True)
class Comparison:
    """The reference against one baseline on one slice.

    Attributes:
        slice: Of the protocol.
        baseline: Name of the other model.
        reference_mean: Mean over users and seeds.
        baseline_mean: The same of the baseline.
        difference: Reference less baseline.
        low: Lower end of its confidence interval.
        high: Upper end.
        p: Two-sided, of no difference.
        p_holm: Corrected for all slices and baselines.
        users: Of the slice.
    """

    slice: str
    baseline: str
    reference_mean: float
    baseline_mean: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    users: int


def compare(
    runs: Mapping[str, Sequence[Run]], reference: str, metric: str, *, samples: int, seed: int = 0
) -> list[Comparison]:
    """Compare on test; each user's value is the mean over the seeds of a model.

    A slice that a model does not serve, such as the cold one, is not compared.

    Args:
        runs: Model to its runs.
        reference: The model of interest; without runs of it there is nothing to compare.
        metric: Such as ``ndcg@20``.
        samples: Resamples of the bootstrap.
        seed: Of the resamples.

    Raises:
        DataError: The runs are of different users.
    """
    baselines = [model for model in runs if model != reference]
    if reference not in runs or not baselines:
        return []
    found = []
    for name in runs[reference][0].test["slices"]:
        users = runs[reference][0].per_user[f"{name}/users"]
        if not len(users):
            continue
        ours = _per_user(runs[reference], name, metric, users)
        values = {model: _per_user(runs[model], name, metric, users) for model in baselines}
        measured = [model for model in baselines if not np.isnan(values[model]).any()]
        if not measured or np.isnan(ours).any():
            continue
        theirs = np.stack([values[model] for model in measured], axis=1)
        chance = paired_bootstrap(ours[:, None] - theirs, samples=samples, level=LEVEL, seed=seed)
        found += [
            Comparison(
                slice=name,
                baseline=model,
                reference_mean=float(ours.mean()),
                baseline_mean=float(theirs[:, i].mean()),
                difference=float(chance.mean[i]),
                low=float(chance.low[i]),
                high=float(chance.high[i]),
                p=float(chance.p[i]),
                p_holm=float("nan"),
                users=len(ours),
            )
            for i, model in enumerate(measured)
        ]
    corrected = holm([one.p for one in found])
    return [replace(one, p_holm=float(p)) for one, p in zip(found, corrected, strict=True)]


def best_baselines(comparisons: Sequence[Comparison]) -> dict[str, Comparison]:
    """Slice to the comparison with its most accurate baseline, the first of equal ones."""
    best: dict[str, Comparison] = {}
    for one in comparisons:
        if one.slice not in best or one.baseline_mean > best[one.slice].baseline_mean:
            best[one.slice] = one
    return best


def _per_user(
    runs: Sequence[Run], slice_: str, metric: str, users: NDArray[Any]
) -> NDArray[np.float64]:
    """Mean over seeds, ``[B]``, in the order of ``users``."""
    for run in runs:
        if not np.array_equal(run.per_user[f"{slice_}/users"], users):
            raise DataError(
                "runs are of different users",
                got=f"{run.model}, seed {run.seed}",
                fix="remove the folder of runs and measure again",
            )
    values: NDArray[np.float64] = np.mean(
        [run.per_user[f"{slice_}/{metric}"] for run in runs], axis=0
    )
    return values
