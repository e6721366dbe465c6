from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.data.held_out import split_items
from mmalign.data.stream import READ_SIZE, ItemStream
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


def test_a_digest_tells_items_and_splits_from_others(tmp_path, frame):
    changed = frame.assign(split=frame.split.where(frame.index != 3, "test"))
    assert changed.split[3] != frame.split[3]
    other = frame.assign(item_id=[*frame.item_id[:-1].astype(str), "another"])
    same = frame.assign(picture="else")
    found = [stream(tmp_path, each).digest for each in (frame, same, changed, other)]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_comma_at_the_end_of_every_row_is_told(tmp_path, frame):
    stream(tmp_path, frame, "csv")
    header, *rows = (tmp_path / "items.csv").read_text().splitlines()
    (tmp_path / "items.csv").write_text("\n".join([header, *(f"{row}," for row in rows)]))
    with pytest.raises(DataError, match="more cells than its header has names"):
        ItemStream(DataConfig(path=str(tmp_path), text=("title",)), seed=0)


def test_processes_share_the_items_out(tmp_path, frame):
    items = stream(tmp_path, frame)
    shares = [[i for b in items.blocks(3, process, 2) for i in b.item_ids] for process in (0, 1)]
    assert not set(shares[0]) & set(shares[1])
    assert sum(map(len, shares)) == items.num_train == 120


def test_what_is_measured_is_held_out(tmp_path, frame):
    held = stream(tmp_path, frame).held_out(most=10)
    assert held.items.split.value_counts().to_dict() == {"valid": 10, "test": 10}


def test_where_nothing_is_held_out_nothing_is_measured(tmp_path, frame):
    held = stream(tmp_path, frame.assign(split="train")).held_out()
    assert [len(rows) for rows in split_items(held)] == [1, 0, 0]
    frame = frame.drop(columns="split")
    log = pd.DataFrame({"user_id": "u", "item_id": frame.item_id[3:9], "split": "train"})
    log.to_parquet(tmp_path / "interactions.parquet")
    held = stream(tmp_path, frame).held_out()
    assert held.item_ids.tolist() == [str(frame.item_id[0])]


def test_without_a_split_a_tenth_each_is_held_out_by_the_id(tmp_path, frame):
    items = stream(tmp_path, frame.drop(columns="split"))
    held = items.held_out()
    trained = {i for block in items.blocks(0) for i in block.item_ids}
    assert len(trained) == items.num_train
    assert not trained & set(held.item_ids)
    assert len(trained) + held.num_items == 200
    assert len(items.digest) == 64
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


def written(folder, raw, ending="csv"):
    (folder / f"items.{ending}").write_text(raw)
    return DataConfig(path=str(folder), text=("title",), interactions=None)


@pytest.mark.parametrize(
    ("ending", "raw"),
    [
        ("csv", "item_id,title,price\n007,Null,1\n008,NA,\n9,1984,2.5\n10,,x\n"),
        ("csv", "item_id,title\n1,1984\n2,007\n3,\n"),
        ("jsonl", '{"item_id": 1, "title": "a"}\n{"item_id": "x", "title": ["b", "c"]}\n'),
        ("jsonl", '{"item_id": 1}\n\n{"item_id": 2, "title": "late"}\n'),
    ],
)
def test_a_stream_reads_what_a_catalogue_reads(tmp_path, ending, raw):
    if ending == "csv":
        raw = "\n".join(
            f"{line},{s}" for line, s in zip(raw.split(), ("split", *["train"] * 9), strict=False)
        )
    else:
        raw = raw.replace("}", ', "split": "train"}')
    config = written(tmp_path, raw, ending)
    whole = Catalog.read(config)
    found = next(ItemStream(config, seed=0).blocks(0))
    streamed = dict(zip(found.item_ids, found.texts(), strict=True))
    assert streamed == dict(zip(whole.item_ids, whole.texts(), strict=True))


