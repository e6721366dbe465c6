from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from mmalign.cli.items import _lines
from mmalign.encoders import presets, resolve
from mmalign.encoders.presets import PackageConfig, PresetConfig
from mmalign.encoders.runtime import file_sha256
from mmalign.recommender import Recommender
from mmalign.recommender.explanation import Explanation


@pytest.fixture
def new_items(items, tmp_path):
    """Twelve items as those of the shop, under new ids, with pictures beside the table."""
    folder = tmp_path / "arrivals"
    (folder / "pictures").mkdir(parents=True)
    frame = items.iloc[13:25].assign(item_id=[f"new {n}" for n in range(12)])
    frame["image"] = [f"pictures/{n}.png" for n in range(12)]
    for n in range(12):
        colour = [(200, 30, 30), (30, 30, 200), (30, 200, 30), (200, 200, 30)][(13 + n) % 4]
        Image.new("RGB", (24, 24), colour).save(folder / "pictures" / f"{n}.png")
    frame.to_csv(folder / "items.csv", index=False)
    return folder / "items.csv"


def test_new_items_are_encoded_placed_and_recommended(mmalign, house, new_items, tmp_path):
    added = tmp_path / "added"
    shown = mmalign("add-items", house.art, new_items, "--output", added)
    assert shown.code == 0, shown.err
    assert "text: 0 encoded in 0.0 s, 11 cached, 1 absent" in shown.err  # the words of the shop
    assert shown.err.splitlines()[-1] == f"added 12 items, saved {added}"
    before, after = Recommender.from_pretrained(house.art), Recommender.from_pretrained(added)
    assert after.item_ids.tolist() == [*before.item_ids, *(f"new {n}" for n in range(12))]
    assert after.features["image"].present[-12:].all()

    recs = mmalign("recommend", added, "--users", "u1", "-k", 99, "--candidates", "cold", "--json")
    ranked = [row["item_id"] for row in json.loads(recs.out)]
    assert {f"new {n}" for n in range(12)} < set(ranked)
    old = mmalign("recommend", house.art, "--users", "u1", "-k", 99, "--json").out
    scores = {row["item_id"]: row["score"] for row in json.loads(old)}
    new = mmalign("recommend", added, "--users", "u1", "-k", 99, "--json").out
    for row in json.loads(new):
        if not row["item_id"].startswith("new"):  # nobody's scores change
            assert row["score"] == pytest.approx(scores[row["item_id"]], abs=1e-5)


def test_a_copy_of_an_item_is_placed_where_the_item_is(mmalign, house, items, tmp_path):
    copy = items[items["item_id"] == "i20"].assign(item_id="copy")
    copy.to_parquet(tmp_path / "copy.parquet")
    added = tmp_path / "added"
    arguments = ["--data.path", house.shop]  # where the picture lies
    shown = mmalign(
        "add-items", house.art, tmp_path / "copy.parquet", "--output", added, *arguments
    )
    assert shown.code == 0, shown.err
    features = Recommender.from_pretrained(added).features
    for name, feature in features.items():
        assert feature.present[20] == feature.present[-1], name
        np.testing.assert_allclose(feature.values[20], feature.values[-1], atol=1e-6)


def test_no_encoder_is_loaded_when_all_is_cached(mmalign, house, items, tmp_path, monkeypatch):
    items.head(20).assign(item_id=[f"again {n}" for n in range(20)]).to_parquet(
        tmp_path / "again.parquet"
    )

    def load(*_, **__):
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("mmalign.encoders.text.TextEncoder.load", load)
    monkeypatch.setattr("mmalign.encoders.image.ImageEncoder.load", load)
    shown = mmalign(
        *("add-items", house.art, tmp_path / "again.parquet"),
        *("--output", tmp_path / "added", "--data.path", house.shop),
    )
    assert shown.code == 0, shown.err
    assert shown.err.count(" 0 encoded") == 2


def test_the_hub_is_not_asked_for_an_encoder_that_is_here(
    mmalign, house, new_items, tmp_path, monkeypatch
):
    # A preset with both: the hub, which comes first, and a package with the same weights.
    folder = house.text_encoder
    digest = file_sha256(folder / "model.safetensors")
    site = tmp_path / "site"
    shutil.copytree(folder, site / "weights_here")
    (site / "weights_here" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(site))
    package = PackageConfig("weights-here==1", "weights_here", "model.safetensors", digest)
    preset = PresetConfig("transformers", "text", name="own", hub="some/model", package=package)
    read = presets.read_preset
    monkeypatch.setattr(
        presets, "read_preset", lambda name: preset if name == "own" else read(name)
    )
    asked = []

    def ask(_):
        asked.append("hub")
        raise resolve._AbsentError("no answer")

    monkeypatch.setattr(resolve, "_from_hub", ask)
    art = tmp_path / "art"
    shown = mmalign(
        *("fit", "--config", house.everything, "--encoders.text", "own", "--output", art),
    )
    assert shown.code == 0, shown.err
    assert asked == ["hub"]
    shown = mmalign("add-items", art, new_items, "--output", tmp_path / "added")
    assert shown.code == 0, shown.err
    assert asked == ["hub"]


