from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from mmalign.data import AttributeConfig, Catalog, DataConfig, SplitConfig
from mmalign.data.attributes import attribute_values
from mmalign.errors import ConfigError, DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


def items(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"item_id": ["a", "b", "c"], **columns})


def log(rows: list[tuple[object, ...]], *more: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", *more])


@pytest.fixture
def catalog() -> Catalog:
    rows = [
        ("v", "a", "train", 2.0),
        ("v", "a", "train", 0.5),
        ("v", "b", "test", 1.0),
        ("u", "b", "valid", 4.0),
        ("u", "a", "valid", 1.0),
    ]
    users = pd.DataFrame({"user_id": ["w", "u"], "age": [1, 2]})
    return Catalog.from_pandas(items(), log(rows, "split", "weight"), users)


def test_users_are_sorted_and_those_of_the_users_table_are_among_them(catalog: Catalog) -> None:
    assert catalog.user_ids.tolist() == ["u", "v", "w"]
    assert (catalog.num_users, catalog.num_items) == (3, 3)
    assert catalog.users is not None
    assert catalog.users["age"].tolist() == [1, 2]


def test_matrix_sums_repeated_rows_of_the_chosen_splits_alone(catalog: Catalog) -> None:
    assert catalog.matrix().toarray().tolist() == [[0, 0, 0], [2.5, 0, 0], [0, 0, 0]]
    assert catalog.matrix("valid", "test").toarray().tolist() == [[1, 4, 0], [0, 1, 0], [0, 0, 0]]
    assert catalog.matrix().dtype == np.float32
    with pytest.raises(DataError, match="did you mean 'train'"):
        catalog.matrix("trian")


def test_times_are_the_last_of_each_train_pair() -> None:
    log = pd.DataFrame(
        {
            "user_id": ["ann", "ann", "ann", "bob", "bob", "bob"],
            "item_id": ["tea", "tea", "jam", "tea", "jam", "egg"],
            "timestamp": [50.0, 20.0, 0.0, 7.0, np.nan, 9.0],
            "split": ["train", "train", "train", "test", "train", "train"],
        }
    )
    catalog = Catalog.from_pandas(None, log)
    found = catalog.times()
    assert found is not None
    pairs = {(catalog.user_ids[u], catalog.item_ids[i]): t for (u, i), t in stored(found).items()}
    assert pairs == {("ann", "tea"): 50, ("ann", "jam"): 0, ("bob", "egg"): 9}
    assert Catalog.from_pandas(None, log.drop(columns="timestamp")).times() is None


def stored(matrix: sp.csr_matrix) -> dict[tuple[int, int], float]:
    """Every entry that is stored, zeros too."""
    entries = matrix.tocoo()
    return {
        (int(row), int(column)): float(value)
        for row, column, value in zip(entries.row, entries.col, entries.data, strict=True)
    }


def test_an_item_is_warm_by_a_train_row_only(catalog: Catalog) -> None:
    assert catalog.warm.tolist() == [True, False, False]


def test_rows_of_ids(catalog: Catalog) -> None:
    assert catalog.item_rows(["c", "a", "c"]).tolist() == [2, 0, 2]
    assert catalog.user_rows(["w"]).tolist() == [2]
    assert catalog.item_rows([]).tolist() == []


def test_an_unknown_id_is_named_with_the_nearest() -> None:
    named = Catalog.from_pandas(pd.DataFrame({"item_id": ["teapot", "cup"]}), None)
    with pytest.raises(
        DataError, match=r"1 unknown item ids \(got 'teapt'\): did you mean 'teapot'"
    ):
        named.item_rows(["cup", "teapt"])


def test_numbers_find_ids_that_were_numbers() -> None:
    numbered = Catalog.from_pandas(pd.DataFrame({"item_id": [10, 2]}), None)
    assert numbered.item_rows([2, "10"]).tolist() == [1, 0]


def test_row_numbers_survive_a_reordering_of_the_files() -> None:
    rows = [("u", "a", "train"), ("v", "c", "train"), ("v", "b", "test")]
    one = Catalog.from_pandas(items(), log(rows, "split"))
    other = Catalog.from_pandas(items(), log(rows[::-1], "split"))
    assert one.matrix().toarray().tolist() == other.matrix().toarray().tolist()


def test_texts_join_columns_and_values_and_leave_out_what_is_missing() -> None:
    frame = items(
        title=["Tea", None, "  "], tags=["x|y", "z", None], more=[["p", "q"], None, np.array([])]
    )
    catalog = Catalog.from_pandas(frame, None, config=DataConfig(text=("title", "tags", "more")))
    assert catalog.texts() == ["Tea. x, y. p, q", "z", None]
    assert Catalog.from_pandas(frame, None).texts() == [None, None, None]


def test_pictures_are_paths_below_the_root_or_bytes_or_nothing() -> None:
    frame = items(photo=["p/1.jpg", b"\x89PNG", np.nan])
    config = DataConfig(image="photo")
    assert Catalog.from_pandas(frame, None, config=config, root="shop").images() == [
        Path("shop/p/1.jpg"),
        b"\x89PNG",
        None,
    ]
    structs = items(
        photo=[{"bytes": b"x", "path": "1.jpg"}, {"bytes": None, "path": "1.jpg"}, None]
    )
    assert Catalog.from_pandas(structs, None, config=config).images() == [
        b"x",
        Path("1.jpg"),
        None,
    ]
    assert Catalog.from_pandas(frame, None).images() == [None] * 3
    with pytest.raises(DataError, match=r"neither a path nor bytes \(got 3\)"):
        Catalog.from_pandas(items(photo=[3, "p", None]), None, config=config)


def test_attribute_values_of_every_kind() -> None:
    frame = items(
        title=["Heat (1995)", "Up", "(12) Angry (1957)"],
        genres=["a|b", ["c", "d"], None],
        price=[1.5, np.nan, np.inf],
        store=[1, 2, 2],
        seen=pd.to_datetime(["2020-01-02", None, "2021-05-06"]),
    )
    attributes = {
        "year": AttributeConfig("number", column="title", pattern=r"\((\d{4})\)"),
        "genres": AttributeConfig("multi"),
        "price": AttributeConfig("number"),
        "store": AttributeConfig("category"),
        "seen": AttributeConfig("date"),
    }
    catalog = Catalog.from_pandas(frame, None, config=DataConfig(attributes=attributes))
    np.testing.assert_array_equal(catalog.attribute_values("year"), [1995, np.nan, 1957])
    np.testing.assert_array_equal(catalog.attribute_values("price"), [1.5, np.nan, np.nan])
    assert catalog.attribute_values("genres").tolist() == ["a|b", "c|d", None]
    assert catalog.attribute_values("store").tolist() == ["1", "2", "2"]
    first, missing, last = catalog.attribute_values("seen")
    assert (first[:10], missing, last[:10]) == ("2020-01-02", None, "2021-05-06")
    assert catalog.notices == (
        "attribute year is no finite number in 1 items, first item 'b' with 'Up': taken as missing",
        "attribute price is no finite number in 1 items, first item 'c' with inf: taken as missing",
    )
    with pytest.raises(DataError, match="did you mean 'genres'"):
        catalog.attribute_values("genre")


def test_frames_of_the_caller_stay_as_they_were() -> None:
    frames = (
        pd.DataFrame({"title": ["x", "y"], "item_id": [1, 2], "photo": [None, "p"]}, index=[7, 7]),
        pd.DataFrame(
            {"user_id": [1, 1], "item_id": [1, 9], "rating": [0, 3], "timestamp": ["2020"] * 2}
        ),
        pd.DataFrame({"age": [3], "user_id": [1]}),
    )
    before = [frame.copy(deep=True) for frame in frames]
    config = DataConfig(image="photo", positive="rating >= 0")
    Catalog.from_pandas(*frames, config=config)
    for frame, copy in zip(frames, before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)


def test_items_come_from_the_log_when_there_is_no_items_table() -> None:
    catalog = Catalog.from_pandas(None, log([("u", "b", "train"), ("u", "a", "test")], "split"))
    assert catalog.item_ids.tolist() == ["a", "b"]
    with pytest.raises(DataError, match="neither items nor interactions"):
        Catalog.from_pandas(None, None)


def test_a_catalogue_without_a_log_works() -> None:
    catalog = Catalog.from_pandas(items(), None)
    assert catalog.matrix().shape == (0, 3)
    assert catalog.warm.tolist() == [False] * 3
    assert catalog.notices == ()


def test_a_log_without_split_column_is_split_as_configured() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3)]
    config = DataConfig(split=SplitConfig("leave_last"))
    catalog = Catalog.from_pandas(items(), log(rows, "timestamp"), config=config)
    assert catalog.interactions["split"].tolist() == ["train", "valid", "test"]
    assert catalog.notices == ("the log has no split column: split by leave_last",)


