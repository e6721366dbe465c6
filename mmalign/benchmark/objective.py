"""What tuning maximises: one number of an evaluation on valid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from mmalign.errors import ConfigError
from mmalign.evaluation.result import Evaluation
from mmalign.interfaces import SLICES
from mmalign.models import Model

__all__ = ["Objective"]

_PATTERN = re.compile(rf"valid/(?:({'|'.join(SLICES)})_)?((?:ndcg|recall)@([1-9]\d*))")


@dataclass(frozen=True)
class Objective:
    """A metric, of one slice or as the harmonic mean over all.

    Attributes:
        metric: Such as ``ndcg@20``.
        k: Its cut-off.
        slice: ``warm``, ``cold``, ``all``, or None for the harmonic mean.

    Example:
        >>> Objective.parse("valid/warm_recall@20")
        Objective(metric='recall@20', k=20, slice='warm')
        >>> str(Objective.parse("valid/ndcg@20"))
        'valid/ndcg@20'
    """

    metric: str
    k: int
    slice: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``valid/ndcg@20`` or ``valid/warm_recall@20``.

        Raises:
            ConfigError: It is neither.
        """
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise ConfigError(
                "benchmark.monitor names no metric",
                got=text,
                fix="valid/ndcg@20, or of one slice: valid/warm_recall@20",
            )
        return cls(found[2], int(found[3]), found[1])

    def for_model(self, model: type[Model[Any]]) -> Objective:
        """The same on the warm slice for a model that knows nothing of cold items."""
        return self if model.serves_cold else Objective(self.metric, self.k, "warm")

    @property
    def slices(self) -> tuple[str, ...]:
        """The slices that have to be evaluated."""
        return SLICES if self.slice is None else (self.slice,)

    def value(self, evaluation: Evaluation) -> float:
        """Read it off an evaluation; NaN when there is nobody to measure."""
        if self.slice is None:
            return evaluation.harmonic_mean(self.metric)
        return float(evaluation.metrics[self.slice][self.metric])

    def __str__(self) -> str:
        prefix = "" if self.slice is None else f"{self.slice}_"
        return f"valid/{prefix}{self.metric}"
