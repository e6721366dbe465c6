"""Two towers small enough to train in a test, and a shop whose pictures and titles agree."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from mmalign.data.catalog import Catalog, DataConfig
from mmalign.experiment import ExperimentConfig
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import Media, TowerBatch

KINDS, COLOURS = 6, 10


class WordTower(nn.Module):
    """A sum of word vectors."""

    modality = "text"
    fingerprint = "of a toy"

    def __init__(self, dim: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.words = nn.EmbeddingBag(64, 24, mode="sum")
        self.drop = nn.Dropout(dropout)
        self.projection = nn.Linear(24, dim)

    def collate(self, values: Sequence[Media], *, training: bool) -> TowerBatch:
        ids = torch.zeros(len(values), 8, dtype=torch.long)
        for row, value in enumerate(values):
            words = str(value).split()[:8]
            ids[row, : len(words)] = torch.tensor([1 + zlib.crc32(w.encode()) % 63 for w in words])
        return TowerBatch(ids, list(range(len(values))))

    def forward(self, inputs: Any) -> Tensor:
        if inputs is None:
            return torch.zeros(0, self.dim)
        return self.projection(self.drop(self.words(inputs)))

    starts_anew = True

    def below_projection(self, inputs: Any) -> Tensor:
        return self.words(inputs["hidden"] if isinstance(inputs, dict) else inputs)

    def start_at(self, weight: Tensor) -> None:
        self.projection.weight[: len(weight)] = weight[: self.dim]
        self.projection.bias.zero_()

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        return {
            "trunk": list(self.words.parameters()),
            "projection": list(self.projection.parameters()),
        }

    def save_pretrained(self, folder: Path, *, merge: bool = True) -> None:
        folder.mkdir(parents=True)
        torch.save(self.state_dict(), folder / "weights.pt")


class PixelTower(WordTower):
    """A linear map of the numbers that a picture holds; ``b"broken…"`` cannot be read."""

    modality = "image"

    def __init__(self, dim: int = 16) -> None:
        nn.Module.__init__(self)
        self.dim = dim
        self.words = nn.Linear(KINDS + COLOURS, 24)  # type: ignore[assignment]
        self.drop = nn.Dropout(0.0)
        self.projection = nn.Linear(24, dim)

    def collate(self, values: Sequence[Media], *, training: bool) -> TowerBatch:
        good = [p for p, value in enumerate(values) if not value.startswith(b"broken")]
        rows = [np.frombuffer(bytes(values[p]), np.float32) for p in good]  # type: ignore[arg-type]
        problems = {p: "no picture" for p in range(len(values)) if p not in good}
        inputs = torch.from_numpy(np.stack(rows)) if rows else None
        return TowerBatch(inputs, good, problems)

    def lower(self, inputs: Tensor) -> Tensor:
        return inputs

    def forward(self, inputs: Any) -> Tensor:
        return super().forward(inputs["hidden"] if isinstance(inputs, dict) else inputs)


@pytest.fixture
def towers() -> dict[str, Any]:
    """A text and an image tower, always the same."""
    torch.manual_seed(1)
    return {"text": WordTower(), "image": PixelTower()}


@pytest.fixture
def shop() -> Catalog:
    """Items of a kind and a colour; users take one kind. A fifth is never trained on."""
    rng = np.random.default_rng(0)
    items = [(kind, colour) for kind in range(KINDS) for colour in range(COLOURS)]
    pictures = []
    for kind, colour in items:
        picture = np.zeros(KINDS + COLOURS, np.float32)
        picture[kind] = picture[KINDS + colour] = 1
        pictures.append((picture + rng.normal(0, 0.1, len(picture))).astype(np.float32).tobytes())
    frame = pd.DataFrame(
        {
            "item_id": [f"i{n:02d}" for n in range(len(items))],
            "title": [f"kind{kind} colour{colour}" for kind, colour in items],
            "notes": [f"made by maker{kind}" for kind, _ in items],
            "image": pictures,
        }
    )
    split = np.asarray(["train"] * 44 + ["valid"] * 8 + ["test"] * 8)
    split = split[rng.permutation(len(items))]
    rows = []
    for user in range(40):
        mine = [n for n, (kind, _) in enumerate(items) if kind == user % KINDS]
        rows += [(f"u{user}", f"i{n:02d}", split[n]) for n in rng.choice(mine, 6, replace=False)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    config = DataConfig(text=("title", "notes"), image="image")
    return Catalog.from_pandas(frame, log, config=config)


@pytest.fixture
def told() -> Callable[..., ExperimentConfig]:
    """Make a config of a short run."""

    def make(epochs: int = 4, seed: int = 0, **finetune: Any) -> ExperimentConfig:
        config = FinetuneConfig(**{"batch_size": 16, "learning_rate": 0.02, **finetune})
        text, image = (replace(tower, learning_rate=0.02) for tower in (config.text, config.image))
        config = replace(config, text=text, image=image)
        return ExperimentConfig(seed=seed, finetune=config, trainer={"max_epochs": epochs})

    return make
