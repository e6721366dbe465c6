"""The artefact's folder: what is saved is loaded, and what is wrong with it is said in a line."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

from mmalign.data.catalog import Catalog
from mmalign.errors import ArtefactError, DataError
from mmalign.models import MODELS
from mmalign.recommender import Recommender, artefact

Make = Callable[[str], Recommender]


@pytest.fixture
def art(recommender: Recommender, tmp_path: Path) -> Path:
    recommender.save_pretrained(tmp_path / "art")
    return tmp_path / "art"


def refused(path: str | Path, problem: str | None = None) -> str:
    with pytest.raises(ArtefactError, match=problem) as caught:
        Recommender.from_pretrained(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", MODELS)
def test_loads_what_was_saved(make: Make, catalog: Catalog, tmp_path: Path, name: str) -> None:
    recommender = make(name)
    recommender.save_pretrained(tmp_path / "art")
    loaded = Recommender.from_pretrained(tmp_path / "art")
    users = [f"u{u:02}" for u in range(23)]
    pd.testing.assert_frame_equal(loaded.recommend(users, k=20), recommender.recommend(users, k=20))
    pd.testing.assert_frame_equal(loaded.audience(["i13"]), recommender.audience(["i13"]))
    pd.testing.assert_frame_equal(loaded.fold_in(["i01"]), recommender.fold_in(["i01"]))
    pd.testing.assert_frame_equal(loaded.similar_items("i01"), recommender.similar_items("i01"))
    assert loaded.explain("i13") == recommender.explain("i13")
    pd.testing.assert_frame_equal(loaded.items, recommender.items)
    assert loaded.config == recommender.config
    assert loaded.calibration == recommender.calibration
    assert (loaded.encoders, loaded.measured) == (recommender.encoders, recommender.measured)
    # and what was loaded is saved as the same bytes
    loaded.save_pretrained(tmp_path / "again")
    for file in artefact.FILES:
        one, other = (tmp_path / "art" / file), (tmp_path / "again" / file)
        assert one.read_bytes() == other.read_bytes(), file


def test_holds_these_files_and_no_other(art: Path) -> None:
    assert sorted(os.listdir(art)) == sorted(artefact.FILES)
    config = json.loads((art / "config.json").read_text())
    assert config["format"] == artefact.FORMAT
    assert config["versions"]["numpy"] == np.__version__
    assert {oct(file.stat().st_mode & 0o777) for file in art.iterdir()} == {
        oct(0o666 & (art.stat().st_mode & 0o777))
    }


def test_needs_neither_the_data_nor_another_folder(art: Path, tmp_path: Path) -> None:
    shutil.move(art, tmp_path / "moved" / "elsewhere")
    loaded = Recommender.from_pretrained(str(tmp_path / "moved" / "elsewhere"))
    assert len(loaded.recommend(["u00"], k=5)) == 5


class TestDamage:
    @pytest.mark.parametrize("file", [f for f in artefact.FILES if f != "README.md"])
    @pytest.mark.parametrize("damage", ["missing", "folder", "empty", "half", "noise", "other"])
    def test_each_file(self, art: Path, file: str, damage: str) -> None:
        path = art / file
        content = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage != "missing":
            other = art / ("seen.safetensors" if file == "model.safetensors" else "README.md")
            path.write_bytes(
                {
                    "empty": b"",
                    "half": content[: len(content) // 2],
                    "noise": np.random.default_rng(0).bytes(len(content)),
                    "other": other.read_bytes(),
                }[damage]
            )
        message = refused(art)
        assert file in message or "does not fit together" in message

    def test_a_card_is_only_for_reading(self, art: Path) -> None:
        (art / "README.md").unlink()
        Recommender.from_pretrained(art)

    @pytest.mark.parametrize("version", [0, 1, artefact.FORMAT + 1, None, "1"])
    def test_another_format_version(self, art: Path, version: object) -> None:
        self.edit(art, format=version)
        assert "fit anew" in refused(art, "another format version")

    @pytest.mark.parametrize(
        "change",
        [
            {"experiment": {"model": {"nmae": "ease"}}},
            {"experiment": {"model": {"name": "item_knn"}}},
            {"experiment": []},
            {"calibration": {"weights": 3}},
            {"calibration": None, "encoders": 5},
            {"measured": 7},
            {"measured": {"valid": 7}},
            {"attributes": "abc"},
        ],
    )
    def test_a_wrong_config(self, art: Path, change: dict[str, object]) -> None:
        self.edit(art, **change)
        refused(art)

    def test_a_config_without_a_section(self, art: Path) -> None:
        for section in ("experiment", "calibration", "encoders", "attributes", "measured"):
            text = (art / "config.json").read_text()
            self.edit(art, drop=section)
            assert section in refused(art, "does not fit together")
            (art / "config.json").write_text(text)

    def test_json_that_is_no_object(self, art: Path) -> None:
        for text in ("[]", "3", "null", "[" * 100_000):
            (art / "config.json").write_text(text)
            refused(art, "config.json")

    def test_rows_in_another_order_are_refused_and_other_columns_may_change(
        self, art: Path
    ) -> None:
        for file in ("items", "users"):
            frame = pd.read_parquet(art / f"{file}.parquet")
            frame.iloc[::-1].to_parquet(art / f"{file}.parquet", index=False)
            refused(art, f"{file} of .* are not what was written")
            frame.assign(price=7.5).to_parquet(art / f"{file}.parquet", index=False)
            assert len(Recommender.from_pretrained(art).items) == 16

    def test_other_histories_are_refused(self, art: Path) -> None:
        seen = load_file(art / "seen.safetensors")
        seen["train.data"][0] += 1
        save_file(seen, art / "seen.safetensors")
        refused(art, "seen of .* are not what was written")

    def test_an_artefact_without_digests_is_read(self, art: Path) -> None:
        self.edit(art, drop="digests")
        Recommender.from_pretrained(art)

    def test_numbers_of_items_or_users_that_differ(self, art: Path) -> None:
        self.edit(art, drop="digests")
        for file in ("items", "users"):
            frame = pd.read_parquet(art / f"{file}.parquet")
            frame.iloc[:-1].to_parquet(art / f"{file}.parquet")
            refused(art, "does not fit together")
            frame.to_parquet(art / f"{file}.parquet")
        Recommender.from_pretrained(art)

    def test_ids_that_repeat_or_are_missing(self, art: Path) -> None:
        frame = pd.read_parquet(art / "items.parquet")
        for ids in (["i00"] * 16, [None, *frame.item_id[1:]]):
            frame.assign(item_id=ids).to_parquet(art / "items.parquet")
            refused(art, "distinct ids")
        frame.drop(columns="item_id").to_parquet(art / "items.parquet")
        refused(art, "distinct ids")

    def test_arrays_of_other_sizes(self, art: Path) -> None:
        self.edit(art, drop="digests")
        for file in ("model", "features", "seen"):
            path = art / f"{file}.safetensors"
            arrays = load_file(path)
            for name, array in arrays.items():
                if array.ndim == 0:
                    continue
                save_file(arrays | {name: np.ascontiguousarray(array[:-1])}, path)
                refused(art, "does not fit together")
            save_file(arrays, path)
        Recommender.from_pretrained(art)

    def test_a_row_number_that_would_read_foreign_memory(self, art: Path) -> None:
        self.edit(art, drop="digests")
        arrays = load_file(art / "seen.safetensors")
        for number in (10**6, -5):
            arrays["train.indices"][0] = number
            save_file(arrays, art / "seen.safetensors")
            refused(art, "does not fit together")

    def edit(self, art: Path, drop: str = "", **change: object) -> None:
        config = json.loads((art / "config.json").read_text()) | change
        config.pop(drop, None)
        (art / "config.json").write_text(json.dumps(config))


class TestNoCode:
    @pytest.mark.parametrize(
        "name", ["evil.pkl", "sub/folder/weights.PT", "pytorch_model.bin", "x.npy", "x.ckpt"]
    )
    def test_a_file_that_runs_code_by_name(self, art: Path, name: str) -> None:
        (art / name).parent.mkdir(parents=True, exist_ok=True)
        (art / name).write_bytes(b"")
        assert Path(name).name in refused(art, "run code")

    @pytest.mark.parametrize("kind", ["pickle", "numpy", "torch"])
    def test_a_file_that_runs_code_by_content(self, art: Path, kind: str) -> None:
        stream = io.BytesIO()
        if kind == "pickle":
            pickle.dump({"a": 1}, stream)
        elif kind == "numpy":
            np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        else:
            torch.save({"a": 1}, stream)
        (art / "notes.txt").write_bytes(stream.getvalue())
        assert "notes.txt" in refused(art, "run code")

    def test_a_harmless_file_is_nobodys_business(self, art: Path) -> None:
        (art / "notes.txt").write_text("tuned by Ann")
        Recommender.from_pretrained(art)

    def test_a_pickle_under_the_name_of_ours_is_not_run(self, art: Path, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "pwned"),)

        for file in artefact.FILES[:-1]:
            content = (art / file).read_bytes()
            (art / file).write_bytes(pickle.dumps(Evil()))
            refused(art, file)
            (art / file).write_bytes(content)
        assert not (tmp_path / "pwned").exists()

    def test_nothing_is_unpickled(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in MODELS:
            make(name).save_pretrained(tmp_path / name)

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("something was unpickled")

        for function in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
            monkeypatch.setattr(pickle, function, fail)
        monkeypatch.setattr(torch, "load", fail)
        for name in MODELS:
            Recommender.from_pretrained(tmp_path / name).recommend(["u00"])


class TestSaving:
    def test_over_another_artefact(self, make: Make, art: Path) -> None:
        make("ease").save_pretrained(art)
        assert Recommender.from_pretrained(art).config.model.name == "ease"
        assert sorted(os.listdir(art)) == sorted(artefact.FILES)
        assert os.listdir(art.parent) == ["art"]

    def test_never_over_somebodys_files(self, recommender: Recommender, art: Path) -> None:
        (art / "recs.csv").write_text("mine")
        with pytest.raises(DataError, match=r"holds other files, which would be lost .got 'recs"):
            recommender.save_pretrained(art)
        assert (art / "recs.csv").read_text() == "mine"

    def test_to_a_place_that_is_no_folder(self, recommender: Recommender, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "art"):
            with pytest.raises(DataError, match="the output"):
                recommender.save_pretrained(path)

    @pytest.mark.parametrize("number", range(7))
    def test_a_full_disk_at_any_file(
        self,
        make: Make,
        art: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
    ) -> None:
        before = {file.name: file.read_bytes() for file in art.iterdir()}
        other, calls = make("ease"), []
        for module, function in (
            (artefact.files, "write_arrays"),
            (artefact.files, "write_table"),
            (Path, "write_text"),
        ):
            real = getattr(module, function)

            def write(*a: Any, real: Any = real, **k: Any) -> Any:
                calls.append(a)
                if len(calls) == number + 1:
                    raise OSError(28, os.strerror(28))
                return real(*a, **k)

            monkeypatch.setattr(module, function, write)
        with pytest.raises(DataError, match="No space left on device"):
            other.save_pretrained(art)
        monkeypatch.undo()
        assert {file.name: file.read_bytes() for file in art.iterdir()} == before
        assert os.listdir(art.parent) == ["art"]

    def test_a_disk_that_is_full_in_fact(self, art: Path, tmp_path: Path) -> None:
        """Every writer below us says so in its own way; all of them become one line."""
        run = f"""
