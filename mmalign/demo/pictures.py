"""Product pictures drawn with PIL: a silhouette filled with a pattern in the colours of a palette.

Only the pictures show a product's style; the texts never mention it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from mmalign.demo.patterns import PALETTES, Colour, fill, vary

__all__ = ["SILHOUETTES", "SIZE", "draw_product"]

SIZE = 160
"""Width and height of a picture in pixels."""

_CANVAS = 256  # drawn larger, then shrunk, which smooths all edges
_BACKDROPS = ("#f4f2ee", "#eceef0", "#e9e4dc", "#e4e8e6", "#f7f7f7", "#dfdcd8")
_BRASS: Colour = (178, 141, 79)
_WOOD: Colour = (176, 134, 92)
_STEEL: Colour = (72, 74, 80)


@dataclass(frozen=True)
class _Sheet:
    """Three layers on one canvas: things behind the body, the body's shape, things in front."""

    back: ImageDraw.ImageDraw
    body: ImageDraw.ImageDraw
    front: ImageDraw.ImageDraw
    colours: list[Colour]
    rng: np.random.Generator

    def about(self, value: float, spread: float) -> float:
        """Return a length near ``value``: products of a kind differ in proportion."""
        return float(self.rng.uniform(value - spread, value + spread))

    def shadow(self, left: float, right: float, bottom: float) -> None:
        """Ground the product on its backdrop."""
        for grow, tone in ((12, 214), (6, 200), (0, 184)):
            box = (left - grow, bottom - 5 - grow / 2, right + grow, bottom + 6 + grow / 2)
            self.back.ellipse(box, fill=(tone, tone - 2, tone - 5))


def draw_product(
    rng: np.random.Generator, *, category: str, palette: str, pattern: str
) -> Image.Image:
    """Draw one product.

    Args:
        rng: Source of the small differences between two products of the same style.
        category: A key of ``SILHOUETTES``.
        palette: A key of ``patterns.PALETTES``.
        pattern: A key of ``patterns.PATTERNS``.

    Returns:
        An RGB image of ``SIZE`` by ``SIZE`` pixels.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> draw_product(rng, category="mug", palette="coast", pattern="stripes").size
        (160, 160)
    """
    colours = [vary(colour, rng) for colour in PALETTES[palette]]
    cloth = fill(pattern, colours, _CANVAS, rng)
    backdrop = _BACKDROPS[int(rng.integers(len(_BACKDROPS)))]
    picture = Image.new("RGB", (_CANVAS, _CANVAS), backdrop)
    mask = Image.new("L", picture.size, 0)
    front = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    layers = (ImageDraw.Draw(picture), ImageDraw.Draw(mask), ImageDraw.Draw(front))
    is_round = SILHOUETTES[category](_Sheet(*layers, colours, rng))
    picture.paste(_shade(cloth, mask, is_round), mask=mask)
    picture.paste(front, mask=front)
    return picture.resize((SIZE, SIZE), Image.Resampling.HAMMING)


def _shade(cloth: Image.Image, body: Image.Image, is_round: bool) -> Image.Image:
    """Darken a round body towards its sides, a flat one gently downwards."""
    place = np.linspace(0, 1, _CANVAS)
    if is_round:
        left, _, right, _ = body.getbbox() or (0, 0, _CANVAS, _CANVAS)
        across = np.clip((place * _CANVAS - left) / (right - left), 0, 1)
        light = (1 - 0.8 * np.abs(across - 0.38) ** 1.8)[None, :]
    else:
        light = (1 - 0.12 * place)[:, None]
    shade = Image.fromarray((255 * light).astype(np.uint8)).resize(cloth.size)
    return ImageChops.multiply(cloth, shade.convert("RGB"))


# Each silhouette draws on the layers of a sheet and says whether the body is round.


