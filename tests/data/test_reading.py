from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmalign.data import AttributeConfig, Catalog, DataConfig
from mmalign.errors import DataError

ITEMS = pd.DataFrame(
    {"item_id": ["007", "茶 壺", "NA"], "title": ["Null", "12", None], "price": [1.5, None, 3]}
)
LOG = pd.DataFrame(
    {
        "user_id": ["01", "1", "01"],
        "item_id": ["007", "007", "NA"],
        "split": ["train", "train", "test"],
    }
)
WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "parquet": lambda frame, path: frame.to_parquet(path),
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(
        path, orient="records", lines=True, force_ascii=False
    ),
}


def write(folder: Path, ending: str = "parquet", **tables: pd.DataFrame) -> Path:
    for name, frame in tables.items():
        WRITERS[ending](frame, folder / f"{name}.{ending}")
    return folder


def read(folder: Path, **config: Any) -> Catalog:
    return Catalog.read(DataConfig(path=str(folder), **config))


@pytest.mark.parametrize("ending", list(WRITERS))
def test_each_kind_of_file_gives_the_same_catalogue(tmp_path: Path, ending: str) -> None:
    users = pd.DataFrame({"user_id": ["01", "2"], "age": [3, 4]})
    write(tmp_path, ending, items=ITEMS, interactions=LOG, people=users)
    catalog = read(tmp_path, text=("title",), users="people")
    assert catalog.item_ids.tolist() == ["007", "茶 壺", "NA"]
    assert catalog.user_ids.tolist() == ["01", "1", "2"]
    assert catalog.texts() == ["Null", "12", None]
    assert catalog.items["price"].tolist()[::2] == [1.5, 3]
    assert catalog.matrix().toarray().tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert catalog.root == tmp_path


@pytest.mark.parametrize("name", ["bench", "bench.csv", "logs/bench", "logs/bench.csv"])
def test_a_file_is_named_with_or_without_ending(tmp_path: Path, name: str) -> None:
    write(tmp_path, items=ITEMS)
    (tmp_path / "logs").mkdir()
    for folder in (tmp_path, tmp_path / "logs"):
        write(folder, "csv", bench=LOG)
    assert len(read(tmp_path, interactions=name).interactions) == 3


def test_an_absent_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, items=ITEMS, benchmark=LOG)
    with pytest.raises(
        DataError, match=r"no file benchmrk for data.interactions: did you mean 'benchm"
    ):
        read(tmp_path, interactions="benchmrk")
    with pytest.raises(DataError, match=r"data\.interactions: null to go without"):
        read(tmp_path)
    assert read(tmp_path, interactions=None).num_users == 0
    with pytest.raises(DataError, match=r"no file itms for data\.items"):
        read(tmp_path, items="itms")


def test_items_may_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, interactions=LOG)
    assert read(tmp_path, items=None).item_ids.tolist() == ["007", "NA"]


def test_a_name_that_fits_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "csv", items=ITEMS, interactions=LOG)
    write(tmp_path, "parquet", items=ITEMS)
    with pytest.raises(DataError, match=r"got \['items.parquet', 'items.csv'\]"):
        read(tmp_path)
    assert read(tmp_path, items="items.csv").num_items == 3


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no file items for data\.items: add one of"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("interactions.csv", b"", "is empty"),
        ("interactions.jsonl", b"", "is empty"),
        ("interactions.jsonl", b"\n\n", "is empty"),
        ("interactions.parquet", b"", "is empty"),
        ("interactions.csv", b"user_id,item_id\n", "is empty"),
        ("interactions.csv", b'user_id,item_id\n"a,b\n', "cannot read"),
        ("interactions.csv", b"user_id,item_id\n\xff\xfe,b\n", "cannot read"),
        ("interactions.parquet", b"PAR1 and no more", "cannot read"),
        ("interactions.jsonl", b'{"user_id": "a"}\n{"user_id"', "line 2 of"),
        ("interactions.jsonl", b"[1]\n", "is no object"),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    write(tmp_path, items=ITEMS)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert message in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_csv_keeps_codes_and_reads_numbers(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        "\ufeffitem_id,zip,price,stock\n1,00501,nan,1\n2,,inf,NA\n", encoding="utf-8"
    )
    attributes = {"zip": AttributeConfig("category"), "price": AttributeConfig("number")}
    catalog = read(tmp_path, interactions=None, attributes=attributes)
    assert catalog.attribute_values("zip").tolist() == ["00501", None]
    assert catalog.attribute_values("price").isna().all()
    assert catalog.items["stock"].iloc[0] == 1
    assert any("price is no finite number in 1 items" in notice for notice in catalog.notices)


