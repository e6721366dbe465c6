"""Fine-tuning of content encoders: batches, objectives and the run."""

from __future__ import annotations
