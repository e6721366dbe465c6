"""Opening pictures: any file becomes an upright RGB image, or one line that says why not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmalign.interfaces import Media

__all__ = ["DECODING", "MAX_ASPECT", "MAX_PIXELS", "BrokenImageError", "open_image"]

DECODING = 2
"""Raised with every change of how a picture is opened: fingerprints of encoders count it."""
MAX_PIXELS = 89_478_485
"""Pixels beyond which a picture is refused unread: 256 MiB of RGB, as Pillow bounds it."""
MAX_ASPECT = 100
"""Longest side per shortest: beyond it, scaling the shortest side up would fill the memory."""

WHITES = {"I": (255, 65_535), "F": (1, 255, 65_535)}
"""What white may be in pictures of integers and of fractions: the first that none exceeds."""


class BrokenImageError(Exception):
    """A picture that cannot be used; the text is for the report."""


def open_image(value: Media) -> Image.Image:
    """Decode one picture.

    The camera's rotation tag is applied, transparency is laid on white, and palettes, grey (of 16
    bits, or of numbers up to 1, 255 or 65,535, too) and CMYK become RGB. Of an animation the first
    frame is taken.

    Args:
        value: A path, or the bytes of a file.

    Raises:
        BrokenImageError: The file is missing, damaged, cut short, too large to be read safely, or
            of numbers of which none can be white.
    """
    try:
        source = io.BytesIO(value) if isinstance(value, bytes) else Path(value)
        with Image.open(source) as image:
            _check_size(*image.size)
            return _upright_rgb(image)
    except BrokenImageError:
        raise
    except FileNotFoundError:
        raise BrokenImageError(f"file not found: {value!s}") from None
    except Image.DecompressionBombError:
        raise BrokenImageError("too many pixels: perhaps a decompression bomb") from None
    except UnidentifiedImageError:
        raise BrokenImageError("not a picture, or of an unknown format") from None
    except Exception as error:  # format plugins raise anything on damaged files
        reason = " ".join(str(error).split()) or "no reason given"
        raise BrokenImageError(
            f"cannot be decoded: {type(error).__name__}: {reason}"[:200]
        ) from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BrokenImageError(
            f"too many pixels ({width} x {height}): perhaps a decompression bomb"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BrokenImageError(f"too narrow ({width} x {height})")


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey numbers to what Pillow takes for black to white; it would cut them off at 255."""
    grey = np.asarray(image, np.float64)
    whites = (65_535,) if image.mode.startswith("I;16") else WHITES[image.mode]
    white = next((white for white in whites if grey.max() <= white), None)
    if white is None or not grey.min() >= 0:
        raise BrokenImageError(f"grey from {grey.min():g} to {grey.max():g}: save it with 8 bits")
    return Image.fromarray((grey * (255 / white)).round().astype(np.uint8))
