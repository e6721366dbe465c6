"""The towers of a CLIP-like model, loaded with open_clip from a local folder.

A folder holds ``open_clip_config.json``, the weights and, where the config names a Hugging Face
tokenizer, the tokenizer's files. Both towers of a model put their rows into one space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from mmalign.encoders.folders import read_json
from mmalign.encoders.runtime import check_known, preprocessing, quiet_transformers, require, run

__all__ = ["ClipText", "clip_image", "load_clip", "text_model_types"]


class ClipText(torch.nn.Module):
    """The text tower of an open_clip model.

    Texts are padded to the model's fixed context, as in its training; the context also bounds
    their length, so a preset's ``max_length`` and ``pooling`` play no part.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        super().__init__()
        open_clip, model = load_clip(folder, device)
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self._model = model
        del self._model.visual  # the other tower only takes memory
        self._device = device
        self._context = int(self._tokenizer.context_length)
        self.dim = int(self.embed(self.tokenize(["a"])[0]).shape[1])

    @property
    def core(self) -> torch.nn.Module:
        """The model of the library, less its image tower."""
        model: torch.nn.Module = self._model
        return model

    def tokenize(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """Return rows of the context's length; a row without padding may have been cut."""
        tokens: list[list[int]] = self._tokenizer(texts).tolist()
        padding = self._tokenizer([""])[0, -1].item()
        full = [t for t, ids in zip(texts, tokens, strict=True) if ids[-1] != padding]
        return tokens, sum(self._length(text) > self._context for text in full)

    def pad(self, tokens: list[list[int]]) -> torch.Tensor:
        """Stack rows, which are of one length: what ``forward`` takes, on the CPU."""
        return torch.tensor(tokens)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``[B, T]`` token ids to ``[B, D]``."""
        output: torch.Tensor = self._model.encode_text(inputs)
        return output

    def embed(self, tokens: list[list[int]]) -> torch.Tensor:
        """Run one batch without gradients."""
        output: torch.Tensor = run(self, self.pad(tokens).to(self._device))
        return output

    def _length(self, text: str) -> int:
        if hasattr(self._tokenizer, "encode"):  # open_clip's own byte-pair tokenizer
            return len(self._tokenizer.encode(text)) + 2
        clean = self._tokenizer.clean_fn(text)
        return len(self._tokenizer.tokenizer(clean, verbose=False)["input_ids"])


def clip_image(
    folder: Path, device: torch.device, preprocess: dict[str, Any]
) -> tuple[torch.nn.Module, Callable[[Any], torch.Tensor]]:
    """Load the image tower of an open_clip model and its own preprocessing.

    Args:
        folder: An open_clip model folder.
        device: Where to run.
        preprocess: Overrides of open_clip's ``PreprocessCfg``.

    Raises:
        EncoderError: It has no such setting.
    """
    _, model = load_clip(folder, device)
    transform = require("open_clip.transform", "open_clip_torch")
    check_known(preprocess, (f.name for f in fields(transform.PreprocessCfg)))
    with preprocessing(preprocess):
        config = transform.PreprocessCfg(**{**model.visual.preprocess_cfg, **preprocess})
        return model.visual, transform.image_transform_v2(config, is_train=False)


def text_model_types() -> set[str]:
    """Kinds of transformers models that open_clip can take as a text tower."""
    return set(require("open_clip.hf_configs", "open_clip_torch").arch_dict)


def load_clip(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """Load open_clip and a model of both towers from a local folder, frozen.

    The shape of a text model of transformers is read from the folder, not from the hub.
    """
    open_clip = require("open_clip", "open_clip_torch")
    text = read_json(folder / "open_clip_config.json").get("model_cfg", {}).get("text_cfg", {})
    more = {}
    if "hf_model_name" in text and (folder / "config.json").is_file():
        more["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    with quiet_transformers():
        model = open_clip.create_model(
            f"local-dir:{folder}",
            device=device,
            weights_only=True,
            **more,
        )
    return open_clip, model.eval().requires_grad_(False)