def test_adding_twice_is_one_line(mmalign, house, new_items, tmp_path):
    assert mmalign("add-items", house.art, new_items, "--output", tmp_path / "one").code == 0
    shown = mmalign("add-items", tmp_path / "one", new_items, "--output", tmp_path / "two")
    assert shown.code == 1
    assert "12 new items are in the artefact already (got 'new 0')" in shown.error
    assert not (tmp_path / "two").exists()


def test_another_encoder_than_the_fitted_one_is_refused(mmalign, house, new_items, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(house.text_encoder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    arguments = ["--output", tmp_path / "added", "--encoders.text", other]
    shown = mmalign("add-items", house.art, new_items, *arguments)
    assert shown.code == 1
    assert "encoder here is not the one the artefact was fitted with" in shown.error
    assert not (tmp_path / "added").exists()


def test_a_model_that_reads_no_content_cannot_place_new_items(mmalign, house, tmp_path, new_items):
    art = tmp_path / "ease"
    arguments = ["--config", house.attributes, "--model.name", "ease", "--output", art]
    assert mmalign("fit", *arguments).code == 0
    shown = mmalign("add-items", art, new_items, "--output", tmp_path / "added")
    assert shown.code == 1
    assert "model 'ease' cannot place new items" in shown.error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="title"), "items have no column 'title'"),
        (lambda frame: frame.drop(columns="item_id"), "items have no column 'item_id'"),
        (lambda frame: frame[:0], "is empty"),
        (lambda frame: pd.concat([frame, frame]), "12 repeated ids (got 'new 0')"),
        (lambda frame: frame.assign(item_id=None), "rows without item_id"),
    ],
)
def test_a_table_that_cannot_be_used(mmalign, house, new_items, tmp_path, change, message):
    change(pd.read_csv(new_items)).to_csv(new_items, index=False)
    shown = mmalign("add-items", house.art, new_items, "--output", tmp_path / "added")
    assert shown.code == 1
    assert message in shown.error
    assert not (tmp_path / "added").exists()


def test_a_file_that_is_not_there(mmalign, house, tmp_path):
    shown = mmalign("add-items", house.art, "nowhere.csv", "--output", tmp_path / "added")
    assert (shown.code, "no such file (got 'nowhere.csv')" in shown.error) == (1, True)


def test_a_new_item_may_lack_anything(mmalign, house, new_items, tmp_path):
    frame = pd.read_csv(new_items).astype({"year": float})
    frame.loc[0, ["title", "image"]] = None
    frame.loc[1, "image"] = "pictures/nowhere.png"
    (new_items.parent / "pictures" / "2.png").write_bytes(b"no picture")
    frame.loc[3, ["genre", "year"]] = ["unheard of", np.inf]
    frame.to_csv(new_items, index=False)
    shown = mmalign("add-items", house.art, new_items, "--output", tmp_path / "added")
    assert shown.code == 0, shown.err
    for line in ("image of item new 1: file not found", "image of item new 2: "):
        assert line in shown.err
    assert "note: attribute year is no finite number in 1 items" in shown.err
    features = Recommender.from_pretrained(tmp_path / "added").features
    assert features["image"].present[-12:].tolist() == [False] * 3 + [True] * 9
    assert not features["year"].present[-9]


def test_audience_ranks_users_who_have_not_seen_the_item(mmalign, house, log, tmp_path):
    (tmp_path / "ids.txt").write_text("i0\ni13\n")
    shown = mmalign("audience", house.art, "--items", tmp_path / "ids.txt", "-k", 99, "--json")
    frame = pd.DataFrame(json.loads(shown.out))
    assert list(frame.columns) == ["item_id", "user_id", "rank", "score"]
    known = set(log["user_id"][log["split"] == "train"])
    for item, part in frame.groupby("item_id", sort=False):
        assert part["rank"].tolist() == list(range(1, len(part) + 1))
        assert part["score"].is_monotonic_decreasing
        mine = log[(log["item_id"] == item) & log["split"].isin(["train", "valid"])]
        assert set(part["user_id"]) == known - set(mine["user_id"])
    assert frame["item_id"].unique().tolist() == ["i0", "i13"]
    table = mmalign("audience", house.art, "--items", "i0", "-k", 3, "--output", tmp_path / "a.csv")
    assert table.code == 0
    assert pd.read_csv(tmp_path / "a.csv")["rank"].tolist() == [1, 2, 3]
    assert "unknown item" in mmalign("audience", house.art, "--items", "i0", "i99").error


