from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from mmalign.data import AttributeConfig, Catalog, DataConfig
from mmalign.errors import DataError, MissingDependencyError


def make_items() -> datasets.Dataset:
    features = datasets.Features(
        {
            "item_id": datasets.Value("int64"),
            "image": datasets.Image(),
            "colour": datasets.ClassLabel(names=["red", "blue"]),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    rows = {
        "item_id": [1, 2],
        "image": [{"bytes": b"\x89PNG", "path": None}, None],
        "colour": [1, 0],
        "tags": [["a", "b"], []],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def make_log(**columns: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"user_id": ["u", "v"], "item_id": [1, 2], **columns})


CONFIG = DataConfig(
    image="image",
    attributes={"colour": AttributeConfig("category"), "tags": AttributeConfig("multi")},
)


def check(catalog: Catalog) -> None:
    assert catalog.item_ids.tolist() == ["1", "2"]
    assert catalog.images() == [b"\x89PNG", None]
    assert catalog.attribute_values("colour").tolist() == ["blue", "red"]
    assert catalog.attribute_values("tags").tolist() == ["a|b", None]
    assert catalog.user_ids.tolist() == ["u", "v"]
    assert catalog.matrix("train", "valid", "test").toarray().tolist() == [[1, 0], [0, 1]]


def read(path: Path | str, **changes: Any) -> Catalog:
    return Catalog.read(
        DataConfig(path=str(path), image=CONFIG.image, attributes=CONFIG.attributes, **changes)
    )


def test_objects_in_memory() -> None:
    users = datasets.Dataset.from_dict({"user_id": ["u"], "age": [3]})
    catalog = Catalog.from_datasets(make_items(), make_log(), users, config=CONFIG)
    check(catalog)
    assert catalog.users is not None
    tables = datasets.DatasetDict({"items": make_items(), "interactions": make_log()})
    check(Catalog.from_datasets(tables, config=CONFIG))


def test_classes_that_are_missing_or_in_lists_are_written_out() -> None:
    label = datasets.ClassLabel(names=["red", "blue"])
    items = datasets.Dataset.from_dict(
        {
            "item_id": [1, 2, 3],
            "image": [None] * 3,
            "colour": [1, None, -1],
            "tags": [[0, 1], [], [-1, 0]],
        },
        features=datasets.Features(
            {
                "item_id": datasets.Value("int64"),
                "image": datasets.Value("string"),
                "colour": label,
                "tags": datasets.Sequence(label),
            }
        ),
    )
    log = datasets.Dataset.from_dict({"user_id": ["u"], "item_id": [1]})
    catalog = Catalog.from_datasets(items, log, config=CONFIG)
    assert catalog.attribute_values("colour").tolist() == ["blue", None, None]
    assert catalog.attribute_values("tags").tolist() == ["red|blue", None, "red"]


def test_a_format_of_the_dataset_changes_nothing() -> None:
    check(Catalog.from_datasets(make_items().with_format("numpy"), make_log(), config=CONFIG))


def test_parts_named_like_splits_become_the_split_column() -> None:
    log = datasets.DatasetDict({"train": make_log(), "validation": make_log(), "test": make_log()})
    catalog = Catalog.from_datasets(make_items(), log, config=CONFIG)
    assert catalog.interactions["split"].tolist() == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    single = Catalog.from_datasets(
        make_items(), datasets.DatasetDict({"train": make_log()}), config=CONFIG
    )
    assert "the log has no split column" in single.notices[0]


def test_a_saved_dictionary_of_tables(tmp_path: Path) -> None:
    tables = datasets.DatasetDict({"items": make_items(), "interactions": make_log()})
    tables.save_to_disk(tmp_path / "shop")
    check(read(tmp_path / "shop"))


def test_a_saved_items_dataset_with_the_log_beside_it(tmp_path: Path) -> None:
    make_items().save_to_disk(tmp_path / "shop")
    assert read(tmp_path / "shop").num_users == 0
    make_log().to_csv(tmp_path / "shop" / "interactions.csv")
    check(read(tmp_path / "shop"))
    with pytest.raises(DataError, match=r"no file clicks for data\.interactions"):
        read(tmp_path / "shop", interactions="clicks")


def test_tables_saved_in_subfolders(tmp_path: Path) -> None:
    make_items().save_to_disk(tmp_path / "items")
    make_log().save_to_disk(tmp_path / "interactions")
    check(read(tmp_path))


def test_a_broken_saved_dataset_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot load the dataset saved in") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let dataset ids stand for local folders, which the library loads by the same builders."""
    loaders = {
        name: getattr(datasets, name) for name in ("load_dataset", "get_dataset_config_names")
    }
    for name, loader in loaders.items():
        monkeypatch.setattr(
            datasets, name, lambda id, *a, _load=loader, **k: _load(str(tmp_path / id), *a, **k)
        )
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.builder.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "owner" / "shop").mkdir(parents=True)
    return tmp_path / "owner" / "shop"


def test_a_hub_dataset_of_files(local_hub: Path) -> None:
    make_items().to_parquet(local_hub / "items.parquet")
    make_log().to_parquet(local_hub / "interactions.parquet")
    make_log().to_csv(local_hub / "clicks.csv")
    check(read("owner/shop"))
    check(read("owner/shop", interactions="clicks"))
    with pytest.raises(DataError, match="dataset owner/shop has no interactions"):
        read("owner/shop", interactions="cliks")


def test_a_hub_dataset_of_configurations(local_hub: Path) -> None:
    make_items().to_parquet(local_hub / "a.parquet")
    for split in ("train", "test"):
        make_log().to_parquet(local_hub / f"log-{split}.parquet")
    (local_hub / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: items\n  data_files: a.parquet\n"
        "- config_name: interactions\n  data_files:\n"
        "  - {split: train, path: log-train.parquet}\n"
        "  - {split: test, path: log-test.parquet}\n---\n"
    )
    catalog = read("owner/shop")
    check(Catalog.from_pandas(catalog.items, catalog.interactions[:2], config=CONFIG))
    assert catalog.interactions["split"].tolist() == ["train"] * 2 + ["test"] * 2


def test_a_hub_dataset_of_items_alone(local_hub: Path) -> None:
    make_items().to_parquet(local_hub / "part-0.parquet")
    catalog = read("owner/shop")
    assert (catalog.num_items, catalog.num_users) == (2, 0)


def test_an_id_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "get_dataset_config_names", fail)
    with pytest.raises(DataError, match=r"\(got 'owner/none'\).*no route$") as caught:
        read("owner/none")
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], list[tuple[str, float]]]:
    """Let the hub answer one question, and fail the test when the library asks more."""
    asked: list[tuple[str, float]] = []

    def answer(error: Exception | None) -> list[tuple[str, float]]:
        def dataset_info(self: object, repo_id: str, *, timeout: float) -> None:
            asked.append((repo_id, timeout))
            if error is not None:
                raise error

        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
        return asked

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the library went to the hub")

    monkeypatch.setattr(datasets, "get_dataset_config_names", never)
    monkeypatch.setattr(datasets, "load_dataset", never)
    return answer


