from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from mmalign.benchmark import extras, runs, worker
from mmalign.cli.benchmark import benchmark_features
from mmalign.config import from_dict
from mmalign.data.catalog import Catalog
from mmalign.errors import TrainingError
from mmalign.experiment import ExperimentConfig

SMALL = ["--benchmark.trials", "2", "--benchmark.seeds", "[0]", "--benchmark.samples", "200"]
MODELS = ["--benchmark.models", "[popularity, kernel_ridge]", "--benchmark.reference"]


@pytest.fixture
def here(monkeypatch):
    """Do the work of child processes in this one."""
    fail = set()

    def run(assignment, log, listen=lambda _: None):
        if assignment.job.model in fail:
            raise TrainingError("out of luck")
        worker.do(assignment, lambda **event: listen(event))

    monkeypatch.setattr(runs, "run_child", run)
    return fail


def test_writes_tables_and_plots(mmalign, house, here, tmp_path, monkeypatch):
    line = ["benchmark", "--config", str(house.everything), *SMALL, *MODELS, "kernel_ridge"]
    line += ["--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["mmalign", *line])
    shown = mmalign(*line)
    assert shown.code == 0, shown.err
    assert shown.out == ""
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert list(found["models"]) == ["popularity", "kernel_ridge"]
    assert found["models"]["kernel_ridge"]["tuned"]["trials"] == 2
    assert found["command"].startswith("mmalign benchmark --config ")
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert found["command"] in text
    for name in ("accuracy_against_time", "popularity", "cold_against_warm"):
        assert (tmp_path / "out" / "plots" / f"{name}.svg").is_file()
        assert f"plots/{name}.png" in text
    again = mmalign(*line)
    assert "kernel_ridge: seed 0 measured before" in again.err
    assert "trial" not in again.err


def test_a_model_that_fails_costs_its_row_and_the_exit_code(mmalign, house, here, tmp_path):
    here.add("popularity")
    line = ["benchmark", "--config", house.attributes, *SMALL, *MODELS, "kernel_ridge"]
    shown = mmalign(*line, "--output", tmp_path)
    assert shown.code == 1
    assert "failed: popularity" in shown.error
    text = (tmp_path / "benchmark.md").read_text()
    assert "| popularity | failed | out of luck |" in text
    assert "| kernel_ridge | 0." in text


@pytest.mark.slow
def test_with_real_processes_and_a_network(mmalign, house, tmp_path):
    models = ["--benchmark.models", "[ease, aligned]"]
    shown = mmalign(
        "benchmark", "--config", house.attributes, *SMALL, *models, "--output", tmp_path
    )
    assert shown.code == 0, shown.err
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(found["best_baselines"].values()) == {"ease"}
    assert found["models"]["aligned"]["memory"]["peak"] > 10**8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark.search.ease.l3", "{low: 1, high: 2}"], "did you mean 'l2'"),
        (["--benchmark.models", "[eese, aligned]"], "did you mean 'ease'"),
        (["--benchmark.monitor", "ndcg"], "benchmark.monitor"),
        (["--benchmark.trial", "3"], "did you mean 'trials'"),
    ],
)
def test_bad_usage_is_said_before_any_work(mmalign, house, here, tmp_path, arguments, message):
    shown = mmalign(
        "benchmark", "--config", house.attributes, *arguments, "--output", tmp_path / "o"
    )
    assert shown.code == 2
    assert message in shown.error
    assert not (tmp_path / "o").exists()


def test_a_missing_extra_names_the_install(mmalign, house, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    shown = mmalign("benchmark", "--config", house.attributes, "--output", tmp_path / "o")
    assert shown.code == 1
    assert "pip install 'mmalign[benchmark]'" in shown.error


def test_content_that_came_encoded_is_compared_too(house, tmp_path):
    (tmp_path / "shop.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n0\t1\t0\n")
    np.save(tmp_path / "text_feat.npy", np.eye(2, dtype=np.float32))
    compared = {"models": ["content_mean", "ease"], "reference": "ease"}
    config = from_dict(ExperimentConfig, {"benchmark": compared})
    catalog = Catalog.from_folder(tmp_path)
    features, modalities = benchmark_features(config, catalog)
    assert modalities == {"content_mean": ("text",)}
    assert features["text"].values.tolist() == [[1, 0], [0, 1]]
