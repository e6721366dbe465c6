"""Adapters: a folder with what LoRA added to a base encoder, merged into it on loading."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mmalign.encoders.folders import ADAPTER_FILES, OWN_PROJECTION
from mmalign.encoders.runtime import read_weights, require
from mmalign.errors import EncoderError, in_one_line

__all__ = ["core_of", "merge_adapter"]


def core_of(tower: nn.Module) -> nn.Module:
    """The module of the library inside a tower: what its own loaders and peft know."""
    core = getattr(tower, "core", tower)
    assert isinstance(core, nn.Module)
    return core


def merge_adapter(tower: nn.Module, folder: Path) -> None:
    """Add an adapter's products to the weights of its base, in place.

    Args:
        tower: The base, as it was when the adapter was made.
        folder: ``adapter_config.json``, ``adapter_model.safetensors``, perhaps a projection.

    Raises:
        EncoderError: The folder is not complete, or its files cannot be read.
        MissingDependencyError: peft is not installed.
    """
    peft = require("peft", '"mmalign[finetune]"')
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise EncoderError("an adapter is not complete", got=f"{folder} has no {name}")
    core = core_of(tower)
    try:
        if (folder / OWN_PROJECTION).is_file():
            core.load_state_dict(core.state_dict() | read_weights(folder / OWN_PROJECTION))
        peft.PeftModel.from_pretrained(core, folder).merge_and_unload()
    except Exception as error:  # peft, safetensors and torch share no base class of errors
        raise EncoderError(
            f"cannot merge the adapter in {folder} into its base",
            got=in_one_line(error),
            fix="its files are damaged: tune again, or bring them back",
        ) from error
    tower.eval().requires_grad_(False)