@pytest.mark.parametrize(
    ("ending", "raw", "message"),
    [
        ("csv", "item_id,title\n1,a\n2,b,c,d\n3,x\n", r"cannot read.*line 3"),
        ("csv", "item_id,title\n1,a\n,b\n", "1 rows without item_id.*row 1"),
        ("csv", "item_id,title\n1,a\n2,b\n1,c\n", "1 repeated ids.*got '1'.*in row 2"),
        ("csv", "item_id,title,split\n1,a,train\n2,b,Train\n", "unknown split in row 1"),
        ("csv", "item_id,title\n", "empty"),
        ("jsonl", '{"item_id": 1, "title": "a"}\n{"item_id": 2,\n', "line 2 .* is no JSON"),
    ],
)
def test_broken_rows_are_told_before_work_starts(tmp_path, ending, raw, message):
    with pytest.raises(DataError, match=message) as caught:
        ItemStream(written(tmp_path, raw, ending), seed=0)
    assert "\n" not in str(caught.value)


def test_the_order_of_an_epoch_is_not_that_of_another_seed(tmp_path, frame):
    stream(tmp_path, frame)
    config = DataConfig(path=str(tmp_path), text=("title",))
    first, second = (
        [i for block in ItemStream(config, seed=seed).blocks(epoch) for i in block.item_ids]
        for seed, epoch in ((1, 0), (0, 1))
    )
    assert first != second


def test_what_is_in_memory_has_a_bound(tmp_path, monkeypatch):
    count = 8_000
    pd.DataFrame({"item_id": range(count), "title": "t", "split": "train"}).to_parquet(
        tmp_path / "items.parquet"
    )
    items = ItemStream(
        DataConfig(path=str(tmp_path), text=("title",)), seed=0, block_size=32, buffer_size=100
    )
    parquet = sys.modules["datasets.packaged_modules.parquet.parquet"].Parquet
    read, whole = [], parquet._cast_table
    monkeypatch.setattr(
        parquet, "_cast_table", lambda self, table: read.append(len(table)) or whole(self, table)
    )
    served = 0
    for block in items.blocks(0):
        served += block.num_items
        assert sum(read) - served <= 2 * READ_SIZE + 100
    assert served == count


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [120, 121])
def test_processes_get_as_much_as_each_other_in_whole_batches(tmp_path, frame, processes, count):
    frame["split"] = ["train"] * count + ["valid"] * (200 - count)
    items = stream(tmp_path, frame)
    shares = [list(items.blocks(1, p, processes, batch_size=7)) for p in range(processes)]
    ids = [str(i) for blocks in shares for block in blocks for i in block.item_ids]
    assert sorted(ids) == sorted(map(str, range(count)))
    sizes = [[block.num_items for block in blocks] for blocks in shares]
    assert max(map(sum, sizes)) - min(map(sum, sizes)) <= 1
    assert all(size == 28 for part in sizes for size in part[:-1])


def test_a_batch_larger_than_a_block_is_served(tmp_path, frame):
    assert [b.num_items for b in stream(tmp_path, frame).blocks(0, batch_size=100)] == [100, 20]


@pytest.mark.parametrize("name", ["", "items"])
def test_a_saved_dataset_is_streamed(tmp_path, frame, name):
    import datasets

    datasets.Dataset.from_pandas(frame).save_to_disk(tmp_path / name)
    config = DataConfig(path=str(tmp_path), text=("title",), image="picture")
    found = list(ItemStream(config, seed=0, block_size=50).blocks(0))
    assert [block.num_items for block in found] == [50, 50, 20]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_log_says_which_items_are_cold_and_they_are_never_trained_on(tmp_path, frame, ending):
    split = np.where(np.arange(len(frame)) % 7 == 0, "test", "train")
    log = pd.DataFrame({"user_id": "u", "item_id": frame.item_id, "split": split})[:-5]
    log.to_parquet(tmp_path / "interactions.parquet")
    found = stream(tmp_path, frame.drop(columns="split"), ending)
    whole = Catalog.read(DataConfig(path=str(tmp_path), text=("title",)))
    train, valid, test = split_items(whole)
    assert found.num_train == len(train) > 0
    served = [i for block in found.blocks(0) for i in block.item_ids]
    assert sorted(served) == sorted(whole.item_ids[train])
    assert sorted(found.held_out().item_ids) == sorted(whole.item_ids[[*valid, *test]])
