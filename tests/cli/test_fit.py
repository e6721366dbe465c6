from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mmalign.cli.setup import run_folder
from mmalign.config import from_dict
from mmalign.encoders import load_encoder
from mmalign.errors import MissingDependencyError
from mmalign.experiment import ExperimentConfig
from mmalign.graph.propagation import LAYERS
from mmalign.recommender import Recommender

ROOT = Path(__file__).resolve().parents[2]
DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def aligned(house, tmp_path, *more):
    """Options of a short training whose logs lie in the test's folder."""
    return [
        *("fit", "--config", house.attributes, "--model.name", "aligned"),
        *("--trainer.default_root_dir", tmp_path / "run", "--output", tmp_path / "art", *more),
    ]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_network_is_trained_and_saved(mmalign, house, tmp_path, layer):
    shown = mmalign(*aligned(house, tmp_path, "--model.aligned.layer", layer))
    assert shown.code == 0, shown.err
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.partition(":")[0] for line in lines if line.startswith("epoch ")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert lines[-1].startswith(f"saved {tmp_path / 'art'} after")
    recommender = Recommender.from_pretrained(tmp_path / "art")
    assert recommender.config.model.aligned.layer == layer
    assert recommender.config.data.path == str(house.shop)
    assert recommender.measured["valid, all"]["ndcg@20"] > 0
    measured = json.loads(mmalign("evaluate", tmp_path / "art", "--split", "valid", "--json").out)
    for name in ("warm", "cold", "all"):
        assert measured["slices"][name]["metrics"]["ndcg@20"] == pytest.approx(
            recommender.measured[f"valid, {name}"]["ndcg@20"], abs=1e-4
        )
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


def test_the_run_folder_holds_a_config_that_fits_the_same(mmalign, house, tmp_path):
    options = ["--seed", 4, "--model.aligned.temperature", 0.2]
    assert mmalign(*aligned(house, tmp_path, *options)).code == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("checkpoints", "config.yaml", "csv", "tensorboard"),
    ]
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config = Recommender.from_pretrained(tmp_path / "art").config
    assert from_dict(ExperimentConfig, kept) == config
    assert (config.seed, config.model.aligned.temperature) == (4, 0.2)


def test_the_config_is_there_before_training_ends(mmalign, house, tmp_path):
    assert mmalign(*aligned(house, tmp_path, "--model.aligned.learning_rate", "1e30")).code == 1
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["model"]["aligned"]["learning_rate"] == 1e30


def test_no_encoder_is_loaded_when_all_is_cached(mmalign, house, tmp_path, monkeypatch):
    def load(*_, **__):
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("mmalign.encoders.text.TextEncoder.load", load)
    monkeypatch.setattr("mmalign.encoders.image.ImageEncoder.load", load)
    again = tmp_path / "again"
    shown = mmalign("fit", "--config", house.everything, "--output", again)
    assert shown.code == 0, shown.err
    assert shown.err.count(" 0 encoded") == 2
    one, two = Recommender.from_pretrained(house.art), Recommender.from_pretrained(again)
    assert one.encoders == two.encoders
    for name, feature in one.features.items():
        assert (feature.values == two.features[name].values).all(), name


def test_a_text_column_may_have_an_encoder_of_its_own(mmalign, house, other_text_encoder, tmp_path):
    other = other_text_encoder
    values = yaml.safe_load(house.everything.read_text())
    values["data"] |= {"text": ["title", "genre"], "attributes": {}}
    values["encoders"] |= {"text.title": str(other)}
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(values))
    shown = mmalign("fit", "--config", config, "--output", tmp_path / "art")
    assert shown.code == 0, shown.err
    loaded = Recommender.from_pretrained(tmp_path / "art")
    found = {path: load_encoder(path).fingerprint for path in (other, house.text_encoder)}
    assert loaded.encoders["text.title"] == found[other] != found[house.text_encoder]
    assert loaded.encoders["text.genre"] == found[house.text_encoder]
    items = house.shop / "items.csv"
    new = pd.read_csv(items).head(3).assign(item_id=["n1", "n2", "n3"])
    new.to_csv(tmp_path / "new.csv", index=False)
    added = ("add-items", tmp_path / "art", tmp_path / "new.csv", "--output", tmp_path / "more")
    shown = mmalign(*added, "--encoders.text", house.text_encoder, "--encoders.text.title", other)
    assert shown.code == 0, shown.err
    more = Recommender.from_pretrained(tmp_path / "more").features["text.title"]
    np.testing.assert_allclose(more.values[-3:], more.values[:3], rtol=1e-5)