def test_a_hub_that_does_not_answer_is_asked_once_and_briefly(hub) -> None:
    asked = hub(OSError("name or service not known\nfor the hub"))
    with pytest.raises(DataError, match=r"cannot be asked .*'owner/none'.*HF_HUB_OFFLINE") as error:
        read("owner/none")
    assert "\n" not in str(error.value)
    assert asked == [("owner/none", 3.0)]


def test_a_hub_that_has_no_such_dataset_is_believed(hub) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    # Made without the response of an HTTP library, which differs between versions of the client.
    hub(RepositoryNotFoundError.__new__(RepositoryNotFoundError))
    with pytest.raises(DataError, match="no dataset of that id on the Hugging Face hub"):
        read("owner/none")


def test_offline_what_was_downloaded_before_is_read(hub) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    hub(OfflineModeIsEnabled("offline"))
    with pytest.raises(DataError, match="the library went to the hub"):
        read("owner/shop")


@pytest.mark.parametrize("path", ["nowhere", "../nowhere", "/no/where", "a/b/c", "no where/x"])
def test_a_path_that_is_no_dataset_id_is_never_asked_for(hub, path: str) -> None:
    asked = hub(None)
    with pytest.raises(DataError, match=r"data\.path is no folder"):
        read(path)
    assert asked == []


def test_the_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="pip install datasets"):
        read("owner/shop")


def test_plain_files_are_read_without_the_package(tmp_path: Path) -> None:
    pd.DataFrame({"item_id": ["a"]}).to_parquet(tmp_path / "items.parquet")
    code = (
        "import sys; from mmalign.data import Catalog, DataConfig\n"
        f"Catalog.read(DataConfig(path={str(tmp_path)!r}, interactions=None))\n"
        "sys.exit('datasets' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