import resource
import numpy as np
import pandas as pd
from pathlib import Path
from mmalign.atomic import whole_folder
from mmalign.recommender import Recommender, files
from mmalign.errors import DataError
recommender = Recommender.from_pretrained({str(art)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (900, resource.RLIM_INFINITY))
long = pd.DataFrame({{"item_id": [str(i) for i in range(9999)]}})
for write in (
    lambda folder: recommender.save_pretrained(folder / "art"),
    lambda folder: files.write_arrays(folder / "a.safetensors", {{"a": np.ones(9999)}}),
    lambda folder: files.write_table(folder / "a.parquet", long),
):
    try:
        with whole_folder(Path({str(tmp_path / "new")!r})) as folder:
            write(folder)
    except DataError as error:
        print(error)
"""
        ran = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        lines = ran.stdout.splitlines()
        assert len(lines) == 3
        assert all("could not write" in line and "File too large" in line for line in lines)
        assert not any(name.startswith(".") for name in os.listdir(tmp_path))

    def test_a_kill_leaves_the_old_artefact(self, art: Path) -> None:
        """While files are written; tests/test_atomic.py kills at the moments after that."""
        before = {file.name: file.read_bytes() for file in art.iterdir()}
        run = f"""
import os, signal
from mmalign.recommender import Recommender, files
recommender = Recommender.from_pretrained({str(art)!r})
recommender.measured = {{"new": {{"ndcg@20": 1.0}}}}
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
files.write_table = die
recommender.save_pretrained({str(art)!r})
"""
        ran = subprocess.run([sys.executable, "-c", run], check=False)
        assert ran.returncode == -signal.SIGKILL
        assert {file.name: file.read_bytes() for file in art.iterdir()} == before
        Recommender.from_pretrained(art)

    def test_a_kill_between_the_renames_is_mended_by_loading(self, art: Path) -> None:
        art.rename(art.with_name(".art.old"))  # what such a kill leaves, both of it
        art.with_name(".art.writing-0").mkdir()
        Recommender.from_pretrained(art)
        assert art.is_dir()

    def test_columns_that_have_no_one_type(self, recommender: Recommender, tmp_path: Path) -> None:
        recommender.items = recommender.items.assign(
            mixed=[1, "a", None, 2.5] * 4,
            bytes=[b"picture"] * 16,
            mapping=[{"bytes": b"x"}] * 16,
            lists=[["a", "b"]] * 16,
            years=pd.period_range("2001", periods=16, freq="Y"),
            large=[10**25, None] * 8,
            halves=[["x", "cut \ud83d"], []] * 8,
            sparse=pd.Series(pd.arrays.SparseArray([0, 1] * 8)),
        )
        recommender.save_pretrained(tmp_path / "art")
        loaded = Recommender.from_pretrained(tmp_path / "art")
        assert loaded.items.mixed[[0, 1, 3]].tolist() == ["1", "a", "2.5"]
        assert loaded.items.mixed.isna()[2]
        assert not {"bytes", "mapping"} & set(loaded.items)
        assert loaded.items.large[0] == str(10**25)
        assert loaded.items.large.isna()[1]
        assert loaded.items.halves[0] == "['x', 'cut \\ud83d']"
        assert loaded.items["sparse"].map(int).tolist() == [0, 1] * 8
        assert list(loaded.items.lists[3]) == ["a", "b"]
        loaded.save_pretrained(tmp_path / "again")

    def test_ids_of_any_kind(self, recommender: Recommender, tmp_path: Path) -> None:
        ids = ["", " a b ", "ünï 中", "a/b", 'q"uote', "new\nline", "NaN", "None", "1e5", "007"]
        recommender.items = recommender.items.assign(item_id=ids + [f"x{i}" for i in range(6)])
        recommender.user_ids[:10] = ids
        recommender.save_pretrained(tmp_path / "art")
        loaded = Recommender.from_pretrained(tmp_path / "art")
        assert loaded.item_ids[:10].tolist() == ids
        assert loaded.user_ids[:10].tolist() == ids
        assert set(loaded.recommend(ids, k=1).user_id) == set(ids)

    def test_no_users(self, make: Make, tmp_path: Path) -> None:
        recommender = make("ease")
        recommender.user_ids = recommender.user_ids[:0]
        recommender.seen = {split: m[:0] for split, m in recommender.seen.items()}
        recommender.save_pretrained(tmp_path / "art")
        loaded = Recommender.from_pretrained(tmp_path / "art")
        assert loaded.recommend("all").empty
        assert len(loaded.fold_in(["i01"], k=3)) == 3


class TestHub:
    def test_push_leaves_paths_of_this_machine_out(
        self, recommender: Recommender, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import huggingface_hub

        secret = "/home/ann/secret"
        recommender.config = replace(
            recommender.config,
            data=replace(
                recommender.config.data,
                path=f"{secret}/films",
                interactions=f"{secret}/log.csv",
                neighbours={"text": f"{secret}/like.csv"},
            ),
            encoders={"text": f"{secret}/my-encoder", "image": "efficientnet-lite0"},
            cache=f"{secret}/cache",
            trainer={"default_root_dir": f"{secret}/runs", "max_epochs": 3},
        )
        calls: list[tuple[str, Any]] = []

        class Api:
            def __init__(self, token: str | None) -> None:
                calls.append(("token", token))

            def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
                calls.append(("create", (repo_id, private, exist_ok)))

            def upload_folder(self, *, repo_id: str, folder_path: str, **_: object) -> object:
                shutil.copytree(folder_path, tmp_path / "hub")
                return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        before = recommender.config
        address = recommender.push_to_hub("ann/films", private=True, token="t")
        assert address == "https://hub/ann/films/commit/1"
        assert calls == [("token", "t"), ("create", ("ann/films", True, True))]
        assert recommender.config is before
        for file in (tmp_path / "hub").iterdir():
            assert b"ann/secret" not in file.read_bytes(), file.name
        pushed = Recommender.from_pretrained(tmp_path / "hub").config
        assert pushed.data.path == "films"
        assert (pushed.data.items, pushed.data.interactions) == ("items", "log.csv")
        assert pushed.data.neighbours == {"text": "like.csv"}
        assert pushed.encoders == {"text": "my-encoder", "image": "efficientnet-lite0"}
        assert pushed.trainer == {"default_root_dir": "runs", "max_epochs": 3}

    def test_a_hub_that_cannot_be_reached(
        self, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        class Api:
            def __init__(self, token: str | None) -> None:
                pass

            def create_repo(self, *_: object, **__: object) -> None:
                raise RuntimeError("no route to host")

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        with pytest.raises(ArtefactError, match=r"cannot upload to 'ann/films'.*no route to host"):
            recommender.push_to_hub("ann/films")

    @pytest.mark.parametrize("path", ["someorg/some-model", "gpt2", "/no/such/folder", "a/b/c", ""])
    def test_what_is_nowhere(
        self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        refused(path, "no artefact there|config.json is missing")

    @pytest.mark.parametrize("error", [ConnectionError, TimeoutError, OSError])
    def test_a_network_that_fails(
        self, error: type[OSError], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        def fail(*_: object, **__: object) -> None:
            raise error("down")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        refused("someorg/some-model", "neither as a folder nor on the Hugging Face hub")

    def test_loads_what_the_hub_has(
        self, art: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import huggingface_hub

        def download(
            repo_id: str, *, revision: str | None, token: str | None, allow_patterns: list[str]
        ) -> str:
            asked.append((repo_id, revision, token))
            assert not any("pkl" in p or p == "*" for p in allow_patterns)
            return str(art)

        monkeypatch.chdir(tmp_path)
        asked: list[tuple[str, str | None, str | None]] = []
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        assert len(Recommender.from_pretrained("ann/films").items) == 16
        Recommender.from_pretrained("ann/films", revision="v2", token="hf_x")
        assert asked == [("ann/films", None, None), ("ann/films", "v2", "hf_x")]

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            ("RepositoryNotFoundError", "of a private repository, give its token"),
            ("RevisionNotFoundError", "no revision 'v2' of that repository"),
            ("HfHubHTTPError", "cannot be asked.*HfHubHTTPError: out of order"),
        ],
    )
    def test_what_the_hub_says_is_told(
        self, error: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        answer = SimpleNamespace(headers={}, request=None)

        def fail(*_: object, **__: object) -> None:
            raise getattr(huggingface_hub.errors, error)("out of order", response=answer)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(ArtefactError, match=message):
            Recommender.from_pretrained("ann/films", revision="v2")


def test_loading_imports_no_training_and_no_encoder(art: Path) -> None:
    heavy = {"lightning", "pytorch_lightning", "transformers", "jsonargparse", "open_clip", "timm"}
    heavy |= {"datasets", "tensorboard", "huggingface_hub", "matplotlib"}
    run = f"""
import sys
from mmalign.recommender import Recommender
recommender = Recommender.from_pretrained({str(art)!r})
assert len(recommender.recommend(["u00"], k=3)) == 3
recommender.explain("i13")
print(*sorted({heavy} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []
