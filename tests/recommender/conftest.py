"""A small shop with prices, cold items, a user without train rows, and a recommender a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from mmalign.config import from_dict
from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Feature
from mmalign.models import MODELS, TrainData, build_model
from mmalign.models.calibration import Calibration
from mmalign.recommender import Recommender

NUM_ITEMS, NUM_USERS = 16, 24

Make = Callable[[str], Recommender]


@pytest.fixture
def catalog() -> Catalog:
    """Items ``i00`` to ``i15``, the last four cold; ``u23`` has a valid row and no train row."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(NUM_USERS):
        for item in rng.choice(12, 5, replace=False):
            rows.append((f"u{user:02}", f"i{item:02}", "train"))
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    log = log[log.user_id != "u23"]
    held = pd.DataFrame(
        [("u23", "i01", "valid"), ("u00", "i12", "valid"), ("u01", "i13", "test")],
        columns=log.columns,
    )
    items = pd.DataFrame(
        {
            "item_id": [f"i{i:02}" for i in range(NUM_ITEMS)],
            "title": [f"Ding Nr. {i}, grün 中" for i in range(NUM_ITEMS)],
            "price": [float(i) if i != 7 else None for i in range(NUM_ITEMS)],
            "kind": ["tea", "mug"] * (NUM_ITEMS // 2),
        }
    )
    config = DataConfig(text=("title",), path="data")
    return Catalog.from_pandas(items, pd.concat([log, held]), config=config)


@pytest.fixture
def features() -> dict[str, Feature]:
    rng = np.random.default_rng(6)
    text = rng.standard_normal((NUM_ITEMS, 6)).astype(np.float32)
    image = rng.standard_normal((NUM_ITEMS, 4)).astype(np.float32)
    shown = np.ones(NUM_ITEMS, dtype=bool)
    shown[[3, 14]] = False
    image[~shown] = 0
    return {
        "text": Feature(text, np.ones(NUM_ITEMS, dtype=bool)),
        "image": Feature(image, shown),
    }


@pytest.fixture
def make(catalog: Catalog, features: dict[str, Feature]) -> Make:
    """Fit the named model, with a calibration that is not the default."""

    def fit(name: str) -> Recommender:
        values: dict[str, object] = {"name": name}
        if name == "aligned":
            values["aligned"] = {"embedding_dim": 8, "hidden_dim": 16, "fused_dim": 6}
        config = from_dict(
            ExperimentConfig, {"model": values, "data": {"text": ["title"], "path": "data"}}
        )
        content = features if MODELS[name].uses_content else {}
        torch.manual_seed(0)
        model = build_model(config.model).fit(TrainData(catalog.matrix(), content))
        calibration = Calibration({"network": 0.7}, {"teacher": 1.5}, 2.0, 0.1)
        return Recommender.from_catalog(
            model,
            calibration,
            config,
            catalog,
            content,
            encoders={"text": "ab12"} if content else {},
            measured={"valid, all": {"ndcg@20": 0.25}},
        )

    return fit


@pytest.fixture
def recommender(make: Make) -> Recommender:
    """Kernel ridge: it serves cold items and explains."""
    return make("kernel_ridge")