def _mug(sheet: _Sheet) -> bool:
    half, top, bottom = sheet.about(56, 8), sheet.about(72, 12), 206.0
    left, right = 112 - half, 112 + half
    reach, dark = right + sheet.about(36, 6), _dark(sheet.colours[1])
    sheet.shadow(left, right, bottom)
    sheet.back.rounded_rectangle(
        (right - 30, top + 30, reach, bottom - 34), radius=25, outline=dark, width=15
    )
    sheet.body.rounded_rectangle((left, top - 20, right, bottom), radius=22, fill=255)
    sheet.body.rectangle((left, top - 20, right, top), fill=0)
    sheet.body.ellipse((left, top - 12, right, top + 12), fill=255)
    sheet.front.ellipse((left, top - 13, right, top + 13), fill=_light(sheet.colours[0]))
    sheet.front.ellipse((left + 6, top - 9, right - 6, top + 10), fill=_dark(sheet.colours[1], 0.4))
    return True


def _lamp(sheet: _Sheet) -> bool:
    upper, lower = sheet.about(36, 10), sheet.about(78, 10)
    top, edge, bottom = 34.0, sheet.about(134, 10), 222.0
    metal = _BRASS if sheet.rng.random() < 0.5 else _WOOD
    sheet.shadow(94, 162, bottom)
    sheet.back.rectangle((123, edge - 6, 133, bottom - 6), fill=metal)
    sheet.back.ellipse((88, bottom - 14, 168, bottom + 6), fill=_dark(metal, 0.8))
    sheet.back.ellipse((88, bottom - 18, 168, bottom + 2), fill=metal)
    sheet.body.polygon(
        [(128 - upper, top), (128 + upper, top), (128 + lower, edge), (128 - lower, edge)], fill=255
    )
    rim = _dark(sheet.colours[1], 0.7)
    sheet.front.line([(128 - lower, edge), (128 + lower, edge)], fill=rim, width=5)
    sheet.front.line([(128 - upper, top), (128 + upper, top)], fill=rim, width=4)
    return True


def _shirt(sheet: _Sheet) -> bool:
    half, hem, sleeve = sheet.about(52, 5), sheet.about(216, 8), sheet.about(108, 10)
    right_side = [(26, 44), (half, 52), (104, sleeve - 12), (84, sleeve + 22), (half, sleeve - 4)]
    corners = [(128 + x, y) for x, y in right_side] + [(128 + half, hem)]
    corners += [(256 - x, y) for x, y in reversed(corners)]
    sheet.body.polygon(corners, fill=255)
    sheet.body.ellipse((102, 22, 154, 66), fill=0)
    sheet.front.arc((101, 21, 155, 67), 10, 170, fill=_dark(sheet.colours[1]), width=5)
    seam = (*_dark(sheet.colours[1], 0.4), 110)
    for side in (128 - half, 128 + half):
        sheet.front.line([(side, sleeve - 4), (side, 62)], fill=seam, width=2)
    return False


def _poster(sheet: _Sheet) -> bool:
    half, top, bottom = sheet.about(68, 6), sheet.about(28, 5), sheet.about(226, 5)
    frame = (_STEEL, _WOOD, (245, 245, 243))[int(sheet.rng.integers(3))]
    box = (128 - half, top, 128 + half, bottom)
    sheet.back.rectangle((box[0] + 6, top + 8, box[2] + 6, bottom + 7), fill=(196, 193, 188))
    sheet.back.rectangle(box, fill=frame)
    sheet.back.rectangle(_inset(box, 6), fill=(252, 251, 248))
    margin = sheet.about(15, 5)
    sheet.body.rectangle(_inset(box, margin), fill=255)
    return False


