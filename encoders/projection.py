"""Layers that a model folder puts on a tower's rows, in the format of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from mmalign.encoders.folders import dense_folders, read_json
from mmalign.encoders.runtime import read_weights
from mmalign.errors import EncoderError

__all__ = ["Projection", "read_projection", "write_projection"]

_ACTIVATIONS = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in (nn.Identity, nn.Tanh, nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid)
}


class Projection(nn.Sequential):
    """Linear maps, each followed by its activation: ``[B, D]`` to ``[B, D']``."""

    @property
    def dim(self) -> int:
        """Length of an output row."""
        last = self[-2]
        assert isinstance(last, nn.Linear)
        return last.out_features


def read_projection(folder: Path) -> Projection | None:
    """Read the dense layers of a folder: linear maps, each with its activation.

    Args:
        folder: A model folder of any library, or one of an adapter.

    Returns:
        ``[B, D]`` to ``[B, D']``, frozen; None when the folder has no such layers.

    Raises:
        EncoderError: They cannot be computed here as sentence-transformers would.
    """
    layers = [_read_dense(path) for path in dense_folders(folder)]
    if not layers:
        return None
    return Projection(*(part for layer in layers for part in layer)).requires_grad_(False)


def write_projection(folder: Path, projection: Projection) -> list[str]:
    """Write dense layers from ``2_Dense`` on, where pooling is the layer before.

    Returns:
        Names of the folders written.
    """
    from safetensors.torch import save_file

    names: list[str] = []
    parts = list(projection)
    for linear, activation in zip(parts[::2], parts[1::2], strict=True):
        assert isinstance(linear, nn.Linear)
        path = folder / f"{len(names) + 2}_Dense"
        path.mkdir()
        kind = type(activation)
        config = {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{kind.__module__}.{kind.__qualname__}",
        }
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {f"linear.{k}": v.detach().cpu() for k, v in linear.state_dict().items()}
        save_file(weights, path / "model.safetensors")
        names.append(path.name)
    return names


def _read_dense(path: Path) -> tuple[nn.Linear, nn.Module]:
    config = read_json(path / "config.json")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    keys = ("module_input_name", "module_output_name")
    elsewhere = any(config.get(key) not in (None, "sentence_embedding") for key in keys)
    if activation not in _ACTIVATIONS or elsewhere or config.get("use_residual"):
        raise EncoderError(
            f"the dense layer {path} does what mmalign does not know",
            got=activation,
            fix=f"only a linear map of the pooled row with one of {', '.join(_ACTIVATIONS)}",
        )
    files = [f for f in (path / "model.safetensors", path / "pytorch_model.bin") if f.is_file()]
    if not files:
        raise EncoderError(f"the dense layer {path} has no weights", fix="fetch the model again")
    weights = read_weights(files[0])
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    linear.load_state_dict({k.removeprefix("linear."): v for k, v in weights.items()})
    return linear.to(torch.float32), _ACTIVATIONS[activation]()
