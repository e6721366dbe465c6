"""What is claimed of films: accuracy on test, seconds and memory, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

MOVIES = Path(__file__).parents[3] / "shared" / "data" / "movies"
CONFIG = Path(__file__).parents[2] / "configs" / "movies.yaml"

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not MOVIES.is_dir(), reason="the films are not at hand"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the films are encoded already."""
    folder = tmp_path_factory.mktemp("movies")
    mmalign(folder, "encode", *films())
    mmalign(folder, "fit", *films(), "--output", "art")
    return folder


def films() -> list[str]:
    data = ["--data.path", str(MOVIES), "--data.interactions", "benchmark.parquet"]
    return ["--config", str(CONFIG), *data, "--cache", "cache"]


def mmalign(folder: Path, *arguments: str) -> tuple[str, float, float]:
    """Run a command; its output, wall seconds and gigabytes at the peak."""
    output = folder / "output.txt"
    command = [sys.executable, "-m", "mmalign", *arguments]
    started = time.perf_counter()
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return output.read_text(), seconds, usage.ru_maxrss / 2**20


def ndcg(folder: Path, artefact: str) -> dict[str, float]:
    text, _, _ = mmalign(folder, "evaluate", artefact, "--split", "test", "--json")
    slices = json.loads(text)["slices"]
    return {name: slices[name]["metrics"]["ndcg@20"] for name in ("warm", "cold", "all")}


def test_the_aligned_model(place: Path) -> None:
    found = ndcg(place, "art")
    print(f"\naligned, seed 0, NDCG@20 on test: {found}")
    assert found["warm"] >= 0.239
    assert found["cold"] >= 0.33
    assert found["all"] >= 0.26


def test_fitting_takes_minutes_and_little_memory(place: Path) -> None:
    _, seconds, gigabytes = mmalign(place, "fit", *films(), "--output", "again")
    print(f"\nfit aligned, encoded before: {seconds:.0f} s, {gigabytes:.1f} GB")
    assert seconds < 300
    assert gigabytes < 4


def test_kernel_ridge_is_as_it_was_first_measured(place: Path) -> None:
    mmalign(place, "fit", *films(), "--model.name", "kernel_ridge", "--output", "ridge")
    found = ndcg(place, "ridge")
    print(f"\nkernel_ridge, NDCG@20 on test: {found}")
    assert found["warm"] == pytest.approx(0.236, rel=0.03)
    assert found["cold"] == pytest.approx(0.368, rel=0.03)
    assert found["all"] == pytest.approx(0.285, rel=0.03)


def test_a_thousand_new_items(place: Path) -> None:
    items = pd.read_parquet(MOVIES / "items.parquet")
    known = pd.read_parquet(MOVIES / "benchmark.parquet")["item_id"]
    new = items[~items["item_id"].isin(known)].head(1000)
    new.assign(item_id="new " + new["item_id"].astype(str)).to_parquet(place / "new.parquet")
    add = ["add-items", "art", "new.parquet", "--data.path", str(MOVIES), "--cache", "cache"]
    mmalign(place, *add, "--output", "grown")  # encodes
    seconds = min(mmalign(place, *add, "--output", f"grown-{i}")[1] for i in range(3))
    print(f"\nadd-items, 1,000 encoded before: {seconds:.1f} s")
    assert seconds < 5


def test_recommendations_for_everybody(place: Path) -> None:
    from mmalign import Recommender

    recommender = Recommender.from_pretrained(place / "art")
    started = time.perf_counter()
    recommended = recommender.recommend(k=20, candidates="all")
    seconds = time.perf_counter() - started
    assert recommended["user_id"].nunique() == 602
    whole = mmalign(place, "recommend", "art", "--users", "all", "--output", "recs.parquet")[1]
    print(f"\nrecommend, 602 users: {seconds:.2f} s after loading, {whole:.1f} s as a command")
    assert seconds < 2
