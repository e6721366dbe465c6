"""Given neighbour lists: edges by id, and one clear line for what cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmalign.data.catalog import Catalog, DataConfig
from mmalign.data.neighbours import neighbour_graph
from mmalign.errors import ConfigError, DataError

ITEMS = np.array(["a", "b", "c"], dtype=object)


def lists(pairs: list[tuple[str, str]], **columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["item_id", "neighbour_id"]).assign(**columns)


def test_edges_stand_by_id_whatever_the_order_of_rows() -> None:
    pairs = [("c", "a"), ("a", "b"), ("b", "b"), ("a", "c")]
    expected = [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert neighbour_graph(lists(pairs), ITEMS).toarray().tolist() == expected
    assert neighbour_graph(lists(pairs[::-1]), ITEMS).toarray().tolist() == expected


def test_weights_are_kept_and_repeated_pairs_add_up() -> None:
    graph = neighbour_graph(lists([("a", "b"), ("a", "b"), ("c", "b")], weight=[0.5, 1, 2]), ITEMS)
    assert graph.toarray().tolist() == [[0, 1.5, 0], [0, 0, 0], [0, 2, 0]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lists([("a", "z")]), "unknown item as neighbour_id"),
        (lists([("z", "a")]), "unknown item as item_id"),
        (lists([("a", "b")]).rename(columns={"neighbour_id": "neighbor_id"}), "neighbour_id"),
        (lists([("a", "b")], weight=[-1.0]), "negative or not finite"),
        (lists([("a", "b")], weight=[float("nan")]), "negative or not finite"),
        (lists([("a", "b")], weight=["heavy"]), r"weight.*heavy"),
    ],
)
def test_what_cannot_be_used_is_said(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        neighbour_graph(table, ITEMS)


def test_a_folder_brings_its_lists(tmp_path: Path) -> None:
    log = pd.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "c"], "split": "train"})
    log.to_parquet(tmp_path / "interactions.parquet")
    lists([("a", "b")]).to_csv(tmp_path / "like.csv", index=False)
    config = DataConfig(path=str(tmp_path), items=None, neighbours={"text": "like"})
    graph = Catalog.read(config).neighbours["text"]
    assert graph.toarray().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    missing = DataConfig(path=str(tmp_path), items=None, neighbours={"text": "likes.csv"})
    with pytest.raises(DataError, match=r"data\.neighbours\.text.*like\.csv"):
        Catalog.read(missing)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_ids_that_look_like_numbers_stay_as_they_are_written(tmp_path: Path, ending: str) -> None:
    ids = ["7", "007", "NA", "8"]
    log = pd.DataFrame({"user_id": "u", "item_id": ids, "split": "train"})
    log.to_parquet(tmp_path / "interactions.parquet")
    table = lists([("007", "NA"), ("NA", "007"), ("7", "8")])
    if ending == "csv":
        table.to_csv(tmp_path / "like.csv", index=False)
    elif ending == "jsonl":
        table.to_json(tmp_path / "like.jsonl", orient="records", lines=True)
    else:
        table.to_parquet(tmp_path / "like.parquet")
    config = DataConfig(path=str(tmp_path), items=None, neighbours={"text": "like"})
    catalog = Catalog.read(config)
    item, neighbour = catalog.neighbours["text"].nonzero()
    found = zip(catalog.item_ids[item], catalog.item_ids[neighbour], strict=True)
    assert sorted(found) == [("007", "NA"), ("7", "8"), ("NA", "007")]


def test_a_peer_folder_brings_its_lists_too(tmp_path: Path) -> None:
    (tmp_path / "shop.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n0\t1\t0\n")
    lists([("0", "1")]).to_csv(tmp_path / "like.csv", index=False)
    config = DataConfig(path=str(tmp_path), neighbours={"text": "like"})
    assert Catalog.read(config).neighbours["text"].toarray().tolist() == [[0, 1], [0, 0]]
    with pytest.raises(DataError, match=r"data\.neighbours\.text.*like\.csv"):
        Catalog.read(DataConfig(path=str(tmp_path), neighbours={"text": "likes"}))


def test_a_dataset_on_the_hub_has_no_lists() -> None:
    with pytest.raises(ConfigError, match=r"data\.neighbours.*'ann/films'"):
        Catalog.read(DataConfig(path="ann/films", neighbours={"text": "like"}))
