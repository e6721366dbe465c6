"""Whole plans, with the child's work done in this process; and real children."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from mmalign.benchmark import runs, worker
from mmalign.benchmark.children import run_child
from mmalign.benchmark.fitting import fit_scorer
from mmalign.benchmark.inputs import Digest, write_features
from mmalign.benchmark.plan import make_plan, measure_job, tune_job
from mmalign.benchmark.results import read_run, read_tuned
from mmalign.benchmark.runs import run_plan
from mmalign.benchmark.worker import Assignment
from mmalign.config import to_dict
from mmalign.errors import MissingDependencyError, TrainingError
from mmalign.evaluation.protocol import evaluate

CONTENT = {"ridge": ("group",), "aligned": ("group",)}


@pytest.fixture
def plan(make_config, catalog):
    return lambda **b: make_plan(
        make_config(**{"models": ["popularity", "ease"], "reference": "ease", **b}),
        catalog,
        Digest("data", {"group": "g"}),
        CONTENT,
    )


@pytest.fixture
def here(monkeypatch):
    """Run jobs in this process and keep their names; names in ``fail`` raise instead."""
    jobs, fail = [], {}

    def run(assignment, log, listen=lambda _: None):
        name = assignment.job.name.rpartition("-")[0]
        jobs.append((assignment.job.kind, name))
        if name in fail:
            raise fail[name]
        worker.do(assignment, lambda **event: listen(event))

    monkeypatch.setattr(runs, "run_child", run)
    run.jobs, run.fail = jobs, fail
    return run


def test_what_a_killed_run_left_goes(plan, features, here, tmp_path):
    died = subprocess.Popen(["true"])
    died.wait()
    left, used = (tmp_path / f".features-{n}-ab" / "file" for n in (died.pid, os.getpid()))
    for file in (left, used):
        file.parent.mkdir()
        file.write_bytes(b"half")
    assert len(run_plan(plan(), features, tmp_path).runs) == 2
    assert not left.parent.exists()
    assert used.read_bytes() == b"half"
    shutil.rmtree(used.parent)


def test_tunes_then_measures(plan, features, catalog, here, tmp_path, capsys):
    outcome = run_plan(plan(), features, tmp_path)
    assert here.jobs == [
        ("tune", "popularity"),
        ("measure", "popularity-seed0"),
        ("measure", "popularity-seed1"),
        ("tune", "ease"),
        ("measure", "ease-seed0"),
        ("measure", "ease-seed1"),
    ]
    assert [run.seed for run in outcome.runs["ease"]] == [0, 1]
    assert outcome.tuned["ease"].trials == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("[1/7] popularity: trial 1/1 ")
    assert lines[-1].startswith("[7/7] ease: seed 1 measured")
    assert "left" in lines[2]
    assert not list(tmp_path.glob(".features*"))


def test_measures_what_the_protocol_says(plan, features, catalog, here, tmp_path):
    outcome = run_plan(plan(models=["ridge"], reference="ridge", seeds=[0]), features, tmp_path)
    job = measure_job(outcome.plan, "ridge", outcome.tuned["ridge"].values, 0)
    scorer, _ = fit_scorer(job.config, catalog, features)
    expected = evaluate(scorer, catalog, "test")
    run = outcome.runs["ridge"][0]
    assert run.test == json.loads(json.dumps(expected.to_dict()))
    np.testing.assert_array_equal(
        run.per_user["cold/ndcg@20"], expected.slices["cold"].per_user["ndcg@20"]
    )
    np.testing.assert_array_equal(run.per_user["cold/users"], expected.slices["cold"].users)
    assert run.memory["peak"] >= run.memory["start"] > 10**7
    assert set(run.seconds) == {"fit", "calibrate"}
    assert run.valid["split"] == "valid"


def test_a_second_time_does_nothing(plan, features, here, tmp_path, capsys):
    first = run_plan(plan(), features, tmp_path)
    here.jobs.clear()
    second = run_plan(plan(), features, tmp_path)
    assert here.jobs == []
    assert second.tuned == first.tuned
    assert [run.test for run in second.runs["ease"]] == [run.test for run in first.runs["ease"]]
    assert "seed 1 measured before" in capsys.readouterr().err


def test_more_seeds_and_models_only_add(plan, features, here, tmp_path):
    run_plan(plan(), features, tmp_path)
    here.jobs.clear()
    run_plan(plan(seeds=[0, 1, 2], models=["ease", "random"]), features, tmp_path)
    assert ("measure", "ease-seed2") in here.jobs
    assert {name for _, name in here.jobs} & {"ease", "ease-seed0", "popularity"} == set()


def test_other_data_measures_again(plan, features, here, tmp_path):
    from dataclasses import replace

    run_plan(plan(), features, tmp_path)
    count = len(here.jobs)
    run_plan(replace(plan(), data=Digest("other", {"group": "g"})), features, tmp_path)
    assert len(here.jobs) == 2 * count


def test_a_broken_result_is_measured_again(plan, features, here, tmp_path):
    run_plan(plan(), features, tmp_path)
    here.jobs.clear()
    (folder,) = tmp_path.glob("runs/ease-seed0-*")
    (folder / "per_user.npz").write_bytes(b"PK broken")
    (file,) = tmp_path.glob("tuning/popularity-*.json")
    file.write_text("{")
    run_plan(plan(), features, tmp_path)
    assert here.jobs == [("tune", "popularity"), ("measure", "ease-seed0")]


def test_a_failure_costs_its_row(plan, features, here, tmp_path, capsys):
    here.fail["popularity-seed1"] = TrainingError("out of luck")
    here.fail["random"] = MissingDependencyError("no x", fix="pip install 'mmalign[x]'")
    outcome = run_plan(plan(models=["popularity", "random", "ease"]), features, tmp_path)
    assert outcome.failed == {"popularity": "out of luck"}
    assert outcome.not_run == {"random": "no x: pip install 'mmalign[x]'"}
    assert list(outcome.runs) == list(outcome.tuned) == ["ease"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("[10/10] ease")
    here.fail.clear()
    here.jobs.clear()
    again = run_plan(plan(models=["popularity", "random", "ease"]), features, tmp_path)
    assert not again.failed
    assert ("measure", "popularity-seed0") not in here.jobs


class TestChildren:
    """Processes: one that works, and each way in which one does not."""

    @pytest.mark.slow
    def test_one_works(self, plan, features, tmp_path):
        write_features({}, tmp_path / "f")
        job = tune_job(plan(), "ease")
        events = []
        assignment = Assignment(job, tmp_path / "f", tmp_path / "t" / "ease.json")
        run_child(assignment, tmp_path / "logs" / "x.log", events.append)
        assert [event["number"] for event in events] == [1, 2]
        tuned = read_tuned(assignment.output, {"trials": 2, "minutes": None})
        assert tuned.score == max(event["best"] for event in events)
        assert read_tuned(assignment.output, {"trials": 3, "minutes": None}) is None

    @pytest.mark.parametrize(
        ("code", "error", "message"),
        [
            (
                "import os; print('oh no', file=sys.stderr); os._exit(3)",
                TrainingError,
                "ended with code 3, after 'oh no'",
            ),
            ("import os; os.kill(os.getpid(), 9)", TrainingError, "SIGKILL, as when memory"),
            (
                'print(\'{"event": "error", "message": "bad"}\'); sys.exit(1)',
                TrainingError,
                "^bad$",
            ),
            (
                'print(\'{"event": "missing", "message": "pip"}\'); sys.exit(1)',
                MissingDependencyError,
                "^pip$",
            ),
        ],
    )
    def test_one_does_not(self, monkeypatch, plan, tmp_path, code, error, message):
        real = subprocess.Popen
        monkeypatch.setattr(
            subprocess,
            "Popen",
            lambda _, **o: real([sys.executable, "-c", f"import sys; {code}"], **o),
        )
        assignment = Assignment(tune_job(plan(), "ease"), tmp_path / "f", tmp_path / "o")
        with pytest.raises(error, match=message):
            run_child(assignment, tmp_path / "log")

    @pytest.mark.slow
    def test_one_ends_with_its_parent(self, plan, features, catalog, tmp_path):
        """Closing the pipe is what the death of the parent does."""
        write_features({}, tmp_path / "f")
        job = tune_job(plan(trials=10_000), "ease")
        assignment = Assignment(job, tmp_path / "f", tmp_path / "t" / "ease.json")
        with subprocess.Popen(
            [sys.executable, "-m", "mmalign.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as child:
            child.stdin.write(json.dumps(to_dict(assignment)) + "\n")
            child.stdin.flush()
            assert json.loads(child.stdout.readline())["number"] == 1
            child.stdin.close()
            started = time.perf_counter()
            assert child.wait(timeout=30) == 1
            assert time.perf_counter() - started < 10
        assert not assignment.output.exists()

    @pytest.mark.slow
    def test_errors_of_the_job_are_one_line(self, plan, tmp_path, shop):
        job = tune_job(plan(), "ease")
        broken = Assignment(job, tmp_path / "nowhere", tmp_path / "o")
        with pytest.raises(TrainingError) as caught:
            run_child(broken, tmp_path / "log")
        assert "\n" not in str(caught.value)
        assert "nowhere" in str(caught.value)
        assert "Traceback" in (tmp_path / "log").read_text()


def test_a_run_of_another_job_is_not_taken(plan, features, here, tmp_path):
    run_plan(plan(), features, tmp_path)
    (folder,) = tmp_path.glob("runs/ease-seed0-*")
    assert read_run(folder, "other") is None
    assert read_run(tmp_path / "none", "x") is None


def test_a_run_whose_numbers_are_damaged_is_not_taken(plan, features, here, tmp_path):
    run_plan(plan(), features, tmp_path)
    (folder,) = tmp_path.glob("runs/ease-seed0-*")
    key = json.loads((folder / "result.json").read_text())["key"]
    assert read_run(folder, key) is not None
    whole = (folder / "per_user.npz").read_bytes()
    middle = len(whole) // 3
    for damaged in (whole[:middle], b"", whole[:99] + bytes(400) + whole[499:]):
        (folder / "per_user.npz").write_bytes(damaged)
        assert read_run(folder, key) is None