@pytest.mark.parametrize("content", ["text", "text.title"])
def test_one_content_may_be_read_twice(mmalign, house, other_text_encoder, tmp_path, content):
    second = f"{content}@other"
    values = yaml.safe_load(house.everything.read_text())
    values["data"]["rewrite"] = {"title": {"cup": "mug"}}
    values["encoders"] |= {second: str(other_text_encoder)}
    values["model"] = {
        "name": "kernel_ridge",
        "kernel_ridge": {"kernel": {"weights": {second: 0.5}}},
    }
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(values))
    shown = mmalign("fit", "--config", config, "--output", tmp_path / "art")
    assert shown.code == 0, shown.err
    loaded = Recommender.from_pretrained(tmp_path / "art")
    assert loaded.encoders[second] == load_encoder(other_text_encoder).fingerprint
    assert loaded.encoders[second] != loaded.encoders["text"]
    new = pd.read_csv(house.shop / "items.csv").iloc[1:4].assign(item_id=["n1", "n2", "n3"])
    new.to_csv(tmp_path / "new.csv", index=False)
    shown = mmalign(
        "add-items", tmp_path / "art", tmp_path / "new.csv", "--output", tmp_path / "more"
    )
    assert shown.code == 0, shown.err
    features = Recommender.from_pretrained(tmp_path / "more").features
    texts = list(new.title.str.replace("cup", "mug"))
    assert texts != list(new.title)
    for name, encoder in (("text", house.text_encoder), (second, other_text_encoder)):
        expected = load_encoder(encoder).encode(texts).values
        np.testing.assert_allclose(features[name].values[-3:], expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_be_loaded_is_known_before_another_encodes(
    mmalign, house, tmp_path, monkeypatch
):
    def encode(*_):
        raise AssertionError("something was encoded")

    def load(*_):
        raise MissingDependencyError("this encoder needs timm", fix="pip install timm")

    monkeypatch.setattr("mmalign.encoders.text.TextEncoder.encode", encode)
    monkeypatch.setattr("mmalign.encoders.image.ImageEncoder.load", load)
    options = ["--cache", tmp_path / "empty", "--output", tmp_path / "art"]
    shown = mmalign("fit", "--config", house.everything, *options)
    assert (shown.code, "pip install timm" in shown.error) == (1, True)


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


def test_nothing_goes_on_from_a_checkpoint_of_another_training(mmalign, house, tmp_path):
    assert mmalign(*aligned(house, tmp_path)).code == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    shown = mmalign(*aligned(house, tmp_path, "--ckpt_path", last, "--seed", 1))
    assert (shown.code, "was trained with seed 0" in shown.error) == (1, True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--ckpt_path", "nowhere.ckpt"], 1, "there is no checkpoint there"),
        (["--trainer.max_epoch", "3"], 2, "did you mean 'max_epochs'"),
        (["--trainer.max_epochs", "x"], 2, "trainer.max_epochs has a value of the wrong type"),
        (["--trainer.accelerator", "abacus"], 2, "abacus"),
        (["--training.monitor", "loss"], 2, "training.monitor names no metric"),
        (["--model.aligned.learning_rate", "1e30"], 1, "the loss is not finite"),
        (["--model.aligned.num_layers", "0"], 2, "model.aligned.num_layers must be in [1, inf)"),
        (["--trainer.logger", "false"], 2, "trainer.logger is set by mmalign itself"),
        (["--trainer.precision", "64"], 2, "trainer.precision must be 32 or mixed"),
        (["--trainer.overfit_batches", "1"], 2, "trainer.overfit_batches"),
        (["--trainer.barebones", "true"], 2, "trainer.barebones"),
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


@pytest.fixture
def clubs(tmp_path):
    """A config on a shop where only behaviour tells which of three groups an item is in."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", rng.choice(["train", "valid"], p=[0.7, 0.3]) if user else "valid")
        for user in range(48)
        for item in rng.choice(np.arange(user % 3, 60, 3), 12, replace=False)
    ]
    (tmp_path / "clubs").mkdir()
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    log.to_csv(tmp_path / "clubs" / "interactions.csv", index=False)
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(60)]})
    items.assign(genre=rng.choice(list("abcd"), 60)).to_csv(
        tmp_path / "clubs" / "items.csv", index=False
    )
    config = {
        "data": {
            "path": str(tmp_path / "clubs"),
            "attributes": {"genre": {"kind": "category"}},
        },
        "cache": str(tmp_path / "cache"),
        "model": {"aligned": {"embedding_dim": 16, "hidden_dim": 16, "learning_rate": 0.01}},
        "trainer": {"max_epochs": 15, "check_val_every_n_epoch": 5, "accelerator": "cpu"},
    }
    path = tmp_path / "clubs.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def logged(folder, name):
    """The last logged value of the network itself, not of what it is fused with."""
    return pd.read_csv(folder / "run" / "csv" / "version_0" / "metrics.csv")[name].dropna().iloc[-1]


@pytest.mark.slow
def test_two_processes_train_as_one(mmalign, clubs, tmp_path):
    """As one process with batches of twice the size; only the first prints and writes."""

    def options(name, size, *more):
        folder = tmp_path / name
        return [
            *("fit", "--config", clubs, "--model.aligned.batch_size", size, *more),
            *("--trainer.default_root_dir", folder / "run", "--output", folder / "art"),
        ]

    assert mmalign(*options("one", 16)).code == 0
    assert mmalign(*options("untrained", 16, "--model.aligned.learning_rate", 1e-12)).code == 0
    ran = run([sys.executable, "-m", "mmalign.cli"], *options("two", 8, *DDP))
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
    for once in ("genre: 60 encoded", "epoch 15/15: ", "note: 1 users have no train row", "saved "):
        assert ran.stderr.count(once) == 1, once
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["art", "run"]
    assert [p.name for p in (tmp_path / "two" / "run" / "csv").iterdir()] == ["version_0"]
    found = {
        name: {run: logged(tmp_path / run, name) for run in ("one", "two", "untrained")}
        for name in ("train/rank", "valid/ndcg@20")
    }
    for values in found.values():
        learned = values["one"] - values["untrained"]
        assert (values["two"] - values["untrained"]) / learned == pytest.approx(1, abs=0.2)
    assert found["valid/ndcg@20"]["one"] > 2 * found["valid/ndcg@20"]["untrained"]


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


@pytest.fixture
def mmrec(tmp_path):
    """An MMRec folder: items of two kinds that users keep to, the last four cold in test."""
    folder = tmp_path / "baby"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for user in range(24):
        for item in range(user % 2, 20, 2):
            label = 2 if item >= 16 else int(rng.choice(3, p=[0.6, 0.2, 0.2]))
            rows.append((user, item, label))
    log = pd.DataFrame(rows, columns=["userID", "itemID", "x_label"])
    log.to_csv(folder / "baby.inter", sep="\t", index=False)
    kind = np.eye(2)[np.arange(20) % 2]
    np.save(folder / "text_feat.npy", kind + 0.01 * rng.standard_normal((20, 2)))
    np.save(folder / "image_feat.npy", kind @ rng.standard_normal((2, 3)))
    return folder


@pytest.mark.parametrize("model", ["collective", "aligned"])
def test_the_arrays_of_an_mmrec_folder_are_content(mmalign, mmrec, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    small = ["--model.aligned.embedding_dim", "8", "--model.aligned.hidden_dim", "8"]
    epochs = ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1"]
    arguments = ["--data.path", mmrec, "--model.name", model, "--output", "art", *small, *epochs]
    shown = mmalign("fit", *arguments)
    assert shown.code == 0, shown.err
    assert "text: came encoded, for 100.0% of the items" in shown.err
    art = Recommender.from_pretrained("art")
    given = np.load(mmrec / "image_feat.npy").astype(np.float32)
    np.testing.assert_array_equal(art.features["image"].values, given)
    found = json.loads(mmalign("evaluate", "art", "--json").out)["slices"]
    assert found["cold"]["counts"]["candidates"] == 4
    if model == "collective":  # each wants the two of four that are of the own kind
        assert found["cold"]["metrics"]["ndcg@10"] == pytest.approx(1)
    shown = mmalign("recommend", "art", "--users", "3", "--candidates", "cold", "-k", 2, "--json")
    assert {row["item_id"] for row in json.loads(shown.out)} <= {"16", "17", "18", "19"}


def test_runs_for_two_places_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ExperimentConfig()
    folder = run_folder(config, "a/model")
    assert folder == run_folder(config, tmp_path / "a" / "model")
    assert folder.name.startswith("model-")
    assert folder != run_folder(config, "b/model")
    in_python = run_folder(config, None)
    assert in_python != run_folder(replace(config, seed=1), None)
    given = replace(config, trainer={"default_root_dir": "logs"})
    assert run_folder(given, "a/model") == Path("logs")


@pytest.mark.parametrize("model", ["collective", "aligned"])
def test_a_refit_learns_all_rows_and_keeps_what_valid_chose(mmalign, house, tmp_path, model):
    where = ["--config", house.attributes, "--model.name", model]
    where += ["--trainer.default_root_dir", tmp_path / "run"]
    for name, more in (("plain", []), ("all", ["--training.refit", "true"])):
        assert mmalign("fit", *where, "--output", tmp_path / name, *more).code == 0
    plain, whole = (Recommender.from_pretrained(tmp_path / name) for name in ("plain", "all"))
    assert whole.calibration == plain.calibration
    assert whole.measured == plain.measured
    rows = sum(plain.seen[split].nnz for split in ("train", "valid"))
    assert whole.seen["train"].nnz > rows  # and those of test
    assert whole.warm.sum() > plain.warm.sum()
    shown = mmalign("evaluate", tmp_path / "all", "--split", "test")
    assert "were trained on" in shown.err
    if model == "aligned":
        logged = pd.read_csv(tmp_path / "run" / "csv" / "version_1" / "metrics.csv")
        best = int(logged.loc[logged["valid/ndcg@20"].idxmax(), "epoch"])
        again = pd.read_csv(tmp_path / "run" / "refit" / "csv" / "version_0" / "metrics.csv")
        assert again["epoch"].max() == best
