"""What a user sees of input that is broken, odd or hostile: one line, or the stated behaviour."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from mmalign.recommender import Recommender
from mmalign.recommender.artefact import FILES


def change(name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    def spoil(shop: Path) -> None:
        file = shop / f"{name}.csv"
        edit(pd.read_csv(file)).to_csv(file, index=False)

    return spoil


def with_cell(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        cells = frame[column].astype(object) if column in frame else pd.Series(1.0, frame.index)
        cells = cells.astype(object)
        cells[row] = value
        return frame.assign(**{column: cells})

    return edit


def empty(name: str) -> Callable[[Path], object]:
    return lambda shop: (shop / name).write_bytes(b"")


class Refused(NamedTuple):
    spoil: Callable[[Path], object]
    message: str
    options: tuple[str, ...] = ()


REFUSED = {
    "empty items": Refused(empty("items.csv"), "items.csv is empty"),
    "empty log": Refused(empty("interactions.csv"), "interactions.csv is empty"),
    "only a header": Refused(change("items", lambda f: f[:0]), "items.csv is empty"),
    "no item ids": Refused(
        change("items", lambda f: f.rename(columns={"item_id": "id"})),
        "items have no column 'item_id'",
    ),
    "no user ids": Refused(
        change("interactions", lambda f: f.drop(columns="user_id")),
        "interactions have no column 'user_id'",
    ),
    "missing text column": Refused(
        change("items", lambda f: f.rename(columns={"title": "tilte"})),
        "items have no column 'title', which data.text names: did you mean 'tilte'",
    ),
    "missing attribute": Refused(
        change("items", lambda f: f.drop(columns="genre")),
        "items have no column 'genre', which data.attributes.genre names",
    ),
    "duplicate item ids": Refused(
        change("items", lambda f: pd.concat([f, f.head(2)])), "2 repeated ids (got 'i0')"
    ),
    "an item without id": Refused(
        change("items", with_cell("item_id", 3, None)), "1 rows without item_id (got 'row 3')"
    ),
    "unknown split": Refused(
        change("interactions", lambda f: f.replace({"split": {"valid": "val"}})),
        "unknown split (got 'val'): did you mean 'valid'",
    ),
    "only unknown items": Refused(
        change("interactions", lambda f: f.assign(item_id="x" + f["item_id"])),
        "no interaction is with an item of the catalogue",
    ),
    "no text anywhere": Refused(
        change("items", lambda f: f.assign(title="")), "no item has a text"
    ),
    "no picture anywhere": Refused(
        change("items", lambda f: f.assign(image="nowhere.png")), "no item has a picture"
    ),
    "no attribute anywhere": Refused(
        change("items", lambda f: f.assign(year=np.nan)), "no item has the attribute year"
    ),
    "negative weight": Refused(
        change("interactions", with_cell("weight", 4, -1.0)),
        "a negative, missing or infinite weight (got '-1.0 in row 4')",
    ),
    "infinite weight": Refused(
        change("interactions", with_cell("weight", 4, np.inf)),
        "a negative, missing or infinite weight (got 'inf in row 4')",
    ),
    "huge weight": Refused(
        change("interactions", with_cell("weight", 4, 1e30)),
        "1 rows with a weight above 1e+09 (got '1e+30 in row 4')",
    ),
    "missing weight": Refused(
        change("interactions", with_cell("weight", 4, None)),
        "a negative, missing or infinite weight",
    ),
    "a weight that is a word": Refused(
        change("interactions", with_cell("weight", 4, "much")), "no number in row 4 (got 'much')"
    ),
    "one time that is a word": Refused(
        change(
            "interactions",
            lambda f: f.assign(timestamp=[1 if row != 4 else "yesterday" for row in range(len(f))]),
        ),
        "no time in row 4 (got 'yesterday')",
    ),
    "nothing is positive": Refused(
        lambda _: None, "no interaction is positive", ("--data.positive", "split == 'nothing'")
    ),
    "no train rows": Refused(
        change("interactions", lambda f: f.assign(split="test")), "there are no train rows"
    ),
    "a column given twice": Refused(
        lambda shop: (shop / "items.csv").write_text("item_id,title,title\ni0,a,b\n"),
        "two columns of the same name (got 'title')",
    ),
    "semicolons": Refused(
        lambda shop: pd.read_csv(shop / "items.csv").to_csv(
            shop / "items.csv", sep=";", index=False
        ),
        "are separated by ';'",
    ),
    "two files of one name": Refused(
        lambda shop: (shop / "items.jsonl").write_text("{}"),
        "several files",
    ),
    "a broken table": Refused(
        lambda shop: (shop / "log.parquet").write_bytes(b"PAR1"),
        "cannot read",
        ("--data.interactions", "log.parquet"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_input_that_cannot_be_used_is_one_line(mmalign, house, shop, tmp_path, name, command):
    case = REFUSED[name]
    case.spoil(shop)
    art = tmp_path / "never"
    output = ["--output", art] if command == "fit" else []
    arguments = ["--config", house.everything, "--data.path", shop, *case.options, *output]
    shown = mmalign(command, *arguments)
    assert shown.code == 1
    assert case.message in shown.error
    assert not art.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model.name", "collective", "--model.collective.kernel.modalities", "[txt]"),
            "a modality that there is not (got 'txt'): did you mean 'text'",
        ),
        (
            ("--encoders.text.titel", "minilm"),
            "encoders.text.titel names no column of data.text: did you mean 'title'",
        ),
        (("--encoders.text@", "minilm"), "unknown modality 'encoders.text@'"),
        (("--encoders.txt@fame", "minilm"), "unknown modality 'encoders.txt@fame'"),
        (("--encoders.text.titel@fame", "minilm"), "did you mean 'title'"),
        (("--seed", "-1"), "seed must be a number from 0 to 2^32 - 1 (got -1): pass 0"),
    ],
)
def test_settings_that_name_nothing_are_one_line(mmalign, house, tmp_path, options, message):
    art = tmp_path / "never"
    shown = mmalign("fit", "--config", house.everything, *options, "--output", art)
    assert shown.code == 2
    assert message in shown.error
    assert not art.exists()


class Tolerated(NamedTuple):
    spoil: Callable[[Path], object]
    note: str
    check: Callable[[Recommender], bool]
    options: tuple[str, ...] = ()


def picture(number: int, content: bytes) -> Callable[[Path], object]:
    return lambda shop: (shop / "images" / f"{number}.png").write_bytes(content)


def absent(modality: str, row: int) -> Callable[[Recommender], bool]:
    return lambda art: not art.features[modality].present[row] and art.features[modality].present[1]


def rename(old: str, new: str) -> Callable[[Path], object]:
    def spoil(shop: Path) -> None:
        for name in ("items", "interactions"):
            change(name, lambda f: f.replace({"item_id": {old: new}}))(shop)

    return spoil


def as_parquet(name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    def spoil(shop: Path) -> None:
        edit(pd.read_csv(shop / f"{name}.csv")).to_parquet(shop / f"{name}.parquet")
        (shop / f"{name}.csv").unlink()

    return spoil


def without_test(log: pd.DataFrame) -> pd.DataFrame:
    return log[log["split"] != "test"].assign(timestamp=lambda kept: range(len(kept)))


TOLERATED = {
    "a corrupt picture": Tolerated(
        picture(20, b"\x89PNG\r\n\x1a\n broken"), "image of item i20: ", absent("image", 20)
    ),
    "a picture cut short": Tolerated(picture(20, b""), "image of item i20: ", absent("image", 20)),
    "a picture that is not there": Tolerated(
        lambda shop: (shop / "images" / "20.png").unlink(),
        "image of item i20: file not found",
        absent("image", 20),
    ),
    "an infinite attribute": Tolerated(
        change("items", with_cell("year", 20, np.inf)), "year", absent("year", 20)
    ),
    "a missing attribute": Tolerated(
        change("items", with_cell("year", 20, None)), "1 absent", absent("year", 20)
    ),
    "a NaN in a Parquet file": Tolerated(
        as_parquet("items", lambda f: f.assign(year=f["year"].astype(float).where(f.index != 20))),
        "1 absent",
        absent("year", 20),
    ),
    "a date that cannot be read": Tolerated(
        change("items", lambda f: with_cell("made", 20, "soon")(f.assign(made="2001-05-01"))),
        "attribute made is no date in 1 items, first item 'i20' with 'soon': taken as missing",
        absent("made", 20),
        ("--data.attributes.made.kind", "date"),
    ),
    "an attribute that is a word": Tolerated(
        change("items", with_cell("year", 20, "soon")), "'soon'", absent("year", 20)
    ),
    "an unknown item in the log": Tolerated(
        change("interactions", with_cell("item_id", 0, "stranger")),
        "1 interactions with items that are not in the catalogue were dropped, first item 'strang",
        lambda art: "stranger" not in art.item_ids,
    ),
    "a user without train rows": Tolerated(
        lambda _: None,
        "1 users have no train row: they are ranked by popularity alone",
        lambda art: "u29" in art.user_ids,
    ),
    "no split column": Tolerated(
        change("interactions", lambda f: f.drop(columns="split")),
        "the log has no split column",
        lambda art: art.seen["train"].nnz > art.seen["valid"].nnz > 0,
    ),
    "no valid rows": Tolerated(
        change("interactions", lambda f: f[f["split"] != "valid"]),
        "there are no valid rows",
        lambda art: not art.measured,
    ),
    "no test rows": Tolerated(
        change("interactions", without_test),
        "there are no test rows",
        lambda art: "valid, warm" in art.measured,
    ),
    "times in milliseconds": Tolerated(
        change("interactions", lambda f: f.assign(timestamp=1_600_000_000_000)),
        "if they are milliseconds, divide them by 1,000",
        lambda art: True,
    ),
    "weights of zero": Tolerated(
        change("interactions", with_cell("weight", 0, 0.0)),
        "1 interactions of weight 0 were dropped",
        lambda art: art.seen["train"].min() >= 0,
    ),
    "an id with spaces and accents": Tolerated(
        rename("i20", " tàñ 汉字 20 "),
        "saved",
        lambda art: " tàñ 汉字 20 " in art.item_ids,
    ),
}


@pytest.mark.filterwarnings("ignore:1 users have no history")
@pytest.mark.parametrize("name", TOLERATED)
def test_input_that_can_be_mended_is_noted_and_used(mmalign, house, shop, tmp_path, name):
    case, art = TOLERATED[name], tmp_path / "art"
    case.spoil(shop)
    arguments = ["--config", house.everything, "--data.path", shop, "--output", art]
    shown = mmalign("fit", *arguments, *case.options)
    assert shown.code == 0, shown.err
    assert case.note in shown.err
    recommender = Recommender.from_pretrained(art)
    assert case.check(recommender)
    assert np.isfinite(recommender.recommend(k=5)["score"]).all()


def test_a_strange_id_goes_the_whole_way(mmalign, house, shop, tmp_path):
    strange = " tàñ\u2028汉字 20 "
    rename("i20", strange)(shop)
    art = tmp_path / "an artefact"
    arguments = ["--config", house.attributes, "--data.path", shop, "--output", art]
    assert mmalign("fit", *arguments).code == 0
    (tmp_path / "ids.txt").write_text(strange + "\n", encoding="utf-8")
    (tmp_path / "own ids.txt").write_text(strange + "\n", encoding="utf-8")
    for option in ("ids.txt", "own ids.txt"):
        found = mmalign("audience", art, "--items", tmp_path / option, "-k", 2, "--json")
        assert {row["item_id"] for row in json.loads(found.out)} == {strange}
    found = mmalign("recommend", art, "--history", strange, "-k", 2, "--json")
    assert len(json.loads(found.out)) == 2
    assert json.loads(mmalign("explain", art, strange, "--json").out)["item_id"] == strange


def test_k_beyond_the_candidates_gives_what_there_is(mmalign, house):
    shown = mmalign("recommend", house.art, "--users", "u1", "-k", 10**9, "--json")
    ranks = [row["rank"] for row in json.loads(shown.out)]
    assert ranks == list(range(1, len(ranks) + 1))
    assert len(ranks) < 40


def truncate(name: str) -> Callable[[Path], object]:
    def spoil(art: Path) -> None:
        file = art / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return spoil


def add_pickle(art: Path) -> None:
    (art / "extra.pkl").write_bytes(pickle.dumps([1]))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"half of {name}": (truncate(name), f"{name} is damaged")
        for name in FILES
        if name != "README.md"  # for people only
    },
    "no config": (lambda art: (art / "config.json").unlink(), "config.json is missing"),
    "no users": (lambda art: (art / "users.parquet").unlink(), "users.parquet is missing"),
    "a pickle inside": (add_pickle, "extra.pkl"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize(
    "arguments",
    [["recommend", "ART"], ["evaluate", "ART"], ["explain", "ART", "i1"]],
    ids=lambda arguments: arguments[0],
)
def test_an_artefact_that_cannot_be_trusted_is_one_line(mmalign, art, name, arguments):
    spoil, message = BROKEN[name]
    spoil(art)
    shown = mmalign(*(art if argument == "ART" else argument for argument in arguments))
    assert shown.code == 1
    assert message in shown.error
    assert shown.out == ""


def test_an_artefact_that_is_not_there(mmalign):
    shown = mmalign("recommend", "nowhere/at/all")
    assert shown.code == 1
    assert "no artefact there" in shown.error


def unwritable(tmp_path: Path) -> Path:
    """A place that even root cannot write: below a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "art"