def test_explain_names_warm_items_and_shares(mmalign, house, log):
    found = json.loads(mmalign("explain", house.art, "i1", "-k", 3, "--json").out)
    warm = set(log["item_id"][log["split"] == "train"])
    assert found["item_id"] == "i1"
    assert len(found["neighbours"]) == 3
    assert {n["item_id"] for n in found["neighbours"]} <= warm
    assert sum(found["shares"].values()) == pytest.approx(1)
    mine = set(log["item_id"][(log["user_id"] == "u5") & (log["split"] == "train")])
    of_user = json.loads(mmalign("explain", house.art, "i1", "--user", "u5", "--json").out)
    assert {n["item_id"] for n in of_user["neighbours"]} <= mine
    lines = mmalign("explain", house.art, "i1", "-k", 3).out.splitlines()
    assert lines[0].startswith("i1 stands near (")
    assert len(lines) == 4
    for arguments, message in ((["i99"], "unknown item"), (["i1", "--user", "x"], "unknown user")):
        assert message in mmalign("explain", house.art, *arguments).error


def test_options_of_the_artefact_can_be_given_in_a_file(mmalign, house, new_items, tmp_path):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"cache": str(tmp_path / "own cache")}))
    arguments = ["--config", tmp_path / "own.yaml", "--output", tmp_path / "added"]
    assert mmalign("add-items", house.art, new_items, *arguments).code == 0
    assert list((tmp_path / "own cache").iterdir())


def test_an_item_that_is_known_is_refused_before_it_is_encoded(
    mmalign, house, items, tmp_path, monkeypatch
):
    monkeypatch.setattr("mmalign.cli.items.encode", lambda *_, **__: pytest.fail("encoded"))
    items.head(1).to_csv(tmp_path / "known.csv", index=False)
    shown = mmalign("add-items", house.art, tmp_path / "known.csv", "--output", tmp_path / "new")
    assert shown.code == 1
    assert "1 new items are in the artefact already (got 'i0')" in shown.error


def test_overrides_of_a_fitted_model_are_refused(mmalign, house, new_items, tmp_path):
    arguments = ["--output", tmp_path / "new", "--model.name", "ease"]
    shown = mmalign("add-items", house.art, new_items, *arguments)
    assert shown.code == 2
    assert "--model does nothing here" in shown.error


def test_pictures_may_lie_beside_the_table_or_where_is_told(mmalign, house, new_items, tmp_path):
    elsewhere = tmp_path / "table"
    elsewhere.mkdir()
    moved, added = new_items.rename(elsewhere / "items.csv"), tmp_path / "added"
    shown = mmalign("add-items", house.art, moved, "--output", added)
    assert shown.code == 0
    assert "none of the 12 pictures that the items name is in" in shown.err
    assert "--data.path DIR" in shown.err
    told = ["--output", added, "--data.path"]
    shown = mmalign("add-items", house.art, moved, *told, "nowhere")
    assert (shown.code, "data.path is no folder (got 'nowhere')" in shown.error) == (1, True)
    shown = mmalign("add-items", house.art, moved, *told, new_items.parent)
    assert "none of the" not in shown.err
    assert Recommender.from_pretrained(added).features["image"].present[-12:].all()


def test_pictures_of_the_fitted_data_are_found(mmalign, house, items, tmp_path):
    copy = items[items["item_id"] == "i20"].assign(item_id="copy")
    copy.to_parquet(tmp_path / "copy.parquet")
    shown = mmalign("add-items", house.art, tmp_path / "copy.parquet", "--output", tmp_path / "a")
    assert "image: 0 encoded in 0.0 s, 1 cached" in shown.err


def test_encoders_named_by_relative_paths_are_found_from_anywhere(
    mmalign, house, new_items, tmp_path, monkeypatch
):
    monkeypatch.chdir(house.text_encoder.parent)
    art, name = tmp_path / "art", house.text_encoder.name
    own = ["--encoders.text", name, "--cache", tmp_path / "cache"]
    shown = mmalign("fit", "--config", house.everything, *own, "--output", art)
    assert shown.code == 0, shown.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    shown = mmalign("add-items", art, new_items, "--output", tmp_path / "added")
    assert shown.code == 0, shown.err


def test_an_encoder_that_is_gone_is_asked_for(mmalign, house, new_items, tmp_path):
    art = tmp_path / "art"
    shutil.copytree(house.art, art)
    config = json.loads((art / "config.json").read_text())
    config["experiment"]["encoders"]["text"] = "gone/text"
    (art / "config.json").write_text(json.dumps(config))
    shown = mmalign("add-items", art, new_items, "--output", tmp_path / "added")
    assert shown.code == 1
    wanted = config["encoders"]["text"][:12]
    assert "gone/text" in shown.error
    assert f"--encoders.text PATH (fingerprint {wanted})" in shown.error


@pytest.mark.parametrize(
    ("user", "said"),
    [(None, "no warm item resembles i1"), ("u7", "no item that u7 took resembles i1")],
)
def test_nothing_found_says_where_it_was_looked_for(user, said):
    assert _lines(Explanation("i1", (), {}), user) == [said]
