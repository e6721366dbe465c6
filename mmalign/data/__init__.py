"""Reading, checking and splitting a catalogue and its log."""

from __future__ import annotations

from mmalign.data.audit import Audit, audit
from mmalign.data.catalog import Catalog
from mmalign.data.condition import Condition
from mmalign.data.config import AttributeConfig, DataConfig
from mmalign.data.formats import read_mmrec, read_recbole
from mmalign.data.splits import SplitConfig

__all__ = [
    "AttributeConfig",
    "Audit",
    "Catalog",
    "Condition",
    "DataConfig",
    "SplitConfig",
    "audit",
    "read_mmrec",
    "read_recbole",
]
