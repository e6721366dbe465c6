"""Summary, tables and plots."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from PIL import Image

from mmalign.benchmark.inputs import Digest
from mmalign.benchmark.plan import make_plan
from mmalign.benchmark.plots import draw
from mmalign.benchmark.runs import Outcome
from mmalign.benchmark.summary import summarise
from mmalign.benchmark.table import markdown
from mmalign.benchmark.tuning import Tuned
from mmalign.experiment import EvaluationConfig

TUNED = Tuned({"l2": 12.3456789, "kind": "sum"}, 0.25, "valid/ndcg@20", 2, 1, 0, 9.0, {"trials": 2})


@pytest.fixture
def outcome(make_config, catalog, make_run, rng):
    config = make_config(models=["ease", "ridge"], reference="ridge")
    config = replace(config, evaluation=EvaluationConfig(ks=(20,)))
    plan = make_plan(config, catalog, Digest("d", {"group": "g"}), {"ridge": ("group",)})
    users = rng.random(30)
    runs = {
        model: [
            make_run(
                model,
                seed,
                {
                    "warm": (users + gain + 0.01 * seed).tolist(),
                    "cold": (users[:9] + gain).tolist(),
                    "all": users.tolist(),
                },
                memory=(1 + seed) * 2**30,
            )
            for seed in (0, 1)
        ]
        for model, gain in (("ease", 0.0), ("ridge", 0.2))
    }
    failed, not_run = {"bpr": "no | luck"}, {"ials": "pip install 'mmalign[baselines]'"}
    return Outcome(plan, {"ease": TUNED, "ridge": TUNED}, runs, failed, not_run)


@pytest.fixture
def summary(outcome, catalog):
    return summarise(outcome, catalog, "mmalign benchmark --config c --output o")


def section(text, title):
    return text.partition(f"## {title}")[2].partition("\n## ")[0]


def test_summary_is_json(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_means_and_deviations_over_seeds(summary, outcome):
    first, second = (run.metric("warm", "ndcg@20") for run in outcome.runs["ridge"])
    found = summary["models"]["ridge"]["test"]["warm"]["metrics"]["ndcg@20"]
    assert found["mean"] == pytest.approx((first + second) / 2)
    assert found["std"] == pytest.approx(0.01 / 2**0.5)
    assert summary["models"]["ridge"]["seconds"]["total"]["mean"] == 2.0
    assert summary["models"]["ridge"]["memory"]["peak"] == 2 * 2**30
    assert summary["models"]["ridge"]["test"]["all"]["buckets"]["cold"]["recall"]["mean"] is None
    assert summary["statistics"]["family"] == 3
    assert summary["best_baselines"] == {"warm": "ease", "cold": "ease", "all": "ease"}
    assert summary["data"]["items"] == 48


def test_tables(summary):
    text = markdown(summary, ["plots/popularity.png"])
    accuracy = section(text, "Accuracy at 20, test")
    lines = [line for line in accuracy.splitlines() if line.startswith("| ")]
    assert lines[0].startswith("| model | warm NDCG@20 | cold NDCG@20 | all NDCG@20 | warm Recall")
    ease, ridge = lines[2], lines[3]
    mean = summary["models"]["ridge"]["test"]["warm"]["metrics"]["ndcg@20"]["mean"]
    assert f"**{mean:.4f} ± 0.0071**" in ridge
    assert "**" not in ease.split("|")[2]
    assert "**" in ease.split("|")[4]  # equal on all: both are best
    assert "`mmalign benchmark --config c --output o`" in text
    assert "| bpr | failed | no \\| luck |" in text
    assert "| ials | not run | pip install 'mmalign[baselines]' |" in text
    assert "![popularity](plots/popularity.png)" in text
    assert "- ridge: l2 12.35, kind sum" in text
    assert "2 (1 pruned, 0 failed)" in section(text, "Effort")
    assert "head (3 items)" in text


def test_significance_is_told(summary):
    text = markdown(summary)
    headline = section(text, "NDCG@20 on test")
    assert "+0.2000 [+0.2000, +0.2000]" in headline
    assert "p = .012" in headline  # 2 / 501, three comparisons
    assert "+0.0000 [+0.0000, +0.0000] | p = 1.000" in headline
    against = section(text, "Against the baselines")
    assert "family of all 3 comparisons" in against
    assert "500 resamples" in against


def test_nothing_ran(outcome, catalog):
    empty = replace(outcome, runs={}, tuned={})
    text = markdown(summarise(empty, catalog, "c"))
    assert "no runs of ridge" in text
    assert "no \\| luck" in text


def test_an_empty_slice_is_left_out(outcome, catalog, make_run, tmp_path):
    runs = {
        model: [make_run(model, 0, {"warm": [0.1, 0.2], "cold": [], "all": [0.1, 0.2]})]
        for model in ("ease", "ridge")
    }
    summary = summarise(replace(outcome, runs=runs), catalog, "c")
    text = markdown(summary)
    assert "cold NDCG" not in text
    assert "±" not in section(text, "Accuracy at 20, test")
    assert "cold_against_warm.png" not in draw(summary, tmp_path)


def test_plots(summary, tmp_path):
    names = draw(summary, tmp_path / "plots")
    assert sorted(names) == [
        "accuracy_against_time.png",
        "cold_against_warm.png",
        "popularity.png",
    ]
    for name in names:
        with Image.open(tmp_path / "plots" / name) as picture:
            assert picture.size[0] > 500
        svg = (tmp_path / "plots" / name).with_suffix(".svg")
        words = " ".join(ET.parse(svg).getroot().itertext())
        assert "ease" in words
        assert "ridge" in words
    before = {path.name: path.read_bytes() for path in (tmp_path / "plots").glob("*.svg")}
    draw(summary, tmp_path / "plots")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "plots").glob("*.svg")}
    assert draw({"models": {}}, tmp_path / "none") == []


@pytest.mark.parametrize("slice_name", ["warm", "cold"])
def test_a_slice_without_users_costs_its_plot_alone(summary, tmp_path, slice_name):
    for model in summary["models"].values():
        model["test"][slice_name]["counts"]["users"] = 0
        for metric in model["test"][slice_name]["metrics"].values():
            metric["mean"] = None
    names = draw(summary, tmp_path / "plots")
    assert sorted(names) == ["accuracy_against_time.png", "popularity.png"]


def test_a_model_that_knows_no_cold_items_has_a_dash_for_them(outcome, catalog, make_run, tmp_path):
    runs = []
    for seed in (0, 1):
        values = {"warm": [0.5] * 30, "cold": [float("nan")] * 9, "all": [0.5] * 30}
        run = make_run("ease", seed, values)
        cold = run.test["slices"]["cold"]
        cold["metrics"] = dict.fromkeys(cold["metrics"])
        runs.append(run)
    content_knn = [replace(run, model="content_knn") for run in outcome.runs["ridge"]]
    outcome = replace(
        outcome,
        runs={**outcome.runs, "ease": runs, "content_knn": content_knn},
        tuned={**outcome.tuned, "content_knn": TUNED},
    )
    summary = summarise(outcome, catalog, "mmalign benchmark")
    json.dumps(summary, allow_nan=False)
    text = markdown(summary)
    row = next(
        line for line in section(text, "Accuracy").splitlines() if line.startswith("| ease |")
    )
    assert [cell.strip() for cell in row.split("|")][2:5] == ["0.5000", "-", "0.5000"]
    row = next(
        line for line in section(text, "Against").splitlines() if line.startswith("| ease |")
    )
    assert row.split("|")[3].strip() == "-"
    assert summary["best_baselines"]["cold"] == "content_knn"
    assert "cold_against_warm.png" in draw(summary, tmp_path)
