"""Image encoders: pictures are decoded in threads while the model runs the batch before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image

from mmalign.encoders.adapter import merge_adapter
from mmalign.encoders.projection import read_projection
from mmalign.encoders.runtime import Rows, cpu_count, preprocessing, run
from mmalign.errors import EncoderError
from mmalign.interfaces import Encoded, Media
from mmalign.pictures import BrokenImageError, open_image

if TYPE_CHECKING:
    from mmalign.encoders.presets import PresetConfig
    from mmalign.encoders.resolve import Source

__all__ = [
    "MAX_WORKERS",
    "ImageEncoder",
    "Transform",
    "average_views",
    "load_image_tower",
    "read_pixels",
    "stack_pixels",
]

Transform = Callable[[Any], torch.Tensor]

MAX_WORKERS = 8
"""Threads that decode pictures, on a machine that has as many processors."""
CENTRE = 0.85
"""Share of width and height that is left of a picture without its margins."""
_BATCHES_AHEAD = 2  # enough to keep the model busy; bounds the memory of decoded pictures


class ImageEncoder:
    """A frozen image encoder.

    Args:
        tower: ``[B, 3, H, W]`` to ``[B, D]``.
        transform: A PIL image to ``[3, H, W]``.
        device: Where the tower is.
        fingerprint: Digest of all that decides the output.
        batch_size: Pictures per forward pass.
        normalize: Whether rows are scaled to unit length.
        test_views: Of each picture, whose rows are averaged; see :func:`average_views`.
    """

    modality = "image"

    def __init__(
        self,
        tower: torch.nn.Module,
        transform: Callable[[Any], torch.Tensor],
        device: torch.device,
        *,
        fingerprint: str,
        batch_size: int = 64,
        normalize: bool = False,
        test_views: int = 1,
    ) -> None:
        self.fingerprint = fingerprint
        self.batch_size = batch_size
        self.normalize = normalize
        self._tower = tower if test_views == 1 else partial(average_views, tower, count=test_views)
        self._transform = transform
        self._device = device
        self.dim = self._measure_dim()

    @classmethod
    def load(
        cls, preset: PresetConfig, source: Source, fingerprint: str, device: torch.device
    ) -> ImageEncoder:
        """Load the tower a preset asks for from files that are there."""
        tower, transform = load_image_tower(preset, source, device)
        projection = read_projection(source.projection)
        if projection is not None:
            tower = torch.nn.Sequential(tower, projection.to(device))
        return cls(
            tower,
            transform,
            device,
            fingerprint=fingerprint,
            batch_size=preset.batch_size,
            normalize=preset.normalize,
            test_views=preset.test_views,
        )

    def encode(self, values: Sequence[Media]) -> Encoded:
        """Encode pictures (paths or bytes); a broken one fails alone.

        Shapes:
            values: ``B`` pictures.
            returns: ``[B, D]`` in the same order.
        """
        rows = Rows(len(values), self.dim, normalize=self.normalize)
        for start, batch in self._decoded(values):
            good = {i: item for i, item in enumerate(batch) if isinstance(item, torch.Tensor)}
            for i, item in enumerate(batch):
                if isinstance(item, str):
                    rows.problems[start + i] = item
            if good:
                pixels = stack_pixels(list(good.values()))
                rows.put([start + i for i in good], self._run(pixels))
        return rows.encoded()

    def _decoded(self, values: Sequence[Media]) -> Iterator[tuple[int, list[torch.Tensor | str]]]:
        """Batches of pixels, or of the reasons why there are none."""
        ahead: deque[tuple[int, list[Future[torch.Tensor | str]]]] = deque()
        with ThreadPoolExecutor(min(cpu_count(), MAX_WORKERS), "mmalign-decode") as pool:
            for start in range(0, len(values), self.batch_size):
                batch = values[start : start + self.batch_size]
                ahead.append(
                    (start, [pool.submit(read_pixels, value, self._transform) for value in batch])
                )
                if len(ahead) > _BATCHES_AHEAD:
                    first, futures = ahead.popleft()
                    yield first, [future.result() for future in futures]
            while ahead:
                first, futures = ahead.popleft()
                yield first, [future.result() for future in futures]

    def _run(self, pixels: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = run(self._tower, pixels.to(self._device, non_blocking=True))
        return output

    def _measure_dim(self) -> int:
        pixels = self._transform(Image.new("RGB", (64, 64)))
        return int(self._run(pixels.unsqueeze(0)).shape[1])


def read_pixels(value: Media, transform: Transform) -> torch.Tensor | str:
    """Decode a picture and make ``[3, H, W]`` of it, or say in one line why there is none."""
    try:
        return transform(open_image(value))
    except BrokenImageError as error:
        return str(error)


def stack_pixels(pictures: list[torch.Tensor]) -> torch.Tensor:
    """Make one batch, ``[B, 3, H, W]``.

    Raises:
        EncoderError: The pictures differ in shape.
    """
    shapes = sorted({tuple(pixels.shape) for pixels in pictures})
    if len(shapes) > 1:
        raise EncoderError(
            "preprocessing leaves pictures of different shapes",
            got=f"{shapes[0]}, {shapes[1]}",
            fix="let the preset's preprocess crop or squash them to one size",
        )
    return torch.stack(pictures)


def average_views(
    tower: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, count: int
) -> torch.Tensor:
    """Mean of the rows of several views of each picture (Krizhevsky et al. 2012, section 4.1).

    Args:
        tower: Pixels to rows.
        pixels: What the model's own preprocessing made.
        count: 1 is the picture, 2 adds its mirror image, 4 adds both with their margins cut off.

    Shapes:
        pixels: ``[B, 3, H, W]``; returns: ``[B, D]``.
    """
    views = [pixels] if count < 4 else [pixels, _without_margins(pixels)]
    if count > 1:
        views += [view.flip(-1) for view in views]
    return torch.stack([tower(view) for view in views]).mean(dim=0)


def _without_margins(pixels: torch.Tensor) -> torch.Tensor:
    """The middle of pictures, as large as they were."""
    height, width = pixels.shape[2:]
    tall, wide = round(height * CENTRE), round(width * CENTRE)
    top, left = (height - tall) // 2, (width - wide) // 2
    middle = pixels[:, :, top : top + tall, left : left + wide]
    return F.interpolate(middle, size=(height, width), mode="bilinear", align_corners=False)


def load_image_tower(
    preset: PresetConfig, source: Source, device: torch.device
) -> tuple[torch.nn.Module, Transform]:
    """Load the image model of a preset, frozen, with its adapter but without its projection."""
    if preset.library == "open_clip":
        from mmalign.encoders.clip import clip_image

        tower, transform = clip_image(source.folder, device, preset.preprocess)
    elif preset.library == "transformers":
        from mmalign.encoders.vision import transformers_image

        tower, transform = transformers_image(
            source.folder, device, pooling=preset.pooling, preprocess=preset.preprocess
        )
    else:
        from mmalign.encoders.vision import timm_image

        tower, transform = timm_image(
            source, device, architecture=preset.architecture, preprocess=preset.preprocess
        )
    if source.adapter is not None:
        merge_adapter(tower, source.adapter)
    with preprocessing(preset.preprocess):
        transform(Image.new("RGB", (64, 64)))
    return tower, transform
