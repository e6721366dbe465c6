"""Image towers of transformers and timm, each with the model's own preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmalign.encoders.runtime import quiet_transformers, require
from mmalign.errors import EncoderError

if TYPE_CHECKING:
    from mmalign.encoders.resolve import Source

__all__ = ["timm_image", "transformers_image"]

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
    """
    transformers = require("transformers", "transformers")
    with quiet_transformers():
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, **preprocess
        )
        model = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, weights_only=True, dtype=torch.float32
        )

    def transform(image: Any) -> torch.Tensor:
        pixels: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    tower = _Pooled(model, pooling).to(device).eval().requires_grad_(False)
    return tower, transform


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
        EncoderError: A bare weights file does not fit the architecture.
    """
    timm = require("timm", "timm")
    data = require("timm.data", "timm")
    if source.package is None:
        model = timm.create_model(f"local-dir:{source.folder}", pretrained=True, num_classes=0)
    else:
        model = timm.create_model(architecture, pretrained=False)
        weights = _read_weights(source.weights[0])
        model.load_state_dict(_in_order(weights, model) if source.package.by_order else weights)
        model.reset_classifier(0)
    own = data.resolve_model_data_config(model)
    settings = {key: own[key] for key in ("input_size", "mean", "std", "interpolation")}
    settings |= {key: own[key] for key in ("crop_pct", "crop_mode") if key in own}
    transform = data.create_transform(**{**settings, **preprocess}, is_training=False)
    return model.to(device).eval().requires_grad_(False), transform


class _Pooled(torch.nn.Module):
    """Pixels to one row, whatever shape the model's output has."""

    def __init__(self, model: torch.nn.Module, pooling: str) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]`` to ``[B, D]``."""
        if hasattr(self.model, "get_image_features"):
            return _pooled(self.model.get_image_features(pixel_values=pixels))  # type: ignore[operator]
        output = self.model(pixel_values=pixels)
        if self.pooling == "pooler":
            return _pooled(output)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden[:, 0] if self.pooling == "cls" else hidden.mean(dim=1)


def _pooled(output: Any) -> torch.Tensor:
    pooled: torch.Tensor = output.pooler_output
    return pooled


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


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