def test_jsonl_may_hold_lists_numbers_as_ids_and_rows_of_different_keys(tmp_path: Path) -> None:
    rows = [{"item_id": 9007199254740993, "tags": ["a", "b"]}, {"item_id": "x"}]
    (tmp_path / "items.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    attributes = {"tags": AttributeConfig("multi")}
    catalog = read(tmp_path, interactions=None, attributes=attributes)
    assert catalog.item_ids.tolist() == ["9007199254740993", "x"]
    assert catalog.attribute_values("tags").tolist() == ["a|b", None]


def test_imagefolder_with_metadata(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "metadata.csv").write_text(
        "file_name,item_id,title\na.png,01,Tea\nred/b.png,2,Cup\n"
    )
    (tmp_path / "red" / "metadata.csv").write_text("file_name,item_id,title\nc.png,3,Jug\n")
    catalog = read(tmp_path, image="image", text=("title",))
    assert catalog.item_ids.tolist() == ["01", "2", "3"]
    assert catalog.images() == [tmp_path / "a.png", tmp_path / "red/b.png", tmp_path / "red/c.png"]
    assert catalog.texts() == ["Tea", "Cup", "Jug"]
    assert len(catalog.interactions) == 0


def test_imagefolder_of_bare_pictures_with_a_log(tmp_path: Path) -> None:
    for path in ("x.JPG", "red/b.png", "red/notes.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    log = pd.DataFrame({"user_id": ["u"], "item_id": ["red/b.png"], "split": ["train"]})
    write(tmp_path, "jsonl", interactions=log)
    catalog = read(tmp_path, image="image", attributes={"label": AttributeConfig("category")})
    assert catalog.item_ids.tolist() == ["red/b.png", "x.JPG"]
    assert catalog.attribute_values("label").tolist() == ["red", None]
    assert catalog.warm.tolist() == [True, False]
    with pytest.raises(DataError, match=r"no file log for data\.interactions"):
        read(tmp_path, interactions="log")


def test_imagefolder_metadata_must_name_files(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"filename": "a.png"}\n')
    with pytest.raises(DataError, match="no column file_name: did you mean 'filename'"):
        read(tmp_path, image="image")


def test_pictures_beside_a_misspelt_items_file_are_no_imagefolder(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    write(tmp_path, items=ITEMS, interactions=LOG)
    with pytest.raises(DataError, match=r"no file itmes for .* did you mean 'items'"):
        read(tmp_path, items="itmes")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_another_separator_is_named(tmp_path: Path, separator: str) -> None:
    write(tmp_path, "csv", interactions=LOG)
    ITEMS.to_csv(tmp_path / "items.csv", index=False, sep=separator)
    with pytest.raises(DataError, match="separate them by commas") as caught:
        read(tmp_path)
    assert f"are separated by {separator!r}" in str(caught.value)


@pytest.mark.parametrize("table", ["items", "interactions"])
def test_a_comma_at_the_end_of_every_row_does_not_shift_the_columns(
    tmp_path: Path, table: str
) -> None:
    write(tmp_path, "csv", interactions=LOG)
    ITEMS.to_csv(tmp_path / "items.csv", index=False)
    path = tmp_path / f"{table}.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{row}," for row in rows)]))
    with pytest.raises(DataError, match=r"more cells than its header has names.*take the commas"):
        read(tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "csv", interactions=LOG)
    (tmp_path / "items.csv").write_text("item_id,title,title\n007,a,b\n")
    with pytest.raises(DataError, match=r"two columns of the same name \(got 'title'\)"):
        read(tmp_path)


def test_columns_in_upper_case_are_named(tmp_path: Path) -> None:
    write(tmp_path, "csv", items=ITEMS.rename(columns={"item_id": "ITEM_ID"}), interactions=LOG)
    with pytest.raises(DataError, match="no column 'item_id': did you mean 'ITEM_ID'"):
        read(tmp_path)


def test_a_folder_of_data_sets_is_no_folder_of_pictures(tmp_path: Path) -> None:
    for place in ("shop/data/metadata.csv", "shop/data/images/cats/1.png"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("file_name\n1.png\n")
    with pytest.raises(DataError, match="has no file items"):
        read(tmp_path, interactions=None)


def test_pictures_of_splits_and_classes_are_found(tmp_path: Path) -> None:
    for place in ("train/cat/1.png", "test/dog/2.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(b"x")
    catalog = read(tmp_path, interactions=None)
    assert catalog.item_ids.tolist() == ["test/dog/2.png", "train/cat/1.png"]
    assert catalog.items["label"].tolist() == ["dog", "cat"]
