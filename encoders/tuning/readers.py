"""From raw content to what a tower takes: the same as in the frozen encoder, plus augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image

from mmalign.encoders.image import MAX_WORKERS, Transform, read_pixels, stack_pixels
from mmalign.encoders.runtime import cpu_count
from mmalign.encoders.text import TransformersText, read_tokens
from mmalign.encoders.tuning.augment import augment
from mmalign.encoders.vision import Processed
from mmalign.interfaces import Media, TowerBatch

if TYPE_CHECKING:
    from mmalign.encoders.clip import ClipText

__all__ = ["ImageReader", "Reader", "TextReader"]


class Reader(Protocol):
    """Makes batches for one tower."""

    def collate(self, values: Sequence[Media], *, training: bool) -> TowerBatch:
        """Read the items that can be read."""
        ...

    def sample(self) -> Any:
        """Inputs of one item that is always at hand."""
        ...

    def save(self, folder: Path) -> None:
        """Write tokenizer or image processor as transformers does."""
        ...


class TextReader:
    """Tokenizes texts, each padded to the longest of its batch.

    Args:
        tower: Has the tokenizer.
        prefix: Put before every text.
        suffix: Put after every text.
    """

    def __init__(self, tower: TransformersText | ClipText, prefix: str, suffix: str) -> None:
        self._tower = tower
        self._prefix, self._suffix = prefix, suffix

    def collate(self, values: Sequence[Media], *, training: bool) -> TowerBatch:
        """Tokenize; training makes no difference."""
        read = read_tokens(self._tower, values, self._prefix, self._suffix)
        inputs = self._tower.pad(read.tokens) if read.tokens else None
        return TowerBatch(inputs, read.kept, read.problems)

    def sample(self) -> Any:
        """Tokens of a short text."""
        return self._tower.pad(self._tower.tokenize(["a"])[0])

    def save(self, folder: Path) -> None:
        """Write the tokenizer; that of open_clip comes with its model."""
        assert isinstance(self._tower, TransformersText)
        self._tower.tokenizer.save_pretrained(folder)


class ImageReader:
    """Decodes pictures in threads.

    Args:
        transform: The model's own preprocessing: a PIL image to ``[3, H, W]``.
    """

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def collate(self, values: Sequence[Media], *, training: bool) -> TowerBatch:
        """Decode, augment in training, and preprocess; a broken picture is left out alone."""
        # Drawn here and in order, so that a seed decides them whatever the threads do.
        seeds = torch.randint(2**62, (len(values),)).tolist() if training else [None] * len(values)
        # Not kept: a pool does not live on in the processes that data loaders fork.
        with ThreadPoolExecutor(min(cpu_count(), MAX_WORKERS), "mmalign-decode") as pool:
            read = list(pool.map(self._read, values, seeds))
        good = {i: pixels for i, pixels in enumerate(read) if isinstance(pixels, torch.Tensor)}
        problems = {i: reason for i, reason in enumerate(read) if isinstance(reason, str)}
        pixels = stack_pixels(list(good.values())) if good else None
        return TowerBatch(pixels, list(good), problems)

    def sample(self) -> torch.Tensor:
        """Pixels of a black picture."""
        return self._transform(Image.new("RGB", (64, 64))).unsqueeze(0)

    def save(self, folder: Path) -> None:
        """Write the image processor, overrides included; other libraries keep theirs in configs."""
        assert isinstance(self._transform, Processed)
        self._transform.processor.save_pretrained(folder)

    def _read(self, value: Media, seed: int | None) -> torch.Tensor | str:
        return read_pixels(value, self._transform if seed is None else partial(self._altered, seed))

    def _altered(self, seed: int, image: Image.Image) -> torch.Tensor:
        return self._transform(augment(image, seed))
