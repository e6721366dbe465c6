from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmalign.data.config import DataConfig
from mmalign.data.stream import ItemStream
from mmalign.errors import ConfigError, DataError

pytest.importorskip("datasets")


@pytest.fixture
def frame():
    count = 200
    split = np.asarray(["train", "train", "train", "valid", "test"])[np.arange(count) % 5]
    return pd.DataFrame(
        {
            "item_id": range(count),
            "title": [f"title {n}" for n in range(count)],
            "picture": [f"{n}.png" for n in range(count)],
            "split": split,
        }
    )


def stream(folder, frame, ending="parquet", **named):
    if ending == "parquet":
        frame.to_parquet(folder / "items.parquet")
    elif ending == "csv":
        frame.to_csv(folder / "items.csv", index=False)
    else:
        frame.to_json(folder / "items.jsonl", orient="records", lines=True)
    config = DataConfig(path=str(folder), text=("title",), image="picture")
    return ItemStream(config, seed=0, **{"block_size": 32, "buffer_size": 50, **named})


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_train_items_come_once_an_epoch_in_blocks(tmp_path, frame, ending):
    found = list(stream(tmp_path, frame, ending).blocks(0))
    assert [block.num_items for block in found] == [32, 32, 32, 24]
    ids = [str(i) for block in found for i in block.item_ids]
    assert sorted(ids) == sorted(frame.item_id[frame.split == "train"].astype(str))
    assert found[0].texts()[0] == f"title {found[0].item_ids[0]}"
    assert found[0].images()[0] == tmp_path / f"{found[0].item_ids[0]}.png"


def test_the_order_is_told_by_seed_and_epoch(tmp_path, frame):
    items = stream(tmp_path, frame)

    def order(epoch):
        return [i for block in items.blocks(epoch) for i in block.item_ids]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_processes_share_the_items_out(tmp_path, frame):
    items = stream(tmp_path, frame)
    shares = [[i for b in items.blocks(3, process, 2) for i in b.item_ids] for process in (0, 1)]
    assert not set(shares[0]) & set(shares[1])
    assert sum(map(len, shares)) == items.num_train == 120


def test_what_is_measured_is_held_out(tmp_path, frame):
    held = stream(tmp_path, frame).held_out(most=10)
    assert held.items.split.value_counts().to_dict() == {"valid": 10, "test": 10}


def test_without_a_split_a_tenth_each_is_held_out_by_the_id(tmp_path, frame):
    items = stream(tmp_path, frame.drop(columns="split"))
    held = items.held_out()
    trained = {i for block in items.blocks(0) for i in block.item_ids}
    assert len(trained) == items.num_train
    assert not trained & set(held.item_ids)
    assert len(trained) + held.num_items == 200
    assert 10 < (held.items.split == "valid").sum() < 30


def test_pictures_in_the_table_stay_bytes(tmp_path, frame):
    frame["picture"] = [bytes([n]) for n in range(200)]
    assert isinstance(next(stream(tmp_path, frame).blocks(0)).images()[0], bytes)


def test_a_missing_column_or_file_is_named(tmp_path, frame):
    frame.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(ConfigError, match="did you mean 'picture'"):
        ItemStream(DataConfig(path=str(tmp_path), image="pictures"), seed=0)
    with pytest.raises(DataError, match="no file of items"):
        ItemStream(DataConfig(path=str(tmp_path), items="goods"), seed=0)
    (tmp_path / "broken.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="broken"):
        ItemStream(DataConfig(path=str(tmp_path), items="broken"), seed=0)
