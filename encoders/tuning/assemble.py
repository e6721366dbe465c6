"""A text tower of transformers and a picture tower of timm, written as one open_clip model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmalign.encoders.adapter import core_of
from mmalign.encoders.clip import load_clip, text_model_types
from mmalign.encoders.folders import read_json, write_json
from mmalign.encoders.tuning.lora import merged
from mmalign.encoders.vision import timm_settings

if TYPE_CHECKING:
    from mmalign.encoders.tuning.towers import Tower

__all__ = ["fits_open_clip", "place_open_clip", "write_open_clip"]

POOLERS = {"mean": "mean_pooler", "cls": "cls_last_hidden_state_pooler"}
RESIZE_MODES = {"squash": "squash", "center": "shortest"}


def fits_open_clip(text: Tower, image: Tower) -> bool:
    """Whether open_clip has all that the two towers do.

    It knows few kinds of text models, one linear projection without bias, and no picture that is
    cut smaller than it was scaled.
    """
    told = text.origin.preset
    if (told.library, image.origin.preset.library) != ("transformers", "timm"):
        return False
    settings = _settings(image)
    core: Any = core_of(text.trunk)
    return bool(
        core.config.model_type in text_model_types()
        and told.pooling in POOLERS
        and not told.prefix
        and not told.suffix
        and settings["crop_pct"] == 1
        and settings["crop_mode"] in RESIZE_MODES
        and text.dim == image.dim
        and all(_is_plain(tower.projection) for tower in (text, image))
    )


def write_open_clip(
    folder: Path, text: Tower, image: Tower, *, temperature: float, bias: float | None = None
) -> None:
    """Write one model that ``open_clip.create_model("local-dir:...")`` loads.

    Args:
        folder: Empty; :func:`place_open_clip` then tells where it will lie.
        text: A tower of transformers.
        image: A tower of timm, see :func:`fits_open_clip`.
        temperature: Of the contrast they were trained by.
        bias: Of its logits; None for none.
    """
    from safetensors.torch import save_file

    text_core: Any = merged(text)
    image_core: Any = merged(image)
    text_core.config.save_pretrained(folder)
    text.reader.save(folder)
    settings = _settings(image)
    preprocess = {
        "size": list(settings["input_size"][1:]),
        "interpolation": settings["interpolation"],
        "mean": list(settings["mean"]),
        "std": list(settings["std"]),
        "resize_mode": RESIZE_MODES[settings["crop_mode"]],
    }
    told = text.origin.preset
    model_cfg = {
        "embed_dim": text.dim,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": image_core.pretrained_cfg["architecture"],
            "timm_pool": "",
            "image_size": preprocess["size"],
        },
        "text_cfg": {
            "hf_model_name": ".",
            "hf_model_pretrained": False,
            "hf_tokenizer_name": told.hub or ".",  # for hf-hub; read from a local folder anyway
            "hf_proj_type": "linear",
            "hf_pooler_type": POOLERS[told.pooling],
            "context_length": text.trunk.max_length,
            "vocab_size": text_core.config.vocab_size,
        },
    }
    if bias is not None:
        model_cfg["init_logit_bias"] = bias
    write_json(
        folder / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    )
    weights = {
        **_named("visual.trunk", image_core),
        **_named("visual.head.proj", image.projection),
        **_named("text.transformer", text_core),
        **_named("text.proj", text.projection),
        "logit_scale": torch.tensor(math.log(1 / temperature)),
        **({} if bias is None else {"logit_bias": torch.tensor(bias)}),
    }
    kept = {
        name: value.contiguous()
        for name, value in weights.items()
        if not name.startswith("text.transformer.pooler.")  # open_clip pools by itself
    }
    save_file(kept, folder / "open_clip_model.safetensors")
    load_clip(folder, torch.device("cpu"))  # fails where anything is missing or does not fit


def place_open_clip(folder: Path, place: Path) -> None:
    """Tell open_clip where a folder will lie, if it is one whose text model is of transformers.

    transformers reads the shape of that model from the place its config names, as seen from the
    current directory: only an absolute path is found from any. mmalign asks for no such name.

    Args:
        folder: As it was written.
        place: Where it is read.
    """
    path = folder / "open_clip_config.json"
    config = read_json(path)
    text = config.get("model_cfg", {}).get("text_cfg", {})
    if "hf_model_name" in text and (folder / "config.json").is_file():
        text["hf_model_name"] = str(place.resolve())
        write_json(path, config)


def _settings(image: Tower) -> dict[str, Any]:
    return timm_settings(core_of(image.trunk), image.origin.preset.preprocess)


def _is_plain(projection: nn.Sequential | None) -> bool:
    if projection is None or len(projection) != 2:
        return False
    return projection[0].bias is None and isinstance(projection[1], nn.Identity)


def _named(place: str, module: nn.Module | None) -> dict[str, torch.Tensor]:
    assert module is not None
    if isinstance(module, nn.Sequential):  # a projection, see _is_plain
        module = module[0]
    return {f"{place}.{name}": value.detach() for name, value in module.state_dict().items()}
