"""Folders of tuned towers, each as its own library writes it, with a preset for mmalign."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from mmalign.atomic import whole_folder
from mmalign.config import to_dict
from mmalign.encoders.clip import load_clip
from mmalign.encoders.folders import PAIR_PRESETS, read_json, write_json
from mmalign.encoders.presets import FOLDER_PRESET, AdapterConfig, PresetConfig
from mmalign.encoders.projection import write_projection
from mmalign.encoders.runtime import quiet_transformers
from mmalign.encoders.tuning.adapter import write_adapter
from mmalign.encoders.tuning.assemble import fits_open_clip, place_open_clip, write_open_clip
from mmalign.encoders.tuning.lora import merged
from mmalign.encoders.vision import timm_settings
from mmalign.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mmalign.encoders.tuning.towers import Tower

__all__ = [
    "beyond_sentences",
    "check_base_apart",
    "is_pair",
    "own_scale",
    "save_pair",
    "save_tower",
]


def save_tower(tower: Tower, folder: Path, *, merge: bool = True) -> None:
    """Write one tower; see :meth:`Tower.save_pretrained`."""
    preset = tower.origin.preset
    alone = tower.adapters is not None and not merge
    if alone:
        check_base_apart(tower, folder)
        preset = replace(preset, adapter=AdapterConfig(tower.origin.name, tower.origin.fingerprint))
    with _whole(folder) as part:
        dense = [] if tower.projection is None else write_projection(part, tower.projection)
        if alone:
            write_adapter(part, tower, folder.name)
        elif preset.library == "open_clip":
            _write_clip(part, [tower])
            place_open_clip(part, folder)
        elif preset.library == "timm":
            _write_timm(part, tower)
        else:
            _write_transformers(part, tower, dense)
        _write_preset(part / FOLDER_PRESET, preset)


def check_base_apart(tower: Tower, output: Path) -> None:
    """Fail before an adapter alone replaces the base that it is added to.

    Args:
        tower: Of the adapter.
        output: The folder that will be replaced as a whole.

    Raises:
        ConfigError: One of output and base lies in the other, or they are the same folder.
    """
    base, place = tower.origin.source.folder.resolve(), output.resolve()
    if base.is_relative_to(place) or place.is_relative_to(base):
        raise ConfigError(
            f"an adapter alone would be written over its base encoder {base}",
            got=str(output),
            fix="name an output folder apart from it, or set finetune.merge: true",
        )


def beyond_sentences(tower: Tower) -> bool:
    """Whether sentence-transformers cannot read texts as this tower of transformers does.

    It knows no pooler, and nothing that stands after a text.
    """
    preset = tower.origin.preset
    return preset.library == "transformers" and (preset.pooling == "pooler" or bool(preset.suffix))


def is_pair(text: Tower, image: Tower) -> bool:
    """Whether these are the two towers of one open_clip model."""
    presets = text.origin.preset, image.origin.preset
    kinds = [(preset.library, preset.modality) for preset in presets]
    same = text.origin.source.weights == image.origin.source.weights
    return kinds == [("open_clip", "text"), ("open_clip", "image")] and same


def own_scale(tower: Tower) -> tuple[float, float | None]:
    """Temperature and bias of the logits of the open_clip model that a tower is of.

    Returns:
        The temperature, and the bias or None where the model has none.
    """
    _, model = load_clip(tower.origin.source.folder, torch.device("cpu"))
    bias = getattr(model, "logit_bias", None)
    return math.exp(-float(model.logit_scale)), None if bias is None else float(bias)


def save_pair(
    folder: Path,
    text: Tower,
    image: Tower,
    *,
    temperature: float | None = None,
    bias: float | None = None,
) -> None:
    """Write two towers as one open_clip model, adapters merged.

    ``text.yaml`` and ``image.yaml`` in the folder are the presets of its towers.

    Args:
        folder: Replaced as a whole if it holds such a model.
        text: A tower of an open_clip model, or one that :func:`fits_open_clip`.
        image: The other tower of that model, or one that fits.
        temperature: Of the contrast they were trained by; None leaves the model's own, and is .07
            for towers of different libraries.
        bias: Of its logits; None leaves the model's own, if it has one.

    Raises:
        ConfigError: open_clip could not compute what these towers do.
        DataError: The folder cannot be written; what was there is as it was.
    """
    presets = [text.origin.preset, image.origin.preset]
    if not is_pair(text, image) and not fits_open_clip(text, image):
        raise ConfigError(
            "these are not the text and the image tower of one open_clip model",
            got=f"{text.origin.name}, {image.origin.name}",
            fix="save each in a folder of its own",
        )
    with _whole(folder) as part:
        if is_pair(text, image):
            _write_clip(part, [text, image], temperature, bias)
        else:
            write_open_clip(part, text, image, temperature=temperature or 0.07, bias=bias)
            presets = [
                PresetConfig(
                    "open_clip", preset.modality, normalize=True, test_views=preset.test_views
                )
                for preset in presets
            ]
        place_open_clip(part, folder)
        for name, preset in zip(PAIR_PRESETS, presets, strict=True):
            _write_preset(part / name, replace(preset, folder=Path(".")))


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and any(folder.iterdir()):
        ours = (FOLDER_PRESET, *PAIR_PRESETS)
        if not any((folder / name).is_file() for name in ours):
            raise DataError(
                "the output folder holds other files, which would be lost",
                got=str(folder),
                fix="name a new or empty folder",
            )
    with whole_folder(folder) as part, quiet_transformers():
        try:
            yield part
        except Exception as error:
            # What is written in Rust has errors of its own for a full disk.
            if isinstance(error, OSError) or "os error" not in str(error):
                raise
            raise OSError(str(error)) from error


def _write_transformers(part: Path, tower: Tower, dense: Sequence[str]) -> None:
    core: Any = merged(tower)
    core.save_pretrained(part)
    tower.reader.save(part)
    if tower.modality == "text" and not beyond_sentences(tower):
        _write_sentence_files(part, tower, dense)


def _write_sentence_files(part: Path, tower: Tower, dense: Sequence[str]) -> None:
    """What makes sentence-transformers pool, project, scale, prompt and cut as mmalign does."""
    preset, trunk = tower.origin.preset, tower.trunk
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *((name, "Dense") for name in dense)]
    if preset.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (part / modules[-1][0]).mkdir()
        write_json(part / modules[-1][0] / "config.json", {})
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(part / "modules.json", listed)
    (part / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": trunk.dim,
        "pooling_mode_cls_token": preset.pooling == "cls",
        "pooling_mode_mean_tokens": preset.pooling == "mean",
        "pooling_mode_lasttoken": preset.pooling == "last",
    }
    write_json(part / "1_Pooling" / "config.json", pooling)
    length = {"max_seq_length": trunk.max_length, "do_lower_case": False}
    write_json(part / "sentence_bert_config.json", length)
    prompts = {"prompts": {"item": preset.prefix}, "default_prompt_name": "item"}
    write_json(
        part / "config_sentence_transformers.json",
        {"similarity_fn_name": "cosine", **(prompts if preset.prefix else {})},
    )


def _write_timm(part: Path, tower: Tower) -> None:
    from timm.models import save_for_hf

    core = merged(tower)
    save_for_hf(core, str(part), safe_serialization=True)
    config = read_json(part / "config.json")
    for test in ("test_input_size", "test_pool_size", "test_crop_pct"):
        config["pretrained_cfg"].pop(test, None)  # they were of the model before
    config["pretrained_cfg"] |= timm_settings(core, tower.origin.preset.preprocess)
    write_json(part / "config.json", config)


def _write_clip(
    part: Path,
    towers: Sequence[Tower],
    temperature: float | None = None,
    bias: float | None = None,
) -> None:
    """The model the towers are of, with their weights in place of those it had."""
    from safetensors.torch import save_file

    source = towers[0].origin.source.folder
    _, model = load_clip(source, torch.device("cpu"))
    weights: dict[str, torch.Tensor] = model.state_dict()
    config = read_json(source / "open_clip_config.json")
    for tower in towers:
        place = "visual." if tower.modality == "image" else ""
        weights |= {place + name: value for name, value in merged(tower).state_dict().items()}
        preprocess = tower.origin.preset.preprocess
        if preprocess:
            config["preprocess_cfg"] = {**config.get("preprocess_cfg", {}), **preprocess}
        if "size" in preprocess:  # open_clip takes it from here
            config["model_cfg"]["vision_cfg"]["image_size"] = preprocess["size"]
    model.load_state_dict(weights)  # fails where they do not fit
    weights = model.state_dict()
    if temperature is not None:
        weights["logit_scale"].fill_(-math.log(temperature))
    if bias is not None:
        weights["logit_bias"] = torch.full_like(weights["logit_scale"], bias)
        config["model_cfg"]["init_logit_bias"] = bias
    save_file(
        {name: value.contiguous() for name, value in weights.items()},
        part / "open_clip_model.safetensors",
    )
    for pattern in ("*.json", "*.txt", "*.model"):  # the tokenizer's
        for file in source.glob(pattern):
            if not file.name.endswith(".index.json"):
                shutil.copyfile(file, part / file.name)
    write_json(part / "open_clip_config.json", config)


def _write_preset(path: Path, preset: PresetConfig) -> None:
    places = {"name", "hub", "package"}
    if preset.folder != Path("."):
        places.add("folder")
    values = {k: v for k, v in to_dict(preset).items() if k not in places and v is not None}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
