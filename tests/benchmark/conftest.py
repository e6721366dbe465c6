"""A tiny shop in files whose tastes are planted, and a benchmark config for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmalign.benchmark.results import Run
from mmalign.config import from_dict, merge
from mmalign.data.catalog import Catalog
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Feature

GROUPS, ITEMS, USERS = 4, 48, 40


def planted_log() -> pd.DataFrame:
    """Item ``i`` is of group ``i % 4``; items 0-7 are cold in valid, 8-15 cold in test."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        pool = np.flatnonzero(np.arange(ITEMS) % GROUPS == user % GROUPS)
        rows += [(f"u{user}", item) for item in rng.choice(pool, 9, replace=False)]
    log = pd.DataFrame(rows, columns=["user_id", "item"])
    draw = rng.random(len(log))
    split = np.where(draw < 0.6, "train", np.where(draw < 0.8, "valid", "test"))
    split = np.where(log["item"] < 8, "valid", split)
    split = np.where(log["item"].between(8, 15), "test", split)
    log = log.assign(item_id="i" + log["item"].astype(str), split=split)
    return log[["user_id", "item_id", "split"]]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)]})
    items["group"] = np.arange(ITEMS) % GROUPS
    items.to_csv(folder / "items.csv", index=False)
    planted_log().to_csv(folder / "interactions.csv", index=False)
    return folder


@pytest.fixture
def catalog(shop: Path) -> Catalog:
    return Catalog.read(experiment(shop).data)


@pytest.fixture
def features() -> dict[str, Feature]:
    group = np.eye(GROUPS, dtype=np.float32)[np.arange(ITEMS) % GROUPS]
    return {"group": Feature(group, np.ones(ITEMS, bool))}


def experiment(shop: Path, **benchmark: Any) -> ExperimentConfig:
    values = {
        "data": {"path": str(shop), "attributes": {"group": {"kind": "category"}}},
        "model": {"aligned": {"embedding_dim": 8, "hidden_dim": 8, "batch_size": 16}},
        "trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1, "accelerator": "cpu"},
        "benchmark": {"trials": 2, "seeds": [0, 1], "samples": 500},
    }
    return from_dict(ExperimentConfig, merge(values, {"benchmark": benchmark}))


@pytest.fixture
def make_config(shop: Path) -> Any:
    return lambda **benchmark: experiment(shop, **benchmark)


def build_run(model: str, seed: int, values: dict[str, list[float]], *, memory: int = 2**30) -> Run:
    """A run of which only ndcg@20 per user is told, by slice."""
    metrics = ("ndcg@20", "recall@20", "coverage@20", "gini@20", "novelty@20")
    slices = {
        name: {
            "counts": {"users": len(v), "candidates": 5, "truths": len(v), "unreachable": 0},
            "metrics": {m: float(np.mean(v)) if v else None for m in metrics},
            "buckets": {
                "head": {"items": 3, "users": len(v), "recall": float(np.mean(v)) if v else None},
                "cold": {"items": 2, "users": 0, "recall": None},
            },
        }
        for name, v in values.items()
    }
    test = {"split": "test", "ks": [20], "excluded": [], "slices": slices}
    arrays = {f"{name}/users": np.arange(len(v)) for name, v in values.items()}
    arrays |= {f"{name}/ndcg@20": np.array(v) for name, v in values.items()}
    return Run(
        model=model,
        seed=seed,
        key=f"{model}{seed}",
        test=test,
        valid=test,
        seconds={"fit": 1.0 + seed, "calibrate": 0.5},
        memory={"start": memory // 2, "peak": memory},
        commit="abc",
        date="2026-01-02T03:04:05+00:00",
        per_user=arrays,
    )


@pytest.fixture
def make_run() -> Any:
    return build_run