@pytest.mark.slow
def test_a_million_interactions_are_ready_in_seconds() -> None:
    generator = np.random.default_rng(0)
    size = 1_000_000
    frame = pd.DataFrame(
        {
            "user_id": generator.integers(0, 100_000, size).astype(str),
            "item_id": generator.integers(0, 50_000, size).astype(str),
        }
    )
    start = time.process_time()
    catalog = Catalog.from_pandas(pd.DataFrame({"item_id": np.arange(50_000)}), frame)
    assert catalog.matrix("train", "valid", "test").sum() == size
    assert time.process_time() - start < 15  # about 2.5 s; the slack is for a busy machine


def test_no_path_or_no_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is not set"):
        Catalog.read(DataConfig())
    with pytest.raises(DataError, match=r"data\.path is no folder"):
        Catalog.read(DataConfig(path=str(tmp_path / "absent")))


@pytest.mark.data
@needs_data
def test_the_films() -> None:
    config = DataConfig(
        path=str(SHARED / "movies"),
        interactions="benchmark.parquet",
        text=("title", "genres", "overview"),
        image="image",
        attributes={
            "year": AttributeConfig("number", column="title", pattern=r"\((\d{4})\)"),
            "genres": AttributeConfig("multi"),
        },
    )
    catalog = Catalog.read(config)
    assert (catalog.num_users, catalog.num_items) == (602, 3650)
    sizes = [catalog.matrix(split).nnz for split in ("train", "valid", "test")]
    assert sizes == [34_261, 9_018, 10_092]
    assert catalog.warm.sum() == 1930
    assert str(catalog.texts()[0]).startswith("Toy Story (1995). Adventure, Animation, ")
    assert catalog.attribute_values("year")[0] == 1995
    assert catalog.notices == ()


