"""What a network in training is measured by on valid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lightning.pytorch import LightningModule

from mmalign.evaluation.result import Evaluation

__all__ = ["METRICS", "log_valid", "monitors"]

METRICS = ("ndcg@20", "recall@20")


def monitors(slices: Sequence[str]) -> list[str]:
    """Name all that is logged on valid.

    Example:
        >>> monitors(["warm"])
        ['valid/ndcg@20', 'valid/warm_ndcg@20', 'valid/recall@20', 'valid/warm_recall@20']
    """
    names = ("", *(f"{name}_" for name in slices))
    return [f"valid/{name}{metric}" for metric in METRICS for name in names]


def log_valid(module: LightningModule, found: Evaluation) -> None:
    """Log each metric per slice and in the harmonic mean over slices; the bar shows the first."""
    for metric in METRICS:
        values = {f"{name}_": part.metrics[metric] for name, part in found.slices.items()}
        for name, value in {**values, "": found.harmonic_mean(metric)}.items():
            if np.isfinite(value):
                module.log(
                    f"valid/{name}{metric}",
                    value,
                    prog_bar=metric == METRICS[0],
                    rank_zero_only=False,
                    sync_dist=True,
                )
