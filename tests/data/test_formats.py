from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmalign.data import (
    AttributeConfig,
    Catalog,
    DataConfig,
    audit,
    read_mmrec,
    read_recbole,
)
from mmalign.errors import DataError

MMREC = (
    "userID\titemID\trating\ttimestamp\tx_label\n"
    "0\t2\t5.0\t1300000000\t0\n1\t0\t1.0\t1300000001\t0\n0\t0\t4.0\t1300000002\t1\n1\t10\t-1\t9\t2\n"
)
FILES = {
    "ml.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "01\t1193\t5\t978300760\n01\t661\t3\t978302109\n2\t1193\t4\t978300000\n",
    "ml.item": "item_id:token\ttitle:token_seq\tyear:float\tgenre:token_seq\tvec:float_seq\n"
    "1193\tToy Story\t1995\tAnimation Comedy\t0.5 -1e-1\n661\tNull\t\t\t\n",
    "ml.user": "user_id:token\tage:token\n01\t25\n2\t01\n",
}


@pytest.fixture
def mmrec(tmp_path: Path) -> Path:
    (tmp_path / "baby.inter").write_text(MMREC)
    np.save(tmp_path / "text_feat.npy", np.arange(24, dtype=np.float64).reshape(12, 2))
    image = np.ones((3, 4))
    image[1] = 0
    image[2, 0] = np.nan
    np.save(tmp_path / "image_feat.npy", image)
    return tmp_path


@pytest.fixture
def recbole(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_mmrec_log(mmrec: Path) -> None:
    catalog, _ = read_mmrec(mmrec)
    assert catalog.num_items == 12  # the features know items that nobody took
    assert catalog.item_ids[10] == "10"
    assert catalog.matrix().nonzero()[1].tolist() == [2, 0]
    assert catalog.matrix("valid").nonzero()[1].tolist() == [0]
    assert catalog.matrix("test").nonzero()[1].tolist() == [10]
    assert (catalog.interactions["weight"] == 1).all()  # the rating, even -1, is no weight there
    assert catalog.interactions["timestamp"].tolist()[0] == 1_300_000_000


def test_mmrec_features_are_those_of_the_item_of_that_number(mmrec: Path) -> None:
    catalog, features = read_mmrec(mmrec)
    row = catalog.item_rows(["10"])[0]
    assert features["text"].values[row].tolist() == [20, 21]
    assert features["text"].values.dtype == np.float32
    assert features["image"].values.shape == (12, 4)
    assert features["image"].present.tolist() == [True] + [False] * 11
    assert np.isfinite(features["image"].values).all()


def test_a_catalogue_carries_the_features_of_its_mmrec_folder(mmrec: Path) -> None:
    catalog = Catalog.from_folder(mmrec)
    assert catalog.features["text"].values.tolist() == np.arange(24).reshape(12, 2).tolist()
    assert catalog.features["image"].present.tolist() == [True] + [False] * 11
    assert audit(catalog).coverage == {"text": 1.0, "image": 1 / 12}


def test_mmrec_without_features(mmrec: Path) -> None:
    for path in mmrec.glob("*.npy"):
        path.unlink()
    catalog, features = read_mmrec(mmrec)
    assert (catalog.num_items, features) == (11, {})


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (MMREC.replace("x_label", "label"), "no column 'x_label': did you mean 'label'"),
        (MMREC.replace("\t2\n", "\t3\n"), r"unknown x_label \(got 3\)"),
        (MMREC.replace("0\t2\t5.0", "0\tasin\t5.0"), "itemID that is no row number"),
        ("", "cannot read"),
    ],
)
def test_mmrec_broken_logs(mmrec: Path, log: str, message: str) -> None:
    (mmrec / "baby.inter").write_text(log)
    with pytest.raises(DataError, match=message):
        read_mmrec(mmrec)


