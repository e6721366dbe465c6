"""One final run: fit under the tuned settings, measure on test."""

from __future__ import annotations

from datetime import UTC, datetime

from mmalign.benchmark.environment import commit
from mmalign.benchmark.fitting import fit_scorer
from mmalign.benchmark.memory import peak_memory, present_memory
from mmalign.benchmark.objective import Objective
from mmalign.benchmark.plan import Job
from mmalign.benchmark.results import Run, per_user
from mmalign.data.catalog import Catalog
from mmalign.evaluation.protocol import evaluate
from mmalign.interfaces import Features

__all__ = ["measure"]


def measure(job: Job, catalog: Catalog, features: Features) -> Run:
    """Fit and measure; the memory is that of the whole process, so it should do nothing else.

    Args:
        job: Its config names model, settings and seed.
        catalog: All splits.
        features: Content for the model.
    """
    start = present_memory()
    scorer, result = fit_scorer(job.config, catalog, features)
    peak = peak_memory()
    options = job.config.evaluation
    ks = (*options.ks, Objective.parse(job.config.benchmark.monitor).k)
    test, valid = (
        evaluate(scorer, catalog, split, ks=ks, exclude_seen=options.exclude_seen)
        for split in ("test", "valid")
    )
    return Run(
        model=job.model,
        seed=job.config.seed,
        key=job.key,
        test=test.to_dict(),
        valid=valid.to_dict(),
        seconds=result.seconds,
        memory={"start": start, "peak": peak},
        commit=commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        per_user=per_user(test),
    )