def _cushion(sheet: _Sheet) -> bool:
    half, dent = sheet.about(82, 8), sheet.about(9, 4)
    steps = np.linspace(-1, 1, 25)
    bow = half - dent * (1 - steps**2)
    edge = [(s * half, -b) for s, b in zip(steps, bow, strict=True)]
    corners: list[tuple[float, float]] = []
    for _ in range(4):  # the same bowed edge, turned by a quarter each time
        corners += [(128 + x, 132 + y) for x, y in edge]
        edge = [(-y, x) for x, y in edge]
    sheet.shadow(128 - half + 14, 128 + half - 14, 132 + half - 6)
    sheet.body.polygon(corners, fill=255)
    sheet.front.line([*corners, corners[0]], fill=(*_dark(sheet.colours[1], 0.6), 190), width=4)
    return True


def _tote(sheet: _Sheet) -> bool:
    upper, lower = sheet.about(64, 6), sheet.about(74, 6)
    top, bottom = sheet.about(98, 8), 222.0
    grip, dark = sheet.about(32, 5), _dark(sheet.colours[1], 0.7)
    sheet.shadow(128 - lower, 128 + lower, bottom)
    sheet.back.arc((128 - grip, 28, 128 + grip, top + 62), 180, 360, fill=dark, width=9)
    sheet.body.polygon(
        [(128 - upper, top), (128 + upper, top), (128 + lower, bottom), (128 - lower, bottom)],
        fill=255,
    )
    sheet.front.line([(128 - upper, top), (128 + upper, top)], fill=dark, width=6)
    return False


def _vase(sheet: _Sheet) -> bool:
    neck, belly = sheet.about(22, 7), sheet.about(62, 10)
    height = np.linspace(0, 1, 40)
    bulge = np.sin(np.pi * np.clip(height, 0, 1) ** sheet.about(1.1, 0.35)) ** 1.3
    lip = 10 * np.exp(-((height / 0.08) ** 2))
    width = neck + (belly - neck) * bulge + lip + 10 * height**6
    y = 42 + 180 * height
    outline = [(128 + w, v) for w, v in zip(width, y, strict=True)]
    outline += [(256 - x, v) for x, v in reversed(outline)]
    sheet.shadow(128 - width[-1], 128 + width[-1], 222)
    sheet.body.polygon(outline, fill=255)
    mouth = (128 - width[0], 36, 128 + width[0], 49)
    sheet.front.ellipse(mouth, fill=_dark(sheet.colours[1], 0.4))
    return True


def _notebook(sheet: _Sheet) -> bool:
    half, top, bottom = sheet.about(64, 6), sheet.about(36, 6), sheet.about(220, 5)
    box = (128 - half, top, 128 + half, bottom)
    sheet.back.rounded_rectangle((box[0] + 6, top + 7, box[2] + 7, bottom + 7), 8, (190, 187, 181))
    sheet.back.rounded_rectangle((box[0], top + 3, box[2] + 4, bottom + 3), 8, (250, 248, 240))
    sheet.body.rounded_rectangle(box, radius=8, fill=255)
    dark = _dark(sheet.colours[1])
    sheet.front.rectangle((box[0], top + 4, box[0] + 15, bottom - 4), fill=dark)
    if sheet.rng.random() < 0.6:
        strap = box[2] - sheet.about(18, 3)
        sheet.front.rectangle((strap, top, strap + 6, bottom), fill=_dark(sheet.colours[3], 0.8))
    return False


SILHOUETTES: dict[str, Callable[[_Sheet], bool]] = {
    "mug": _mug,
    "lamp": _lamp,
    "shirt": _shirt,
    "poster": _poster,
    "cushion": _cushion,
    "tote": _tote,
    "vase": _vase,
    "notebook": _notebook,
}
"""Category to the function that draws its shape."""


def _inset(box: tuple[float, float, float, float], by: float) -> tuple[float, float, float, float]:
    return box[0] + by, box[1] + by, box[2] - by, box[3] - by


def _dark(colour: Colour, factor: float = 0.55) -> Colour:
    return int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor)


def _light(colour: Colour) -> Colour:
    return (colour[0] + 255) // 2, (colour[1] + 255) // 2, (colour[2] + 255) // 2
