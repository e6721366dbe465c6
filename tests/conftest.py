"""What all tests share: the data sets beside the checkout, fixed seeds, and no network."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A test that reaches for the network fails at once, the same way everywhere, and does not hang
# where there is none. The hub's client reads its variable when it is first imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PIP_NO_INDEX", "1")

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# A deadline measures how busy the machine is. Derandomised, a failure is seen again by whoever
# looks for it; the database of past failures would make two checkouts run different tests.
settings.register_profile("mmalign", deadline=None, derandomize=True, database=None)
settings.load_profile("mmalign")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine has not got."""
    if item.get_closest_marker("data") and not SHARED_DATA.is_dir():
        pytest.skip("needs the shared data sets in ../shared/data")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the shared data sets. A test that asks for it carries the mark ``data``."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the shared data sets in ../shared/data")
    return SHARED_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed: no test depends on which ran before it."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed the global generators, for the libraries under test that draw from them."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven small pictures of several sizes and modes."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    paths = []
    for i in range(11):
        height, width = generator.integers(20, 70, 2)
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))
        mode = ("RGB", "L", "P")[i % 3]
        paths.append(folder / f"{i}.png")
        image.convert(mode).save(paths[-1])
    return paths
