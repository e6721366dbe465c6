from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest


def read(path):
    readers = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True),
    }
    return readers[path.suffix](path)


def pairs(frame):
    return set(zip(frame["user_id"], frame["item_id"], strict=True))


def check_lists(frame, k):
    """Columns, ranks and order are as promised, and nobody is shown an item twice."""
    assert list(frame.columns) == ["user_id", "item_id", "rank", "score"]
    assert np.isfinite(frame["score"]).all()
    assert not frame.duplicated(["user_id", "item_id"]).any()
    for _, part in frame.groupby("user_id", sort=False):
        assert part["rank"].tolist() == list(range(1, len(part) + 1))
        assert part["score"].is_monotonic_decreasing
        assert len(part) <= k


def protocol(log, split, candidates, excluded):
    """Section 5 of the design in sets: users, candidates, and what each user must not be shown."""
    of = {name: set(log["item_id"][log["split"] == name]) for name in ("train", "valid", "test")}
    cold = of[split] - set(log["item_id"][log["split"] != split])
    allowed = {"warm": of["train"], "cold": cold, "all": of["train"] | cold}[candidates]
    rows = log[(log["split"] == split) & log["item_id"].isin(allowed)]
    seen = {user: set() for user in rows["user_id"]}
    for user, item, part in log[["user_id", "item_id", "split"]].itertuples(index=False):
        if part in excluded and user in seen:
            seen[user].add(item)
    return allowed, seen


@pytest.mark.parametrize("candidates", ["warm", "cold", "all"])
@pytest.mark.parametrize(
    ("split", "option", "excluded"),
    [
        ("test", [], {"train", "valid"}),
        ("test", ["--exclude-seen", "train"], {"train"}),
        ("test", ["--exclude-seen", "none"], set()),
        ("valid", [], {"train"}),  # at the time of valid, its own rows are not seen yet
    ],
)
def test_lists_of_a_split_have_exactly_its_users_candidates_and_exclusions(
    mmalign, house, log, tmp_path, split, option, excluded, candidates
):
    file = tmp_path / "recs.parquet"
    shown = mmalign(
        *("recommend", house.art, "--split", split, *option, "--candidates", candidates),
        *("--data.path", house.shop, "--data.interactions", "interactions.csv"),
        *("--users", "all", "-k", 1000, "--output", file),
    )
    assert shown.code == 0, shown.err
    frame = read(file)
    check_lists(frame, 1000)
    allowed, seen = protocol(log, split, candidates, excluded)
    assert pairs(frame) == {(user, item) for user in seen for item in allowed - seen[user]}


def test_a_short_list_is_the_start_of_a_long_one(mmalign, house, tmp_path):
    common = ["recommend", house.art, "--split", "test", "--candidates", "cold"]
    for k in (2, 5):
        assert mmalign(*common, "-k", k, "--output", tmp_path / f"{k}.csv").code == 0
    short, long = read(tmp_path / "2.csv"), read(tmp_path / "5.csv")
    check_lists(short, 2)
    pd.testing.assert_frame_equal(short, long[long["rank"] <= 2].reset_index(drop=True))


