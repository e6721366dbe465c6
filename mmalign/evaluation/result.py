"""What an evaluation found: numbers per slice, per user and per popularity bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import ConfigError, nearest
from mmalign.interfaces import IntArray

__all__ = ["Bucket", "Evaluation", "SliceResult"]


@dataclass(frozen=True)
class Bucket:
    """Recall within one popularity bucket.

    Attributes:
        items: Candidates in the bucket.
        users: Users with a truth in the bucket.
        recall: Mean over those users, at the largest k; NaN without users.
    """

    items: int
    users: int
    recall: float


@dataclass(frozen=True)
class SliceResult:
    """What was measured in one slice.

    Attributes:
        users: ``[B]`` user rows of the catalogue, in the order of ``per_user``.
        counts: ``users``, ``candidates``, ``truths``, and ``unreachable``: truths that the user
            also has in an excluded split (repeated interactions), which no ranking can find.
        metrics: Such as ``{"ndcg@20": 0.24}``; NaN in an empty slice, and in the cold slice of a
            model that does not serve cold items.
        per_user: ``[B]`` values behind the means of recall and NDCG, for intervals and tests.
        buckets: Popularity bucket to its recall, for every bucket with candidates.
    """

    users: IntArray
    counts: Mapping[str, int]
    metrics: Mapping[str, float]
    per_user: Mapping[str, NDArray[np.float64]]
    buckets: Mapping[str, Bucket]


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`mmalign.evaluation.protocol.evaluate`.

    Attributes:
        split: The split that was evaluated.
        ks: Cut-offs, ascending.
        excluded: The splits whose rows were taken out of the candidates.
        slices: Slice name to its result.
    """

    split: str
    ks: tuple[int, ...]
    excluded: tuple[str, ...]
    slices: Mapping[str, SliceResult]

    @property
    def metrics(self) -> dict[str, Mapping[str, float]]:
        """Slice name to its metrics: ``evaluation.metrics["cold"]["ndcg@20"]``."""
        return {name: result.metrics for name, result in self.slices.items()}

    def harmonic_mean(self, metric: str = "ndcg@20") -> float:
        """Harmonic mean of one metric over the slices that are not empty.

        It is low as soon as one slice is, so a model cannot buy warm accuracy with cold items.

        Returns:
            0 when some slice has 0; NaN when every slice is empty, or one could not be measured.

        Raises:
            ConfigError: The metric was not measured.
        """
        for measured in self.metrics.values():
            if metric not in measured:
                raise ConfigError(f"no metric {metric!r}", fix=nearest(metric, measured))
        values = np.array([r.metrics[metric] for r in self.slices.values() if len(r.users)])
        if len(values) == 0 or np.isnan(values).any():
            return float("nan")
        return float(len(values) / np.sum(1 / values)) if np.all(values > 0) else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the per-user arrays; NaN becomes None."""
        return {
            "split": self.split,
            "ks": list(self.ks),
            "excluded": list(self.excluded),
            "slices": {
                name: {
                    "counts": dict(result.counts),
                    "metrics": {key: _finite(value) for key, value in result.metrics.items()},
                    "buckets": {
                        key: {"items": b.items, "users": b.users, "recall": _finite(b.recall)}
                        for key, b in result.buckets.items()
                    },
                }
                for name, result in self.slices.items()
            },
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
