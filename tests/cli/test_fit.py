from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mmalign.recommender import Recommender

ROOT = Path(__file__).resolve().parents[2]
DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def aligned(house, tmp_path, *more):
    """Options of a short training whose logs lie in the test's folder."""
    return [
        *("fit", "--config", house.attributes, "--model.name", "aligned"),
        *("--trainer.default_root_dir", tmp_path / "run", "--output", tmp_path / "art", *more),
    ]


def test_a_network_is_trained_and_saved(mmalign, house, tmp_path):
    shown = mmalign(*aligned(house, tmp_path))
    assert shown.code == 0, shown.err
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.partition(":")[0] for line in lines if line.startswith("epoch ")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert lines[-1].startswith(f"saved {tmp_path / 'art'} after")
    recommender = Recommender.from_pretrained(tmp_path / "art")
    assert recommender.config.data.path == str(house.shop)
    assert recommender.measured["valid, all"]["ndcg@20"] > 0
    measured = json.loads(mmalign("evaluate", tmp_path / "art", "--split", "valid", "--json").out)
    for name in ("warm", "cold", "all"):
        assert measured["slices"][name]["metrics"]["ndcg@20"] == pytest.approx(
            recommender.measured[f"valid, {name}"]["ndcg@20"], abs=1e-4
        )
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


def test_the_command_line_wins_over_the_config(mmalign, house, tmp_path):
    shown = mmalign(*aligned(house, tmp_path, "--trainer.max_epochs", 1, "--seed", 5))
    assert shown.code == 0
    assert "epoch 1/1" in shown.err
    config = Recommender.from_pretrained(tmp_path / "art").config
    assert (config.seed, config.trainer["max_epochs"]) == (5, 1)


def test_training_goes_on_from_a_checkpoint(mmalign, house, tmp_path):
    assert mmalign(*aligned(house, tmp_path)).code == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    more = ["--trainer.max_epochs", 3, "--ckpt_path", last]
    shown = mmalign(*aligned(house, tmp_path, *more))
    assert shown.code == 0
    assert [line[:11] for line in shown.err.splitlines() if line.startswith("epoch")] == [
        "epoch 3/3: "
    ]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--ckpt_path", "nowhere.ckpt"], 1, "there is no checkpoint there"),
        (["--trainer.max_epoch", "3"], 2, "did you mean 'max_epochs'"),
        (["--trainer.max_epochs", "x"], 2, "trainer.max_epochs has a value of the wrong type"),
        (["--trainer.accelerator", "abacus"], 2, "abacus"),
        (["--training.monitor", "loss"], 2, "training.monitor names no metric"),
        (["--model.aligned.learning_rate", "1e30"], 1, "the loss is not finite"),
        (["--model.name", "ease", "--ckpt_path", "x.ckpt"], 2, "not trained step by step"),
        (["--data.path", "nowhere"], 1, "data.path is no folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(mmalign, house, tmp_path, options, code, message):
    shown = mmalign(*aligned(house, tmp_path, *options))
    assert shown.code == code
    assert message in shown.error
    assert not (tmp_path / "art").exists()


def test_fit_without_an_output(mmalign, house):
    shown = mmalign("fit", "--config", house.attributes)
    assert (shown.code, "add --output FOLDER" in shown.error) == (2, True)


def test_the_old_artefact_stays_when_a_fit_fails(mmalign, house, tmp_path):
    assert mmalign(*aligned(house, tmp_path, "--model.name", "ease")).code == 0
    before = (tmp_path / "art" / "config.json").read_text()
    assert mmalign(*aligned(house, tmp_path, "--model.aligned.learning_rate", "1e30")).code == 1
    assert (tmp_path / "art" / "config.json").read_text() == before


def test_a_printed_config_fits_the_same(mmalign, house, tmp_path):
    options = aligned(house, tmp_path)
    printed = mmalign(*options, "--print_config")
    assert printed.code == 0
    (tmp_path / "printed.yaml").write_text(printed.out)
    assert yaml.safe_load(printed.out)["model"]["name"] == "aligned"
    assert not (tmp_path / "art").exists()
    assert mmalign("fit", "--config", tmp_path / "printed.yaml").code == 0
    first = Recommender.from_pretrained(tmp_path / "art").recommend(k=5)
    assert mmalign(*options).code == 0
    pd.testing.assert_frame_equal(
        first, Recommender.from_pretrained(tmp_path / "art").recommend(k=5)
    )


def run(command, *arguments, **environment):
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.slow
def test_two_processes_train_as_one(mmalign, house, tmp_path):
    """Only the first of them prints and writes, and the other leaves in peace."""
    epochs = ["--trainer.max_epochs", 10]
    assert mmalign(*aligned(house, tmp_path / "one", *epochs)).code == 0
    command = [sys.executable, "-m", "mmalign.cli"]
    ran = run(command, *aligned(house, tmp_path / "two", *epochs, *DDP))
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    for once in ("genre: 40 encoded", "epoch 10/10: ", "note: 1 users have no train row", "saved "):
        assert ran.stderr.count(once) == 1, once
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["art", "run"]
    assert [p.name for p in (tmp_path / "two" / "run" / "csv").iterdir()] == ["version_0"]
    one, two = (Recommender.from_pretrained(tmp_path / n / "art").measured for n in ("one", "two"))
    for name in one:
        assert two[name]["ndcg@20"] == pytest.approx(one[name]["ndcg@20"], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [str(Path(sys.executable).with_name("mmalign")), "fit"],
        [sys.executable, str(ROOT / "trainers" / "fit.py")],
    ],
    ids=["program", "script"],
)
def test_two_processes_from_the_program_and_from_the_script(house, tmp_path, command):
    options = aligned(house, tmp_path, "--trainer.max_epochs", 1, *DDP)[1:]
    ran = run(command, *options)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "art" / "model.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_fail_as_one(house, tmp_path):
    command = [sys.executable, "-m", "mmalign.cli"]
    started = time.monotonic()
    options = ["--model.aligned.learning_rate", "1e30", "--trainer.check_val_every_n_epoch", 2]
    ran = run(command, *aligned(house, tmp_path, *options, *DDP))
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "mmalign: error: the loss is not finite" in ran.stderr
    assert not (tmp_path / "art").exists()
    assert time.monotonic() - started < 120  # neither waits for the other


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(house, tmp_path):
    options = aligned(house, tmp_path, "--trainer.max_epochs", 100_000)
    command = [sys.executable, "-m", "mmalign.cli", *map(str, options)]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        for _ in range(600):
            if last.is_file():
                break
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        shown = running.stderr.read()
    assert running.returncode == 1
    assert "Traceback" not in shown
    error = shown.splitlines()[-1]
    assert error == f"mmalign: error: training was interrupted: go on with --ckpt_path {last}"
    import torch

    epoch = torch.load(last, weights_only=True)["epoch"] + 1
    more = ["--ckpt_path", last, "--trainer.max_epochs", epoch + 1]
    ran = run([sys.executable, "-m", "mmalign.cli"], *aligned(house, tmp_path, *more))
    assert ran.returncode == 0, ran.stderr
    assert f"epoch {epoch + 1}/{epoch + 1}: " in ran.stderr
