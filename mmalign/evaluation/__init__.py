"""How good the ranked lists are: metrics, the warm/cold/all protocol, and tables of the results."""

from __future__ import annotations

from mmalign.evaluation.protocol import evaluate, rank_slice
from mmalign.evaluation.result import Bucket, Evaluation, SliceResult
from mmalign.evaluation.slices import Slice, build_slice

__all__ = [
    "Bucket",
    "Evaluation",
    "Slice",
    "SliceResult",
    "build_slice",
    "evaluate",
    "rank_slice",
]
