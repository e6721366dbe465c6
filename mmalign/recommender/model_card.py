"""The README of an artefact."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import yaml

from mmalign.config import to_dict

if TYPE_CHECKING:
    from mmalign.recommender import Recommender

__all__ = ["render"]

_TEMPLATE = """---
library_name: mmalign
tags: [recommendation, cold-start, multimodal]
---

# mmalign recommender: {model}

Knows {users:,} users and {items:,} items, {cold:,} of them by content alone.
Content: {content}.

```python
from mmalign.recommender import Recommender

recommender = Recommender.from_pretrained("path/of/this/folder")
recommender.recommend(recommender.user_ids[:1], k=10)
```

## Measured

{measured}

## Settings

```yaml
{settings}```
"""


def render(recommender: Recommender) -> str:
    """Write a model card: what it knows, how to use it, what was measured, all settings."""
    chosen = recommender.config.model.name
    of_model = to_dict(getattr(recommender.config.model, chosen, {}))  # popularity has none
    settings = {
        "seed": recommender.config.seed,
        "encoders": to_dict(recommender.config.encoders),
        "model": {"name": chosen, chosen: of_model},
        "calibration": to_dict(recommender.calibration),
    }
    return _TEMPLATE.format(
        model=chosen,
        users=len(recommender.user_ids),
        items=len(recommender.items),
        cold=int((~recommender.warm).sum()),
        content=", ".join(sorted(recommender.features)) or "none",
        measured=_table(recommender.measured),
        settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
    )


def _table(measured: dict[str, dict[str, float]]) -> str:
    if not measured:
        return "Nothing: there was no valid split to measure on."
    names = list(dict.fromkeys(name for values in measured.values() for name in values))
    lines = [["slice", *names], ["---", *("---:" for _ in names)]]
    for slice_name, values in measured.items():
        cells = (_number(values[name]) if name in values else "" for name in names)
        lines.append([slice_name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    """Write a measured value; a dash where the model has no order of its own to measure."""
    return "-" if math.isnan(value) else f"{value:.4f}"
