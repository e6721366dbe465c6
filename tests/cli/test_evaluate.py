from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from mmalign.recommender import Recommender


def by_hand(frame, log, split, k):
    """Recall and NDCG of written lists, by plain loops over sets."""
    candidates = set(frame["item_id"])
    rows = log[(log["split"] == split) & log["item_id"].isin(candidates)]
    recalls, ndcgs = [], []
    for user, truth in rows.groupby("user_id")["item_id"].agg(set).items():
        mine = frame[frame["user_id"] == user].sort_values("rank")["item_id"].tolist()[:k]
        gains = [1 / np.log2(place + 2) for place, item in enumerate(mine) if item in truth]
        ideal = sum(1 / np.log2(place + 2) for place in range(min(k, len(truth))))
        recalls.append(len(set(mine) & truth) / len(truth))
        ndcgs.append(sum(gains) / ideal)
    return np.mean(recalls), np.mean(ndcgs)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_table_is_that_of_the_lists_that_recommend_writes(mmalign, house, log, tmp_path, split):
    shown = mmalign("evaluate", house.art, "--split", split, "--json")
    assert shown.code == 0, shown.err
    measured = json.loads(shown.out)["slices"]
    for name in ("warm", "cold", "all"):
        file = tmp_path / f"{name}.parquet"
        arguments = ["--split", split, "--candidates", name, "-k", 99, "--output", file]
        assert mmalign("recommend", house.art, *arguments).code == 0
        frame = pd.read_parquet(file)
        for k in (10, 20):
            recall, ndcg = by_hand(frame, log, split, k)
            assert measured[name]["metrics"][f"recall@{k}"] == pytest.approx(recall)
            assert measured[name]["metrics"][f"ndcg@{k}"] == pytest.approx(ndcg)


def test_a_table_for_people(mmalign, house):
    shown = mmalign("evaluate", house.art)
    assert shown.code == 0
    for word in ("warm", "cold", "all", "NDCG@20", "Recall@10", "Coverage", "Gini", "Novelty"):
        assert word in shown.out
    assert "test split, seen in train, valid excluded" in shown.out


def test_cut_offs_and_exclusions_can_be_set(mmalign, house):
    arguments = ["--evaluation.ks", "[3]", "--exclude-seen", "train", "--json"]
    found = json.loads(mmalign("evaluate", house.art, *arguments).out)
    assert (found["ks"], found["excluded"]) == ([3], ["train"])
    arguments = ["--evaluation.exclude_seen", "[]", "--json"]
    assert json.loads(mmalign("evaluate", house.art, *arguments).out)["excluded"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--split", "tset"], 2, "invalid choice"),
        (["--exclude-seen", "all"], 2, "exclude_seen cannot name 'all'"),
        (["--data.path", "nowhere"], 1, "data.path is no folder (got 'nowhere')"),
        (["--model.name", "ridge"], 2, "--model does nothing here, the artefact is fitted"),
        (["--model.ease.l2", "7"], 2, "--model does nothing here"),
        (["--cache", "elsewhere"], 2, "--cache does nothing here"),
        (["--data.path", ""], 2, "data.path is empty"),
        (["--data.interactions", "clicks"], 1, "no file clicks for data.interactions"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(mmalign, house, arguments, code, message):
    shown = mmalign("evaluate", house.art, *arguments)
    assert shown.code == code
    assert message in shown.error


def test_an_item_that_the_artefact_does_not_know(mmalign, house, shop):
    items = pd.read_csv(shop / "items.csv")
    log = pd.read_csv(shop / "interactions.csv")
    stranger = items.head(1).assign(item_id="stranger")
    row = pd.DataFrame({"user_id": ["u1"], "item_id": ["stranger"], "split": ["test"]})
    pd.concat([items, stranger]).to_csv(shop / "items.csv", index=False)
    pd.concat([log, row]).to_csv(shop / "interactions.csv", index=False)
    shown = mmalign("evaluate", house.art, "--data.path", shop)
    assert shown.code == 1
    assert "1 candidates are not in the artefact (got 'stranger')" in shown.error


@pytest.fixture
def undivided(mmalign, house, shop, tmp_path):
    """Kernel ridge on a shop whose log has times and no split column, and that shop."""
    log = pd.read_csv(shop / "interactions.csv").drop(columns="split")
    log = log.drop_duplicates().assign(timestamp=range(len(log.drop_duplicates())))
    log.to_csv(shop / "interactions.csv", index=False)
    art = tmp_path / "art"
    arguments = ["--config", house.attributes, "--data.path", shop, "--output", art]
    assert mmalign("fit", *arguments).code == 0
    assert mmalign("evaluate", art).code == 0
    return art, shop


def test_rows_that_a_new_division_took_from_train_are_not_measured(mmalign, undivided):
    art, shop = undivided
    shown = mmalign("evaluate", art, "--data.split.kind", "leave_last")
    assert shown.code == 1
    assert "30 pairs in test were trained on (got 'user u" in shown.error
    assert "give the log a split column, or fit anew" in shown.error
    log = pd.read_csv(shop / "interactions.csv")
    log.sample(frac=0.5, random_state=0).to_csv(shop / "interactions.csv", index=False)
    for split in ("valid", "test"):
        assert "were trained on" in mmalign("evaluate", art, "--split", split).error


def test_a_pair_that_is_in_train_as_well_is_no_leak(mmalign, house, log):
    both = log[log.duplicated(["user_id", "item_id"], keep=False)]
    assert {"train", "test"} <= set(both["split"])
    assert mmalign("evaluate", house.art).code == 0


def test_a_config_file_of_fit_may_be_named_again(mmalign, house, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text("model: {name: ease}\nevaluation: {ks: [3]}\n")
    found = json.loads(mmalign("evaluate", house.art, "--config", file, "--json").out)
    assert found["ks"] == [3]
    file.write_text("model: {nme: ease}\n")
    assert "unknown key 'model.nme'" in mmalign("evaluate", house.art, "--config", file).error


def test_a_model_that_knows_no_cold_items_has_no_cold_figures(mmalign, house, tmp_path):
    art = tmp_path / "ease"
    fitted = mmalign("fit", "--config", house.attributes, "--model.name", "ease", "--output", art)
    assert "valid, cold: NDCG@20 -" in fitted.err
    card = (art / "README.md").read_text()
    assert "| valid, cold | - | - | - | - |" in card
    assert json.loads((art / "config.json").read_text())["measured"]["valid, cold"] == {
        name: None for name in ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
    }
    assert np.isnan(Recommender.from_pretrained(art).measured["valid, cold"]["ndcg@20"])
    found = json.loads(mmalign("evaluate", art, "--json").out)["slices"]
    assert found["cold"]["counts"]["users"] > 0
    assert set(found["cold"]["metrics"].values()) == {None}
    assert all(value is not None for value in found["warm"]["metrics"].values())
    shown = mmalign("evaluate", art).out
    row = next(line for line in shown.splitlines() if "NDCG@20" in line)
    assert row.split("│")[3].strip() == "-"
