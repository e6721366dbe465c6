"""A shop whose tastes are planted: everybody likes the items of two groups, cold ones included."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

from mmalign.data.catalog import Catalog
from mmalign.experiment import TrainingConfig
from mmalign.interfaces import Feature, Features
from mmalign.models import Aligned, TrainData
from mmalign.models.aligned import AlignedConfig
from mmalign.trainers.train import CurvePoint, train

GROUPS, ITEMS, USERS, COLD = 6, 72, 48, 10


def planted_log(seed: int = 0) -> pd.DataFrame:
    """Item ``i`` is of group ``i % 6``; items 0-9 are cold in valid, 10-19 cold in test."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        likes = rng.choice(GROUPS, 2, replace=False)
        pool = np.flatnonzero(np.isin(np.arange(ITEMS) % GROUPS, likes))
        rows += [(f"u{user}", item) for item in rng.choice(pool, 14, replace=False)]
    log = pd.DataFrame(rows, columns=["user_id", "item"])
    draw = rng.random(len(log))
    split = np.where(draw < 0.7, "train", np.where(draw < 0.85, "valid", "test"))
    split = np.where(log["item"] < COLD, "valid", split)
    split = np.where(log["item"].between(COLD, 2 * COLD - 1), "test", split)
    return log.assign(item_id="i" + log["item"].astype(str), split=split)


def planted_catalog(log: pd.DataFrame | None = None) -> Catalog:
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)]})
    return Catalog.from_pandas(items, planted_log() if log is None else log)


def planted_features() -> dict[str, Feature]:
    """The group as one modality, and a noisy picture of it that every tenth item lacks."""
    group = np.eye(GROUPS, dtype=np.float32)[np.arange(ITEMS) % GROUPS]
    noise = np.random.default_rng(1).normal(size=(ITEMS, 8)).astype(np.float32)
    blurred = np.concatenate([group, 0.3 * noise], axis=1).astype(np.float32)
    present = np.arange(ITEMS) % 10 != 3
    blurred[~present] = 0
    return {"group": Feature(group, np.ones(ITEMS, bool)), "image": Feature(blurred, present)}


@dataclass
class Trained:
    """A run and all it left behind."""

    model: Aligned
    curve: list[CurvePoint]
    folder: Path

    def values(self, name: str) -> list[float]:
        return [point.value for point in self.curve if point.name == name]

    def checkpoint(self, name: str) -> dict[str, Any]:
        path = self.folder / "checkpoints" / f"{name}.ckpt"
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        return stored


@dataclass
class Shop:
    """Trains on the planted shop, or on what a test makes of it."""

    folder: Path
    catalog: Catalog = field(default_factory=planted_catalog)
    features: Features = field(default_factory=planted_features)

    def train(
        self,
        *,
        seed: int = 0,
        folder: str = "run",
        resume: str | None = None,
        progress: bool = False,
        training: TrainingConfig | None = None,
        model: dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        **trainer: Any,
    ) -> Trained:
        data = TrainData(self.catalog.matrix("train"), self.features)
        torch.manual_seed(seed)
        small = {"embedding_dim": 16, "batch_size": 16, **(model or {})}
        fitted = Aligned(AlignedConfig(**small)).fit(data)
        options = {"max_epochs": 3, "check_val_every_n_epoch": 1, "accelerator": "cpu", **trainer}
        curve = train(
            fitted,
            data,
            self.catalog,
            seed=seed,
            folder=self.folder / folder,
            training=training or TrainingConfig(),
            trainer_options=options,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
        )
        return Trained(fitted, curve, self.folder / folder)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a disk of so many bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk may not be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@pytest.fixture
def make_catalog() -> Callable[[pd.DataFrame], Catalog]:
    return planted_catalog


@pytest.fixture
def log() -> pd.DataFrame:
    return planted_log()
