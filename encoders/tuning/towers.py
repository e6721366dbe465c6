"""A tower in training: an encoder's own model, what a mode trains of it, a projection on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmalign.encoders.adapter import core_of
from mmalign.encoders.image import average_views, load_image_tower
from mmalign.encoders.presets import (
    PresetConfig,
    available_presets,
    find_encoder,
    loading,
    read_preset,
)
from mmalign.encoders.projection import Projection, read_projection
from mmalign.encoders.resolve import Source
from mmalign.encoders.runtime import pick_device
from mmalign.encoders.text import load_text_tower
from mmalign.encoders.tuning.anatomy import Anatomy, examine
from mmalign.encoders.tuning.checkpointing import checkpoint_blocks
from mmalign.encoders.tuning.export import save_tower
from mmalign.encoders.tuning.lora import add_lora
from mmalign.encoders.tuning.modes import Tuning, own_projection, plan
from mmalign.encoders.tuning.readers import ImageReader, Reader, TextReader
from mmalign.encoders.tuning.split import Split
from mmalign.errors import ConfigError, EncoderError
from mmalign.interfaces import Media, TowerBatch

__all__ = ["Origin", "Tower", "load_tower", "open_tower"]


@dataclass(frozen=True)
class Origin:
    """Where a tower came from.

    Attributes:
        name: As it was asked for, with a path made absolute.
        preset: What decides its rows, overrides included.
        source: Its files.
        fingerprint: Of the encoder it started from, without overrides.
    """

    name: str
    preset: PresetConfig
    source: Source
    fingerprint: str


class Tower(nn.Module):
    """A content encoder with gradients; :func:`load_tower` makes one.

    Attributes:
        modality: ``text`` or ``image``.
        dim: Length of its rows.
        trunk: The pretrained part: inputs to ``[B, D]``.
        projection: Dense layers on top, or None.
        origin: Where the pretrained part came from.
        reader: Makes its batches.
        adapters: peft's model around the library's own module, in mode ``lora``.
        starts_anew: Whether the tower was given a new projection that is linear.
    """

    def __init__(
        self,
        trunk: nn.Module,
        reader: Reader,
        projection: Projection | None,
        *,
        origin: Origin,
        tuning: Tuning,
        device: torch.device,
        added: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self._added = len(added)
        self.starts_anew = bool(added) and not tuning.hidden
        self.modality = origin.preset.modality
        self.trunk = trunk
        self.projection = projection
        self.origin = origin
        self.adapters: Any
        self.reader = reader
        self._conv = sum(isinstance(m, nn.Conv2d) for m in trunk.modules()) > 1
        if self._conv:  # a third faster on a CPU
            trunk.to(memory_format=torch.channels_last)
        sample = _to(reader.sample(), device)
        anatomy = examine(trunk, sample)
        own = own_projection(core_of(trunk)) if origin.preset.library == "open_clip" else []
        self._plan = plan(trunk, anatomy, tuning, own)
        adapters = None
        if tuning.mode == "lora":
            adapters, self._plan = add_lora(trunk, sample, anatomy, tuning, self._plan.head)
        object.__setattr__(self, "adapters", adapters)  # its modules are those of the trunk
        self._plan.apply(trunk)
        if projection is not None:
            projection.requires_grad_(tuning.mode != "frozen")
        if tuning.checkpointing and tuning.mode not in ("frozen", "head"):
            units = self._plan.units
            checkpoint_blocks([b for b in anatomy.blocks if units is None or b in units])
        self.eval()
        self._split = self._parts(anatomy, sample) if tuning.views else None
        with torch.no_grad():
            self.dim = int(self(sample).shape[1])
        if tuning.mode == "head" and not self.trainable()["projection"]:
            raise ConfigError(
                "mode head trains a projection, and this tower has none",
                got=origin.name,
                fix="set dim, the width of a new one",
            )

    def collate(self, values: Sequence[Media], *, training: bool) -> TowerBatch:
        """Tokenize texts, or decode pictures and alter them a little in training.

        A value that cannot be read is left out alone, with its reason in ``problems``. What is
        drawn in training follows torch's global seed.
        """
        return self.reader.collate(values, training=training)

    def forward(self, inputs: Any) -> torch.Tensor:
        """Encode ``TowerBatch.inputs``: ``[B, D]``, not scaled to unit length.

        ``{"hidden": rows}`` goes on from what :meth:`lower` gave. Outside training the rows of
        several views of a picture are averaged, where the preset says so.
        """
        if inputs is None:  # nothing could be read
            return torch.zeros(0, self.dim, device=next(self.parameters()).device)
        is_plain = not (isinstance(inputs, dict) and "hidden" in inputs)
        if is_plain and not self.training and self.origin.preset.test_views != 1:
            return average_views(self._encode, inputs, self.origin.preset.test_views)
        return self._encode(inputs)

    def below_projection(self, inputs: Any) -> torch.Tensor:
        """Encode as far as a new projection, ``[B, D']``, each picture by itself."""
        was_training = self.training
        self.eval()
        rows = self._pooled(inputs)
        self.train(was_training)
        if self.projection is None:
            return rows
        before: torch.Tensor = self.projection[: len(self.projection) - self._added](rows)
        return before

    @torch.no_grad()
    def start_at(self, weight: torch.Tensor) -> None:
        """Set the first rows of the new projection, ``[D, D']``; what it has more is silenced.

        What is silenced is the picture's, so that each such direction still has a gradient.
        """
        assert self.projection is not None
        linear: Any = self.projection[-2]
        count = min(len(weight), len(linear.weight))
        linear.weight[:count] = weight[:count].to(linear.weight)
        if self.modality == "image":
            linear.weight[count:] = 0

    def lower(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run what is frozen below the first trained block, where ``views`` asks for it."""
        assert self._split is not None
        was_training = self.training
        self.eval()
        hidden = self._split.lower(self._laid_out(inputs.to(next(self.parameters()).device)))
        self.train(was_training)
        return hidden

    def _encode(self, inputs: Any) -> torch.Tensor:
        rows = self._pooled(inputs)
        return rows if self.projection is None else self.projection(rows)

    def _pooled(self, inputs: Any) -> torch.Tensor:
        rows: torch.Tensor
        if isinstance(inputs, dict) and "hidden" in inputs:
            assert self._split is not None
            rows = self._split.upper(self._laid_out(inputs["hidden"]))
        else:
            rows = self.trunk(self._laid_out(inputs) if self._conv else inputs)
        return rows

    def _laid_out(self, values: torch.Tensor) -> torch.Tensor:
        if self._conv and values.dim() == 4:
            return values.contiguous(memory_format=torch.channels_last)
        return values

    def _parts(self, anatomy: Anatomy, sample: torch.Tensor) -> Split:
        units, trained = self._plan.units, [*self._plan.trunk, *self._plan.whole, *self._plan.head]
        is_split = False
        if self.modality == "image" and units is not None:
            split = Split(self.trunk, next((b for b in anatomy.blocks if b in units), None), sample)
            is_split = True
            if trained:
                rows = split.upper(split.lower(sample)).sum()
                is_split = rows.requires_grad and all(
                    gradient is not None
                    for gradient in torch.autograd.grad(rows, trained, allow_unused=True)
                )
        if not is_split:
            raise ConfigError(
                "views are of pictures, for a tower whose lower part is frozen",
                got=f"{self.modality} tower {self.origin.name}",
                fix="set views: 0, or mode head, last_n, or lora with targets in upper blocks",
            )
        return split

    @property
    def fingerprint(self) -> str:
        """Of the encoder that it started from, without what tuning overrides."""
        return self.origin.fingerprint

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that the mode trains, in groups ``trunk``, ``whole`` and ``projection``."""
        head = [] if self.projection is None else list(self.projection.parameters())
        return {
            "trunk": list(self._plan.trunk),
            "whole": list(self._plan.whole),
            "projection": [p for p in (*self._plan.head, *head) if p.requires_grad],
        }

    def train(self, mode: bool = True) -> Tower:
        """Set what is trained to training; frozen dropout and batch norms stay in evaluation."""
        super().train(mode)
        if mode:
            self._plan.settle(self.trunk)
        return self

    def save_pretrained(self, folder: Path, *, merge: bool = True) -> None:
        """Write the tower as a folder that its own library and mmalign load.

        Args:
            folder: Replaced as a whole if it holds such a folder.
            merge: Whether LoRA's products are added to the weights; else they alone are written,
                for the encoder that the tower was loaded from. Other modes have nothing to merge.

        Raises:
            DataError: The folder cannot be written; what was there is as it was.
        """
        save_tower(self, Path(folder), merge=merge)


def load_tower(name_or_path: str | Path, tuning: Tuning, *, device: str = "cpu") -> Tower:
    """Load an encoder for training.

    Args:
        name_or_path: What :func:`mmalign.encoders.load_encoder` takes.
        tuning: What to train; ``dim`` puts a new projection on top, unless the encoder ends with
            one of that width already, which then is trained on.
        device: A torch device.

    Raises:
        ConfigError: The tower cannot be trained as asked.
        EncoderError: The weights were not found or cannot be loaded.
        MissingDependencyError: A library is not installed.
    """
    preset = read_preset(name_or_path)
    if preset.adapter is not None:
        raise EncoderError(
            "an adapter cannot be trained on",
            got=str(name_or_path),
            fix="write it with its base by mmalign.encoders.tuning.save_merged"
            f"({str(name_or_path)!r}, OUTPUT), and tune OUTPUT",
        )
    return open_tower(name_or_path, preset, tuning, device=device)


def open_tower(
    name_or_path: str | Path, preset: PresetConfig, tuning: Tuning, *, device: str = "cpu"
) -> Tower:
    """Load what a preset describes as :func:`load_tower` does, an adapter merged into its base."""
    source, fingerprint = find_encoder(preset)
    preset = replace(preset, preprocess={**preset.preprocess, **tuning.preprocess})
    if tuning.test_views is not None:
        preset = replace(preset, test_views=tuning.test_views)
    if tuning.max_length is not None:
        if preset.library == "open_clip":
            raise ConfigError(
                "an open_clip text tower reads as many tokens as its model's context has",
                got=f"max_length={tuning.max_length}",
                fix="leave max_length out",
            )
        preset = replace(preset, max_length=tuning.max_length)
    where = pick_device(device)
    with loading(preset, source):
        trunk: nn.Module
        reader: Reader
        if preset.modality == "text":
            trunk = text = load_text_tower(preset, source, where)
            reader = TextReader(text, preset.prefix, preset.suffix)
        else:
            trunk, transform = load_image_tower(preset, source, where)
            reader = ImageReader(transform)
        projection = read_projection(source.projection)
        width = _width(trunk, reader, projection, where)
    origin = Origin(
        preset.name
        if str(name_or_path) in available_presets()
        else str(Path(name_or_path).resolve()),
        preset,
        source,
        fingerprint,
    )
    added = _added(projection, width, preset, tuning)
    if added:
        projection = Projection(*(projection or ()), *added)
    if projection is not None:
        projection = projection.to(where)
    return Tower(
        trunk,
        reader,
        projection,
        origin=origin,
        tuning=tuning,
        device=where,
        added=added,
    )


def _width(
    trunk: nn.Module, reader: Reader, projection: Projection | None, device: torch.device
) -> int:
    if projection is not None:
        return projection.dim
    with torch.no_grad():
        return int(trunk(_to(reader.sample(), device)).shape[1])


def _added(
    projection: Projection | None, width: int, preset: PresetConfig, tuning: Tuning
) -> list[nn.Module]:
    """Layers of a new projection on top of all that is there, none where none is asked for."""
    if preset.library == "open_clip":
        if tuning.dim not in (None, width) or tuning.hidden:
            raise ConfigError(
                "an open_clip tower projects into its own space",
                got=f"dim={tuning.dim}, hidden={tuning.hidden}",
                fix=f"set dim: null or {width}, and hidden: 0",
            )
        return []
    if tuning.dim is None or (projection is not None and tuning.dim == width):
        return []
    if tuning.mode == "frozen":
        raise ConfigError(
            "a frozen tower has no use for a new projection",
            got=f"dim={tuning.dim}",
            fix="set mode: head, or dim: null",
        )
    middle = tuning.hidden or width
    # Without a bias, as CLIP has it: open_clip's text models know none.
    new: list[nn.Module] = [nn.Linear(middle, tuning.dim, bias=False), nn.Identity()]
    return [nn.Linear(width, middle), nn.GELU(), *new] if tuning.hidden else new


def _to(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, dict):
        return {name: rows.to(device) for name, rows in inputs.items()}
    return inputs.to(device)
