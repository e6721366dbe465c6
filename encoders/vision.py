"""Image towers of transformers and timm, each with the model's own preprocessing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmalign.encoders.runtime import (
    check_known,
    preprocessing,
    quiet_transformers,
    read_weights,
    require,
)
from mmalign.errors import EncoderError

if TYPE_CHECKING:
    from mmalign.encoders.resolve import Source

__all__ = ["Processed", "Transform", "timm_image", "timm_settings", "transformers_image"]

Transform = Callable[[Any], torch.Tensor]


def transformers_image(
    folder: Path, device: torch.device, *, pooling: str, preprocess: dict[str, Any]
) -> tuple[torch.nn.Module, Transform]:
    """Load a transformers vision model, or the image side of a two-tower one.

    Args:
        folder: Holds the model and ``preprocessor_config.json``.
        device: Where to run.
        pooling: ``cls`` for the first token, ``mean`` over all tokens, ``pooler`` for the model's
            own; a two-tower model always gives its shared-space features.
        preprocess: Overrides of the image processor's settings.

    Raises:
        EncoderError: It has no such setting.
    """
    transformers = require("transformers", "transformers")
    with quiet_transformers():
        load = partial(transformers.AutoImageProcessor.from_pretrained, local_files_only=True)
        processor = load(folder)
        if preprocess:
            runtime = getattr(getattr(processor, "valid_kwargs", None), "__annotations__", {})
            check_known(preprocess, {*processor.to_dict(), *runtime})
            with preprocessing(preprocess):
                processor = load(folder, **preprocess)
        model = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, weights_only=True, dtype=torch.float32
        )

    tower = _Pooled(model, pooling).to(device).eval().requires_grad_(False)
    return tower, Processed(processor)


def timm_image(
    source: Source, device: torch.device, *, architecture: str | None, preprocess: dict[str, Any]
) -> tuple[torch.nn.Module, Transform]:
    """Load a timm model without its classifier.

    Args:
        source: A timm folder (``config.json`` and weights), or a package's bare weights file.
        device: Where to run.
        architecture: timm's model name, needed for a bare weights file.
        preprocess: Overrides of ``timm.data.create_transform``.

    Raises:
        EncoderError: A bare weights file does not fit the architecture, or timm has no such
            setting.
    """
    timm = require("timm", "timm")
    data = require("timm.data", "timm")
    if source.package is None:
        model = timm.create_model(f"local-dir:{source.folder}", pretrained=True, num_classes=0)
    else:
        model = timm.create_model(architecture, pretrained=False)
        weights = read_weights(source.weights[0])
        model.load_state_dict(_in_order(weights, model) if source.package.by_order else weights)
        model.reset_classifier(0)
    check_known(preprocess, inspect.signature(data.create_transform).parameters)
    with preprocessing(preprocess):
        transform = data.create_transform(**timm_settings(model, preprocess), is_training=False)
    return model.to(device).eval().requires_grad_(False), transform


def timm_settings(model: torch.nn.Module, preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``timm.data.create_transform`` for a model, with overrides."""
    own = require("timm.data", "timm").resolve_model_data_config(model)
    settings = {key: own[key] for key in ("input_size", "mean", "std", "interpolation")}
    settings |= {key: own[key] for key in ("crop_pct", "crop_mode") if key in own}
    settings = {**settings, **preprocess}
    size = settings["input_size"]
    if not isinstance(size, list | tuple) or len(size) != 3:
        raise EncoderError(
            "input_size of a timm model has three numbers", got=size, fix="set [3, height, width]"
        )
    return settings


class Processed:
    """An image processor of transformers as a transform of one picture."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Any) -> torch.Tensor:
        """A PIL image to ``[3, H, W]``."""
        pixels: torch.Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels


class _Pooled(torch.nn.Module):
    """Pixels to one row, whatever shape the model's output has."""

    def __init__(self, model: torch.nn.Module, pooling: str) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    @property
    def core(self) -> torch.nn.Module:
        """The model of the library."""
        return self.model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]`` to ``[B, D]``."""
        read: Any = getattr(self.model, "get_image_features", None)
        if read is not None:
            return _pooled(read(pixel_values=pixels))
        output = self.model(pixel_values=pixels)
        if self.pooling == "pooler":
            return _pooled(output)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden[:, 0] if self.pooling == "cls" else hidden.mean(dim=1)


def _pooled(output: Any) -> torch.Tensor:
    pooled: torch.Tensor = output.pooler_output
    return pooled


def _in_order(weights: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Give tensors the model's names by position, after checking every shape."""
    own = model.state_dict()
    shapes = [tuple(tensor.shape) for tensor in weights.values()]
    if shapes != [tuple(tensor.shape) for tensor in own.values()]:
        raise EncoderError(
            "the weights do not fit the architecture in order and shape",
            got=f"{len(shapes)} tensors for {len(own)}",
            fix="correct architecture in the preset",
        )
    return dict(zip(own, weights.values(), strict=True))
