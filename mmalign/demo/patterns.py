"""The style of a product: a palette of four colours and a pattern that is filled with them."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["PALETTES", "PATTERNS", "Colour", "fill", "vary"]

Colour = tuple[int, int, int]
Plane = NDArray[np.floating[Any]]
Numbers = NDArray[np.uint8]

PALETTES: dict[str, tuple[str, str, str, str]] = {
    "coast": ("#f3efe4", "#1d4e79", "#6fb1c9", "#e07a4b"),
    "forest": ("#dcd6b4", "#2f4a36", "#8aa66b", "#b5722e"),
    "sunset": ("#fbe0a8", "#d9483b", "#f6a04d", "#7a2a5c"),
    "pastel": ("#fff4cf", "#f4b8c1", "#a9dcc8", "#bfb5ea"),
    "mono": ("#f1f1ef", "#1c1c1e", "#8c8d92", "#c9cacd"),
    "pop": ("#ffe12b", "#ff2f7e", "#14b8d4", "#1b1464"),
    "earth": ("#ead7bd", "#7d4a2d", "#c98a5b", "#3f2a20"),
    "berry": ("#e9a3c1", "#5b1a45", "#b83b78", "#2b1030"),
}
"""Name to four colours: ground, main motif, second motif, accent."""


def vary(colour: str, rng: np.random.Generator) -> Colour:
    """Shift a colour slightly, so that two products of a palette are kin rather than twins.

    Args:
        colour: ``#rrggbb``.
        rng: Source of the shift.
    """
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    hue = (hue + rng.normal(0, 0.012)) % 1
    light = float(np.clip(light + rng.normal(0, 0.025), 0, 1))
    saturation = float(np.clip(saturation * rng.normal(1, 0.08), 0, 1))
    r, g, b = colorsys.hls_to_rgb(hue, light, saturation)
    return round(r * 255), round(g * 255), round(b * 255)


def fill(pattern: str, colours: list[Colour], size: int, rng: np.random.Generator) -> Image.Image:
    """Fill a square with a pattern, at a slightly varied scale, angle and offset.

    Args:
        pattern: A key of ``PATTERNS``.
        colours: The four colours of a palette.
        size: Width and height in pixels.
        rng: Source of the variation.

    Returns:
        An RGB image of ``size`` by ``size`` pixels.
    """
    angle, cells = rng.normal(0, 0.06), rng.uniform(7.5, 10.5)
    shift_x, shift_y = rng.uniform(0, 12, 2)
    axis = np.linspace(-cells / 2, cells / 2, size, dtype=np.float32)
    along, aside = (axis * np.float32(np.cos(angle)), axis * np.float32(np.sin(angle)))
    x = (along + np.float32(shift_x))[None, :] - aside[:, None]
    y = aside[None, :] + (along + np.float32(shift_y))[:, None]
    sheet = Image.fromarray(PATTERNS[pattern](x, y, rng).astype(np.uint8), mode="P")
    sheet.putpalette([channel for colour in colours for channel in colour])
    return sheet.convert("RGB")


# Each pattern maps points, in cells, to the number of their colour; 0 is the ground.


def _plain(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    return np.ones(x.shape, dtype=np.uint8)


def _stripes(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    phase = _fraction(y / 2)
    return _choose((phase < 0.45, 1), (np.abs(phase - 0.71) < 0.06, 2))


def _checks(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    # Gingham: the second motif on each band, the main one where two bands cross.
    across, down = _fraction(x / 2) < 0.5, _fraction(y / 2) < 0.5
    return _choose((across & down, 1), (across | down, 2))


def _dots(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    odd_row = _fraction(y / 2) < 0.5
    dx, dy = _fraction(x + 0.5 * odd_row) - 0.5, _fraction(y) - 0.5
    return np.where(dx * dx + dy * dy < 0.1, np.where(odd_row, 2, 1), 0).astype(np.uint8)


def _waves(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    return _thirds(y * 0.4 + np.sin(1.8 * x) / 6)


def _chevrons(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    return _thirds(y * 0.43 + np.abs(_fraction(x / 2) - 0.5) * 0.93)


def _petals(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    x, y = x / 1.9, y / 1.9
    dx = _fraction(x) - 0.5
    dy = _fraction(y + 0.5 * (_fraction(x / 2) < 0.5)) - 0.5
    distance = np.hypot(dx, dy)
    petal = distance < 0.3 + 0.12 * np.cos(5 * np.arctan2(dy, dx))
    return _choose((distance < 0.11, 3), (petal, 1))


def _terrazzo(x: Plane, y: Plane, rng: np.random.Generator) -> Numbers:
    chips, size = 120, x.shape[0]
    angles = np.sort(rng.uniform(0, 2 * np.pi, (chips, 5)), axis=1)
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    corners = (
        rng.uniform(0, size, (chips, 1, 2)) + rng.uniform(0.022, 0.05, (chips, 1, 1)) * size * rays
    )
    sheet = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(sheet)
    for number, chip in enumerate(corners.reshape(chips, -1).tolist()):
        draw.polygon(chip, fill=1 + number % 3)
    return np.asarray(sheet)


def _fraction(values: Plane) -> Plane:
    return values - np.floor(values)  # several times faster than % 1


def _thirds(values: Plane) -> Numbers:
    return (_fraction(values) * 2.999).astype(np.uint8)


def _choose(*choices: tuple[NDArray[np.bool_], int]) -> Numbers:
    """Number each point by the first condition it meets, else 0."""
    numbers = np.zeros(choices[0][0].shape, dtype=np.uint8)
    for condition, number in reversed(choices):
        numbers[condition] = number
    return numbers


PATTERNS: dict[str, Callable[[Plane, Plane, np.random.Generator], Numbers]] = {
    "plain": _plain,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "waves": _waves,
    "chevrons": _chevrons,
    "petals": _petals,
    "terrazzo": _terrazzo,
}
"""Name to the function that numbers the colour of every point."""
