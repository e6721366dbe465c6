"""Mild changes of a catalogue picture, drawn anew each time it is seen in training."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageEnhance, ImageOps

__all__ = ["augment"]

AREA = (0.6, 1.0)
"""Share of the picture that a crop keeps."""
STRETCH = (0.86, 1.16)
"""Width by height of a crop, relative to that of the picture."""
JITTER = (0.85, 1.15)
"""Factor on brightness, contrast and saturation."""


def augment(image: Image.Image, seed: int) -> Image.Image:
    """Crop a little, mirror half of the time, and change the light.

    It comes before the model's own preprocessing, whatever library that is of, so that size,
    scaling and interpolation are those of evaluation. A crop has the shape of its picture: the
    libraries' training transforms cut all pictures to one shape, and so would show a poster
    undistorted that evaluation squashes to a square.

    Args:
        image: An RGB picture.
        seed: Decides all that is drawn, so that threads may run in any order.

    Example:
        >>> picture = Image.new("RGB", (60, 80), "red")
        >>> augment(picture, seed=1).size
        (51, 61)
    """
    generator = random.Random(seed)
    image = _crop(image, generator)
    if generator.random() < 0.5:
        image = ImageOps.mirror(image)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(generator.uniform(*JITTER))
    return image


def _crop(image: Image.Image, generator: random.Random) -> Image.Image:
    area = generator.uniform(*AREA)
    stretch = math.exp(generator.uniform(*map(math.log, STRETCH)))
    width = max(1, min(image.width, round(image.width * math.sqrt(area * stretch))))
    height = max(1, min(image.height, round(image.height * math.sqrt(area / stretch))))
    left = generator.randint(0, image.width - width)
    top = generator.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))