def test_a_split_for_some_users_only(mmalign, house, tmp_path):
    everybody, some = tmp_path / "all.csv", tmp_path / "some.csv"
    common = ["recommend", house.art, "--split", "test", "--candidates", "warm", "--output"]
    assert mmalign(*common, everybody).code == 0
    shown = mmalign(*common, some, "--users", "u1", "u29")
    assert shown.code == 0
    expected = read(everybody)
    expected = expected[expected["user_id"].isin(["u1", "u29"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(read(some), expected)
    assert "1 unknown user" in mmalign(*common, some, "--users", "u1", "nobody").error


def test_without_a_split_cold_is_every_item_without_a_train_row(mmalign, house, log, items):
    shown = mmalign("recommend", house.art, "--candidates", "cold", "-k", 99, "--json")
    frame = pd.DataFrame(json.loads(shown.out))
    check_lists(frame, 99)
    warm = set(log["item_id"][log["split"] == "train"])
    seen = pairs(log[log["split"].isin(["train", "valid"])])
    everything = {(f"u{u}", item) for u in range(30) for item in set(items["item_id"]) - warm}
    assert pairs(frame) == everything - seen


@pytest.mark.parametrize(
    ("option", "splits"),
    [
        ([], ["train", "valid"]),
        (["--exclude-seen", "train"], ["train"]),
        (["--exclude-seen", "none"], []),
    ],
)
def test_what_was_seen_is_left_out(mmalign, house, log, items, option, splits):
    shown = mmalign("recommend", house.art, "--users", "u3", "-k", 99, "--json", *option)
    found = {row["item_id"] for row in json.loads(shown.out)}
    mine = log[(log["user_id"] == "u3") & log["split"].isin(splits)]
    assert found == set(items["item_id"]) - set(mine["item_id"])


@pytest.mark.parametrize("kind", ["ids", "txt", "csv", "parquet", "jsonl"])
def test_users_from_the_command_line_or_a_file(mmalign, house, tmp_path, kind):
    file = tmp_path / f"users.{kind}"
    frame = pd.DataFrame({"name": ["x", "y", "z"], "user_id": ["u7", "u2", "u7"]})
    if kind == "txt":
        file.write_text("u7\n\nu2\r\nu7\n")
    elif kind == "csv":
        frame.to_csv(file, index=False)
    elif kind == "parquet":
        frame.to_parquet(file)
    elif kind == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    users = ["u7", "u2", "u7"] if kind == "ids" else [file]
    shown = mmalign("recommend", house.art, "--users", *users, "-k", 2, "--json")
    rows = json.loads(shown.out)
    assert [(row["user_id"], row["rank"]) for row in rows] == [
        ("u7", 1),
        ("u7", 2),
        ("u2", 1),
        ("u2", 2),
    ]


def test_a_history_gives_a_list_for_somebody_new(mmalign, house, items):
    liked = ["i13", "i17", "i21"]  # all of one kind
    shown = mmalign("recommend", house.art, "--history", *liked, "-k", 8, "--json")
    frame = pd.DataFrame(json.loads(shown.out))
    assert list(frame.columns) == ["item_id", "rank", "score"]
    assert frame["rank"].tolist() == list(range(1, 9))
    assert not set(frame["item_id"]) & set(liked)


def test_an_unknown_user_gets_popular_items_and_a_warning(mmalign, house):
    shown = mmalign("recommend", house.art, "--users", "nobody", "-k", 3, "--json")
    assert shown.code == 0
    assert len(json.loads(shown.out)) == 3
    assert shown.err.startswith("mmalign: warning: 1 users have no history")


def test_a_filter_keeps_what_fulfils_it(mmalign, house, items):
    shown = mmalign(
        "recommend", house.art, "--users", "u1", "--filter", "price < 9", "-k", 99, "--json"
    )
    cheap = set(items["item_id"][items["price"] < 9])
    found = {row["item_id"] for row in json.loads(shown.out)}
    assert found
    assert found <= cheap


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_every_format_holds_the_same_lists(mmalign, house, tmp_path, ending):
    file = tmp_path / "new" / f"recs.{ending}"
    assert mmalign("recommend", house.art, "-k", 2, "--output", file).code == 0
    printed = pd.DataFrame(json.loads(mmalign("recommend", house.art, "-k", 2, "--json").out))
    found = read(file)
    pd.testing.assert_frame_equal(found, printed, check_dtype=False, rtol=1e-5)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_table_for_people(mmalign, house):
    lines = mmalign("recommend", house.art, "--users", "u1", "-k", 2).out.splitlines()
    assert lines[0].split() == ["user_id", "item_id", "rank", "score"]
    assert len(lines) == 3


@pytest.mark.parametrize("place", ["before", "after"])
def test_overrides_stand_before_or_after_the_artefact(mmalign, house, shop, place):
    overrides = ["--data.path", shop, "--evaluation.ks=[3]"]
    arguments = [*overrides, house.art] if place == "before" else [house.art, *overrides]
    pd.read_csv(shop / "interactions.csv")[:0].to_csv(shop / "interactions.csv", index=False)
    shown = mmalign("recommend", *arguments, "--split", "test")
    assert shown.code == 1  # the copy was read, and it is empty
    assert "is empty" in shown.error


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-k", "0"], 2, "k must be at least 1"),
        (["-k", "many"], 2, "argument -k"),
        (["--split", "train"], 2, "invalid choice"),
        (["--candidates", "hot"], 2, "invalid choice"),
        (["--exclude-seen", "tset"], 2, "exclude_seen cannot name 'tset'"),
        (["--split", "test", "--exclude-seen", "test"], 2, "exclude_seen cannot name 'test'"),
        (["--split", "test", "--filter", "price < 9"], 2, "--filter does not go with --split"),
        (["--split", "test", "--history", "i1"], 2, "--history does not go with --split"),
        (["--users", "u1", "--history", "i1"], 2, "not allowed with argument"),
        (["--history", "i99"], 1, "unknown item ids"),
        (["--filter", "prise < 9"], 1, "did you mean 'price'"),
        (["--output", "recs.xlsx"], 2, "cannot tell the format"),
        (["--users", "nowhere.csv"], 1, "no such file of ids"),
        (["--data.pth", "x"], 2, "did you mean 'path'"),
        (["--data.path", "/nosuch"], 2, "--data does nothing here, the artefact is fitted"),
        (["--split", "test", "--seed", "3"], 2, "--seed does nothing here"),
        (["--users", "all", "u1"], 2, "--users all does not go with ids"),
        (["--users", ""], 2, "an id is empty"),
        (["--history", "i1", "--exclude-seen", "none"], 2, "--exclude-seen does not go with --his"),
        (["--filter", "genre > 'tea'"], 2, "a text that is no date"),
        (["--splitt", "test"], 2, "unknown option '--splitt': did you mean '--split'"),
        (["stray", "words"], 2, "unexpected argument"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(mmalign, house, arguments, code, message):
    shown = mmalign("recommend", house.art, *arguments)
    assert shown.code == code
    assert message in shown.error
    assert shown.out == ""


def test_several_filters_must_all_hold(mmalign, house, items):
    both = ["--filter", "price < 30", "--filter", "genre == 'g1'"]
    shown = mmalign("recommend", house.art, "--history", "i39", *both, "-k", 99, "--json")
    found = {row["item_id"] for row in json.loads(shown.out)}
    assert found == set(items["item_id"][(items["price"] < 30) & (items["genre"] == "g1")])


@pytest.mark.parametrize(("option", "printed"), [([], ""), (["--json"], "[]\n")])
def test_no_candidates_are_said(mmalign, house, option, printed):
    shown = mmalign("recommend", house.art, "--users", "u1", "--filter", "price < 0", *option)
    assert (shown.code, shown.out) == (0, printed)
    assert shown.err == "note: no candidates\n"


def test_rows_that_were_trained_on_are_not_ranked_for(mmalign, house, shop):
    log = pd.read_csv(shop / "interactions.csv")
    log.drop(columns="split").to_csv(shop / "interactions.csv", index=False)
    shown = mmalign("recommend", house.art, "--split", "test", "--data.path", shop)
    assert shown.code == 1
    assert "pairs in test were trained on" in shown.error


def test_lists_of_a_split_warn_of_whom_and_of_what_nothing_is_known(mmalign, tmp_path):
    items = pd.DataFrame(
        {"item_id": [f"i{n}" for n in range(14)], "genre": [*"ab" * 6, None, None]}
    )
    rows = [(f"u{u}", f"i{(u + n) % 8}", "train") for u in range(12) for n in range(4)]
    rows += [(f"u{u}", "i9", "valid") for u in range(6)]
    rows += [(f"u{u}", f"i{10 + u % 4}", "test") for u in range(12)]
    rows.append(("stranger", "i12", "test"))
    items.to_csv(tmp_path / "items.csv", index=False)
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "split"])
    log.to_csv(tmp_path / "interactions.csv", index=False)
    config = tmp_path / "config.yaml"
    config.write_text(
        json.dumps(
            {
                "data": {"path": str(tmp_path), "attributes": {"genre": {"kind": "category"}}},
                "model": {"name": "kernel_ridge"},
            }
        )
    )
    art = tmp_path / "art"
    assert mmalign("fit", "--config", config, "--output", art).code == 0
    shown = mmalign("recommend", art, "--split", "test", "--candidates", "cold")
    assert "1 users have no history that says anything, first 'stranger'" in shown.err
    assert "2 items have neither a train row nor content that the model reads" in shown.err
    assert "warning" not in mmalign("recommend", art, "--split", "valid", "-k", 1).err
