"""Presets: a small YAML per encoder in ``configs/encoders``, and how a name becomes an encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from mmalign.config import from_dict, load_yaml, to_dict
from mmalign.encoders.lazy import LazyEncoder
from mmalign.encoders.resolve import PackageConfig, Source, resolve
from mmalign.encoders.runtime import fingerprint as fingerprint_of
from mmalign.encoders.runtime import pick_device
from mmalign.errors import ConfigError, EncoderError, MMAlignError, nearest
from mmalign.interfaces import Encoder

__all__ = ["PackageConfig", "PresetConfig", "available_presets", "load_encoder", "read_preset"]

FOLDER_PRESET = "preset.yaml"
"""A model folder may carry this file to say how it wants to be used."""


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
        architecture: timm model name, needed for weights that come without a config.
        pooling: ``mean`` over real tokens, ``cls`` for the first token, or ``pooler`` for the
            model's own pooled output.
        normalize: Whether rows are scaled to unit length.
        prefix: Put before every text, as some models were trained.
        max_length: Tokens kept of a text, special tokens included; never more than the model has.
        preprocess: Overrides of the model's own picture preprocessing, in its library's words.
        batch_size: Items per forward pass.
    """

    library: Literal["transformers", "open_clip", "timm"]
    modality: Literal["text", "image"]
    name: str = ""
    folder: Path | None = None
    hub: str | None = None
    package: PackageConfig | None = None
    architecture: str | None = None
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    normalize: bool = False
    prefix: str = ""
    max_length: int = 512
    preprocess: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse combinations that no loader can serve."""
        if self.library == "timm" and self.modality == "text":
            raise ConfigError("timm has no text models", got=self.name, fix="set modality: image")
        if self.batch_size < 1:
            raise ConfigError("batch_size must be positive", got=self.batch_size, fix="pass >= 1")
        if self.max_length < 2:
            raise ConfigError("max_length is too short", got=self.max_length, fix="pass >= 2")

    def behaviour(self) -> dict[str, Any]:
        """The part that decides the output: what the fingerprint covers besides the weights."""
        where = {"name", "folder", "hub", "package", "batch_size"}
        return {key: value for key, value in to_dict(self).items() if key not in where}


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
        return _preset(load_yaml(path), path.stem)
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

    Weights are looked for in this order: local folder, hub cache, hub, installed package.

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
    source, digest = _find(preset, fingerprint)
    load = partial(_load, preset, source, digest, device)
    if not lazy:
        return load()
    return LazyEncoder(
        load, modality=preset.modality, fingerprint=digest, batch_size=preset.batch_size
    )


def _find(preset: PresetConfig, wanted: str | None) -> tuple[Source, str]:
    """Files and fingerprint; those wanted are the same wherever they lie, so near ones do."""
    behaviour = preset.behaviour()
    if wanted is not None:
        with suppress(EncoderError):  # to be told in full below
            source = resolve(preset, download=False)
            if fingerprint_of(source, behaviour) == wanted:
                return source, wanted
    source = resolve(preset)
    return source, fingerprint_of(source, behaviour)


def _load(preset: PresetConfig, source: Source, digest: str, device_name: str) -> Encoder:
    device = pick_device(device_name)
    try:
        if preset.modality == "text":
            from mmalign.encoders.text import TextEncoder

            return TextEncoder.load(preset, source, digest, device)
        from mmalign.encoders.image import ImageEncoder

        return ImageEncoder.load(preset, source, digest, device)
    except MMAlignError:
        raise
    except Exception as error:
        # Libraries raise whatever their loaders trip over; the user needs to know which model.
        raise EncoderError(
            f"cannot load encoder {preset.name!r} from {source.origin} {source.folder}",
            got=f"{type(error).__name__}: {error}",
            fix="the files are damaged or of another kind: mend the preset or fetch them again",
        ) from error


def _preset(values: Mapping[str, Any] | None, name: str) -> PresetConfig:
    return replace(from_dict(PresetConfig, values, where=name), name=name)


def _folder_preset(folder: Path) -> PresetConfig:
    if (folder / FOLDER_PRESET).is_file():
        preset = _preset(load_yaml(folder / FOLDER_PRESET), folder.name)
        return replace(preset, folder=folder)
    if (folder / "open_clip_config.json").is_file():
        raise EncoderError(
            "an open_clip folder has two towers",
            got=str(folder),
            fix=f"add {FOLDER_PRESET} with library: open_clip and modality: text or image",
        )
    config = _json(folder / "config.json")
    if "architecture" in config and "pretrained_cfg" in config:
        return PresetConfig("timm", "image", name=folder.name, folder=folder)
    if "model_type" not in config:
        raise EncoderError(
            "not a model folder", got=str(folder), fix="it needs a config.json or a preset.yaml"
        )
    if (folder / "preprocessor_config.json").is_file() and not any(folder.glob("tokenizer*")):
        pooled = str(config["model_type"]).startswith(("clip", "siglip"))  # no plain first token
        return PresetConfig(
            "transformers",
            "image",
            name=folder.name,
            folder=folder,
            pooling="pooler" if pooled else "cls",
        )
    return _sentence_preset(folder)


def _sentence_preset(folder: Path) -> PresetConfig:
    """Follow the pooling, scaling and length that sentence-transformers wrote beside a model."""
    pooling = _json(folder / "1_Pooling" / "config.json")
    first = pooling.get("pooling_mode_cls_token") or pooling.get("pooling_mode") == "cls"
    modules = folder / "modules.json"
    unit = modules.is_file() and "Normalize" in modules.read_text(encoding="utf-8")
    length = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    return PresetConfig(
        "transformers",
        "text",
        name=folder.name,
        folder=folder,
        pooling="cls" if first else "mean",
        normalize=unit,
        max_length=int(length or 512),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EncoderError(f"cannot read {path}", got=str(error), fix="mend the file") from None
    return values if isinstance(values, dict) else {}
