"""What a model folder says about its own use, read from the files its library wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmalign.errors import EncoderError

__all__ = [
    "ADAPTER_FILES",
    "OWN_PROJECTION",
    "PAIR_PRESETS",
    "dense_folders",
    "describe_folder",
    "read_json",
]

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What peft writes of an adapter."""
OWN_PROJECTION = "projection.safetensors"
"""Beside an adapter: weights of the projection inside its base, as open_clip's towers have one."""
PAIR_PRESETS = ("text.yaml", "image.yaml")
"""Presets of the two towers that lie in one folder."""


def describe_folder(folder: Path) -> dict[str, Any]:
    """Read fields of a preset from plain transformers, sentence-transformers or timm files.

    Raises:
        EncoderError: The folder holds no model, or one whose use it does not say.
    """
    if (folder / "open_clip_config.json").is_file():
        presets = [str(folder / name) for name in PAIR_PRESETS if (folder / name).is_file()]
        raise EncoderError(
            "an open_clip folder has two towers",
            got=str(folder),
            fix=f"name one of them: {' or '.join(presets)}"
            if presets
            else "add preset.yaml with library: open_clip and modality: text or image",
        )
    config = read_json(folder / "config.json")
    if "architecture" in config and "pretrained_cfg" in config:
        return {"library": "timm", "modality": "image"}
    if "model_type" not in config:
        raise EncoderError(
            "not a model folder", got=str(folder), fix="it needs a config.json or a preset.yaml"
        )
    if (folder / "preprocessor_config.json").is_file() and not any(folder.glob("tokenizer*")):
        pooled = str(config["model_type"]).startswith(("clip", "siglip"))  # no plain first token
        pooling = "pooler" if pooled else "cls"
        return {"library": "transformers", "modality": "image", "pooling": pooling}
    return _describe_sentence_model(folder)


def dense_folders(folder: Path) -> list[Path]:
    """Folders of the dense layers, in the order they run.

    Raises:
        EncoderError: ``modules.json`` names what mmalign does not run, or an order it does not.
    """
    modules = list(_sentence_modules(folder))
    if not modules:  # no sentence model: a vision model, or an adapter
        return sorted(folder.glob("*_Dense"))
    names = [name for name, _ in modules]
    dense = [path for name, path in modules if name == "Dense"]
    known = ["Transformer", "Pooling"] + ["Dense"] * len(dense)
    if names not in (known, [*known, "Normalize"]):
        raise EncoderError(
            f"{folder} is no transformer with pooling, dense layers and scaling, in this order",
            got=", ".join(names),
            fix="use an encoder of another shape, or mend modules.json",
        )
    return dense


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file; one that is absent, or holds no such kind of value, is empty.

    Raises:
        EncoderError: It cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        raise EncoderError(f"cannot read {path}", got=str(error), fix="mend the file") from None
    return values if isinstance(values, kind) else kind()


def write_json(path: Path, values: Any) -> None:
    """Write a file as people read it."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _sentence_modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """Class name and folder of every module that sentence-transformers runs, in its order."""
    for module in read_json(folder / "modules.json", kind=list):
        yield str(module.get("type")).rpartition(".")[2], folder / str(module.get("path", ""))


def _describe_sentence_model(folder: Path) -> dict[str, Any]:
    """Follow the pooling, scaling, prompt and length that sentence-transformers wrote."""
    pooling = _pooling(folder / "1_Pooling" / "config.json")
    settings = read_json(folder / "config_sentence_transformers.json")
    prompt = (settings.get("prompts") or {}).get(settings.get("default_prompt_name"))
    length = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return {
        "library": "transformers",
        "modality": "text",
        "pooling": pooling,
        "normalize": any(name == "Normalize" for name, _ in _sentence_modules(folder)),
        "prefix": prompt or "",
        "max_length": int(length or 512),
    }


def _pooling(path: Path) -> str:
    config = read_json(path)
    prefix = "pooling_mode_"  # one key per way until sentence-transformers 5
    old = [key.removeprefix(prefix) for key, on in config.items() if key.startswith(prefix) and on]
    mode = config.get("pooling_mode") or old or "mean"
    ways = {
        "cls": "cls",
        "cls_token": "cls",
        "mean": "mean",
        "mean_tokens": "mean",
        "lasttoken": "last",
    }
    named = [mode] if isinstance(mode, str) else list(mode)
    if len(named) != 1 or named[0] not in ways:
        raise EncoderError(
            f"mmalign does not pool as {path} says",
            got=", ".join(map(str, named)),
            fix="use an encoder that pools by mean, cls or lasttoken",
        )
    return ways[named[0]]