@pytest.mark.parametrize("command", ["fit", "recommend", "add-items", "audience"])
def test_an_output_that_cannot_be_written_is_said_before_the_work(
    mmalign, house, tmp_path, monkeypatch, command
):
    def work(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr("mmalign.data.catalog.Catalog.read", work)
    monkeypatch.setattr(Recommender, "from_pretrained", work)
    place = unwritable(tmp_path)
    arguments = {
        "fit": ["--config", house.attributes, "--output", place],
        "recommend": [house.art, "--output", f"{place}.csv"],
        "add-items": [house.art, house.shop / "items.csv", "--output", place],
        "audience": [house.art, "--items", "i1", "--output", f"{place}.csv"],
    }[command]
    shown = mmalign(command, *arguments)
    assert shown.code == 1
    assert "cannot" in shown.error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(mmalign, house, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    arguments = ["--config", house.attributes, "--output", tmp_path / "locked" / "art"]
    assert "cannot be written" in mmalign("fit", *arguments).error


def test_a_folder_that_turns_out_to_be_read_only(mmalign, house, tmp_path, monkeypatch):
    """As the last test, for root as well: asking says yes, and only making a folder fails."""
    locked, make = tmp_path / "locked", Path.mkdir
    locked.mkdir()

    def refuse(path: Path, *arguments: object, **options: object) -> None:
        if locked in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        make(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "mkdir", refuse)
    arguments = ["--config", house.attributes, "--output", locked / "art"]
    shown = mmalign("fit", *arguments)
    assert shown.code == 1
    assert "Permission denied" in shown.error
    monkeypatch.setattr("os.access", lambda *_: False)
    shown = mmalign("fit", *arguments)
    assert shown.code == 1
    assert "cannot be written" in shown.error
    assert list(locked.iterdir()) == []


def test_a_folder_of_other_files_is_not_overwritten(mmalign, house, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    shown = mmalign("fit", "--config", house.attributes, "--output", tmp_path / "mine")
    assert shown.code == 1
    assert "thesis.txt" in shown.error
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