@pytest.mark.data
@needs_data
def test_the_films_with_raw_ratings() -> None:
    config = DataConfig(path=str(SHARED / "movies"), positive="rating >= 3.5")
    catalog = Catalog.read(config)
    assert (catalog.interactions["rating"] >= 3.5).all()
    assert (catalog.interactions["weight"] == 1).all()


@pytest.mark.data
@needs_data
def test_amazon_has_no_items_table() -> None:
    catalog = Catalog.read(DataConfig(path=str(SHARED / "amazon" / "baby"), items=None))
    assert (catalog.num_users, catalog.num_items) == (19_445, 7_050)
    assert catalog.matrix().nnz == 118_551


@pytest.mark.data
@needs_data
def test_fashion_has_no_log() -> None:
    config = DataConfig(path=str(SHARED / "fashion"), interactions=None, image="image")
    catalog = Catalog.read(config)
    assert catalog.num_items == 10_000
    assert all(isinstance(image, Path) and image.is_file() for image in catalog.images()[:20])


def test_a_text_column_alone_is_read_without_what_an_attribute_pulls_out():
    items = pd.DataFrame(
        {"item_id": ["a", "b"], "title": ["Heat (1995)", None], "plot": ["x", "y"]}
    )
    year = AttributeConfig("number", column="title", pattern=r"\((\d{4})\)")
    config = DataConfig(text=("title", "plot"), attributes={"year": year})
    catalog = Catalog.from_pandas(items, None, config=config)
    assert config.text_parts() == ("title", "plot")
    assert catalog.texts_of("title") == ["Heat", None]
    assert catalog.texts() == ["Heat (1995). x", "y"]
    with pytest.raises(DataError, match="no such text column"):
        catalog.texts_of("titel")
    assert DataConfig(text=("title",)).text_parts() == ()


def test_cells_are_rewritten_before_they_are_read():
    items = pd.DataFrame(
        {"item_id": ["a", "b", "c"], "title": ["Heat, The (1995)", None, "Seven (Se7en) (1995)"]}
    )
    year = AttributeConfig("number", column="title", pattern=r"\((\d{4})\)\s*$")
    changes = {r" \([^)]*\)(?= *\()": "", r"^(.*), (The)(?= *\()": r"\2 \1"}
    config = DataConfig(text=("title",), attributes={"year": year}, rewrite={"title": changes})
    catalog = Catalog.from_pandas(items, None, config=config)
    assert catalog.texts() == ["The Heat (1995)", None, "Seven (1995)"]
    assert catalog.texts_of("title") == ["The Heat", None, "Seven"]
    assert catalog.texts_of("title", whole=True) == catalog.texts()
    assert catalog.attribute_values("year").tolist()[::2] == [1995, 1995]
    assert catalog.items["title"].tolist()[0] == "Heat, The (1995)"


def test_lists_are_rewritten_as_one_line():
    items = pd.DataFrame({"item_id": ["a", "b"], "title": [["Heat", "The"], None]})
    config = DataConfig(text=("title",), rewrite={"title": {r"^(.*)\|The$": r"The \1"}})
    catalog = Catalog.from_pandas(items, None, config=config)
    assert catalog.texts() == ["The Heat", None]


@pytest.mark.parametrize(
    ("rewrite", "match"),
    [
        ({"titel": {"a": "b"}}, r"data.text does not \(got 'titel'\): did you mean 'title'"),
        ({"title": {"(": ""}}, r"data.rewrite.title cannot be used"),
        ({"title": {"a{99999999999}": ""}}, r"data.rewrite.title cannot be used"),
        ({"title": {"(a)": r"\2"}}, r"data.rewrite.title cannot be used, invalid group"),
    ],
)
def test_what_cannot_be_rewritten(rewrite, match):
    with pytest.raises(ConfigError, match=match):
        DataConfig(text=("title",), rewrite=rewrite)


@pytest.mark.parametrize(
    ("price", "value"),
    [
        ("$14.11", 14.11),
        ("12,50 EUR", 12.5),
        ("$1,116.50", 1116.5),
        ("1.116,50 €", 1116.5),
        ("1,116", 1116.0),
        ("1,116,000", 1116000.0),
        ("12 500 kr", 12500.0),
        ("-3,5 %", -3.5),
        ("7", 7.0),
        ("free", None),
        (None, None),
    ],
)
def test_a_number_may_be_pulled_out_as_shops_write_it(price, value):
    items = pd.DataFrame({"item_id": ["a"], "price": [price]})
    attribute = AttributeConfig("number", pattern=r"(-?[\d.,\s]+)")
    found = attribute_values(items, "price", attribute)[0]
    assert found == pytest.approx(value) if value is not None else np.isnan(found)