def test_mmrec_never_unpickles(mmrec: Path) -> None:
    np.save(mmrec / "image_feat.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"image_feat\.npy.*plain array"):
        read_mmrec(mmrec)
    np.save(mmrec / "image_feat.npy", np.zeros(3))
    with pytest.raises(DataError, match="no table of numbers"):
        read_mmrec(mmrec)


def test_recbole(recbole: Path) -> None:
    config = DataConfig(
        text=("title",),
        attributes={
            "genre": AttributeConfig("multi"),
            "year": AttributeConfig("number"),
            "age": AttributeConfig("category", column="item_id"),
        },
    )
    catalog = read_recbole(recbole, config)
    assert catalog.item_ids.tolist() == ["1193", "661"]
    assert catalog.user_ids.tolist() == ["01", "2"]
    assert catalog.texts() == ["Toy Story", "Null"]
    assert catalog.attribute_values("genre").tolist() == ["Animation|Comedy", None]
    np.testing.assert_array_equal(catalog.attribute_values("year"), [1995, np.nan])
    assert catalog.items["vec"][0] == [0.5, -0.1]
    assert catalog.interactions["weight"].tolist() == [5, 3, 4]
    assert catalog.users is not None
    assert catalog.users["age"].tolist() == ["25", "01"]


def test_quotes_in_a_title_swallow_no_rows(recbole: Path) -> None:
    titles = ['"Unbalanced', "Plain", '"Second', '"A ""quoted"" one"', 'The "Burbs"', '"', '""']
    rows = "".join(f"i{n}\t{title}\n" for n, title in enumerate(titles))
    (recbole / "ml.item").write_text(f"item_id:token\ttitle:token_seq\n{rows}")
    (recbole / "ml.inter").write_text("user_id:token\titem_id:token\n01\ti0\n")
    catalog = read_recbole(recbole, DataConfig(text=("title",)))
    assert catalog.item_ids.tolist() == [f"i{n}" for n in range(len(titles))]
    expected = ['"Unbalanced', "Plain", '"Second', 'A "quoted" one', 'The "Burbs"', '"', None]
    assert catalog.texts() == expected


def test_recbole_log_in_parts(recbole: Path) -> None:
    (recbole / "ml.inter").unlink()
    for part, item in (("train", "1193"), ("valid", "661"), ("test", "1193")):
        (recbole / f"ml.{part}.inter").write_text(f"user_id:token\titem_id:token\n{part}\t{item}\n")
    catalog = Catalog.from_folder(recbole)
    assert catalog.interactions["split"].tolist() == ["train", "valid", "test"]
    assert catalog.users is not None


def test_recbole_without_items(recbole: Path) -> None:
    (recbole / "ml.item").unlink()
    assert read_recbole(recbole).item_ids.tolist() == ["1193", "661"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rating:float", "rating:number", r"no known type \(got 'rating:number'\)"),
        ("rating:float", "rating", r"no known type \(got 'rating'\)"),
        ("user_id:token", "uid:token", "no column 'user_id'"),
        ("\t5\t", "\tfive\t", "column 'rating' of .* holds no float"),
    ],
)
def test_recbole_broken_files(recbole: Path, old: str, new: str, message: str) -> None:
    (recbole / "ml.inter").write_text(FILES["ml.inter"].replace(old, new))
    with pytest.raises(DataError, match=message):
        read_recbole(recbole)


def test_one_data_set_to_a_folder(recbole: Path) -> None:
    (recbole / "other.inter").write_text(FILES["ml.inter"])
    with pytest.raises(DataError, match=r"exactly one \.inter file"):
        read_recbole(recbole)


def test_a_data_path_may_be_a_folder_of_either_format(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "baby.inter").write_text(MMREC)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ml.inter").write_text(FILES["ml.inter"])
    assert Catalog.read(DataConfig(path=str(tmp_path / "a"))).num_items == 11
    assert Catalog.read(DataConfig(path=str(tmp_path / "b"))).num_items == 2
