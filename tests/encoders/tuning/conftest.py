"""How the tests of tuning ask for a tower, and train it a little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.encoders.tuning import Tower, load_tower
from mmalign.encoders.tuning.modes import AsItIs


@dataclass(frozen=True)
class Tune(AsItIs):
    mode: str = "full"
    last_n: int = 1
    rank: int = 2
    alpha: float = 4.0


@pytest.fixture(scope="session")
def tune() -> Callable[..., Tune]:
    """Make a config; by default of full tuning."""
    return Tune


TEXTS = ["a red cup", "tea", "blue cup of tea and cake and a red cake", "of", "Red CUP and unknown"]


@pytest.fixture(scope="session")
def clip_presets(clip_folder: Path, clip_hf_folder: Path) -> dict[str, Path]:
    """Presets of the towers of two open_clip models."""
    paths = {}
    for name, folder in {"clip": clip_folder, "clip-hf": clip_hf_folder}.items():
        for modality in ("text", "image"):
            path = folder.parent / f"tune-{name}-{modality}.yaml"
            path.write_text(
                f"library: open_clip\nmodality: {modality}\nfolder: {folder}\nnormalize: true\n"
            )
            paths[f"{name}-{modality}"] = path
    return paths


@pytest.fixture(scope="session")
def encoders(
    bert_folder: Path,
    dinov2_folder: Path,
    siglip_folder: Path,
    timm_folder: Path,
    clip_presets: dict[str, Path],
) -> dict[str, Path]:
    """One encoder of every kind."""
    return {
        "bert": bert_folder,
        "dinov2": dinov2_folder,
        "siglip": siglip_folder,
        "timm": timm_folder,
        **clip_presets,
    }


@pytest.fixture(scope="session")
def values(pictures: list[Path]) -> Callable[[Tower], list[Any]]:
    """Things a tower can read."""
    return lambda tower: list(TEXTS) if tower.modality == "text" else list(pictures)


@pytest.fixture(scope="session")
def norms() -> dict[str, tuple[str, ...]]:
    """Names of the norms in each kind of tower's blocks."""
    clip = ("ln_1", "ln_2")
    return {
        "bert": ("LayerNorm",),
        "dinov2": ("norm1", "norm2"),
        "siglip": ("layer_norm1", "layer_norm2"),
        "timm": ("bn1", "bn2"),
        "clip-text": clip,
        "clip-image": clip,
        "clip-hf-text": clip,
    }


@pytest.fixture(scope="session")
def train() -> Callable[..., None]:
    """Move a tower's rows away from where they were."""

    def steps(tower: Tower, values: list[Any], count: int = 2, rate: float = 0.05) -> None:
        torch.manual_seed(0)
        parameters = [p for group in tower.trainable().values() for p in group]
        optimizer = torch.optim.SGD(parameters, lr=rate)
        tower.train()
        for _ in range(count):
            rows = tower(tower.collate(values, training=False).inputs)
            rows = torch.nn.functional.normalize(rows, dim=1)
            loss = (rows @ rows.T).logsumexp(1).mean() + rows[:, 0].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        tower.eval()

    return steps


@pytest.fixture
def tuned(encoders, values, train, tune):
    """A tower of some kind that was trained a little, and what it reads."""

    def make(kind, source=None, **options):
        torch.manual_seed(1)
        options.setdefault("dim", None if "clip" in kind else 6)
        tower = load_tower(source or encoders[kind], tune(**options))
        train(tower, values(tower))
        return tower, values(tower)

    return make
