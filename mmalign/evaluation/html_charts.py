"""Charts of the HTML report as inline SVG: line charts and the embedding map."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from mmalign.evaluation.html_data import Curve, ItemMap

__all__ = [
    "COLOURS",
    "SLICE_COLOURS",
    "category_colours",
    "line_chart",
    "scatter_map",
    "tick_values",
]

Plane = NDArray[np.float64]
Place = Callable[[float, float], tuple[float, float]]

COLOURS = 8
"""Colours that the style sheet defines, as the classes ``c0`` to ``c7`` and ``rest``."""

SLICE_COLOURS = {"all": "c0", "warm": "c1", "cold": "c2"}
"""A slice has the same colour in tables, charts and badges."""

_WIDTH, _HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 92, 14, 34
_MAP_WIDTH, _MAP_HEIGHT, _MAP_MARGIN = 1000, 640, 34
_TOGETHER = 0.6  # of the spread of all points, to call a category a place on the map


def line_chart(title: str, curves: Sequence[Curve]) -> str:
    """Draw curves on common axes, each named at its end.

    Args:
        title: Read out by screen readers.
        curves: At least one curve.
    """
    points = [(x, y) for c in curves for x, y in c.points if math.isfinite(y)]
    if not points:
        return '<p class="quiet">No values were logged.</p>'
    xs, ys = ([p[axis] for p in points] for axis in (0, 1))
    ticks = tick_values(min(ys), max(ys))
    low, high = min(ticks[0], *ys), max(ticks[-1], *ys)
    first, last = min(xs), max(xs)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = []
    for tick in ticks:
        _, y = place(first, tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for epoch in sorted({round(first), round((first + last) / 2), round(last)}):
        x, _ = place(epoch, low)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{epoch}</text>'
        )
    ends = []
    for number, curve in enumerate(curves):
        colour = SLICE_COLOURS.get(curve.name, f"c{number % COLOURS}")
        known = [(x, y) for x, y in curve.points if math.isfinite(y)]
        if known:
            parts.append(_line(curve, place, colour))
            ends.append((place(*known[-1]), curve.name, colour, known[-1][1]))
    heights = _spread([end[0][1] for end in ends], 16)
    for ((x, y), name, colour, value), height in zip(ends, heights, strict=True):
        parts.append(f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        parts.append(
            f'<text class="name {colour}" x="{x + 9:.1f}" y="{height + 4:.1f}">{escape(name)}'
            f"<title>{escape(name)}: {value:.4g} at the end</title></text>"
        )
    label = f"{title}: " + ", ".join(f"{name} ends at {value:.4g}" for _, name, _, value in ends)
    return _svg(_WIDTH, _HEIGHT, label, parts)


def category_colours(categories: Iterable[str]) -> dict[str, str]:
    """Give the most frequent categories a colour class each, and the others ``rest``.

    Example:
        >>> category_colours(["mug", "lamp", "mug"])
        {'mug': 'c0', 'lamp': 'c1'}
    """
    ranked = sorted(Counter(categories).items(), key=lambda pair: (-pair[1], pair[0]))
    return {name: f"c{i}" if i < COLOURS else "rest" for i, (name, _) in enumerate(ranked)}


def scatter_map(data: ItemMap) -> str:
    """Draw warm items as dots, cold ones as outlined diamonds on top, coloured by category."""
    colours = category_colours(data.categories)
    places = _fit(np.asarray(data.points, dtype=np.float64))
    warm, cold = [], []
    for (x, y), is_cold, category, title in zip(
        places.tolist(), data.cold, data.categories, data.titles, strict=True
    ):
        state = "cold" if is_cold else "warm"
        hint = f"<title>{escape(title)} · {escape(category)} · {state}</title>"
        colour = colours[category]
        if is_cold:
            corners = f"M{x:.1f} {y - 7:.1f}l7 7-7 7-7-7z"
            cold.append(f'<path class="{colour}" d="{corners}">{hint}</path>')
        else:
            warm.append(
                f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.6">{hint}</circle>'
            )
    label = f"Map of {len(warm)} warm and {len(cold)} cold items, coloured by category"
    parts = ['<g class="warm">', *warm, '</g><g class="cold">', *cold, "</g>"]
    return _svg(_MAP_WIDTH, _MAP_HEIGHT, label, [*parts, *_names(data, places, colours)])


def _names(data: ItemMap, places: Plane, colours: dict[str, str]) -> list[str]:
    """Name the categories that lie together at their middle; a scattered one has no middle."""
    members = np.asarray(data.categories, dtype=object)
    middles: list[tuple[float, float, str]] = []
    for name in (name for name, colour in colours.items() if colour != "rest"):
        own = places[members == name]
        if _spread_of(own) > _TOGETHER * _spread_of(places):
            continue
        x, y = np.median(own, axis=0).tolist()
        while any(abs(x - a) < 110 and abs(y - b) < 22 for a, b, _ in middles):
            y += 4
        middles.append((x, y, name))
    return [
        f'<text class="place" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{escape(name)}</text>'
        for x, y, name in middles
    ]


def _spread_of(points: Plane) -> float:
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def _fit(points: Plane) -> Plane:
    """Scale each axis to fill the canvas; y grows downwards in SVG."""
    span = np.ptp(points, axis=0)
    unit: Plane = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    unit[:, 1] = 1 - unit[:, 1]
    unit *= np.array([_MAP_WIDTH, _MAP_HEIGHT]) - 2 * _MAP_MARGIN
    return unit + _MAP_MARGIN


def _line(curve: Curve, place: Place, colour: str) -> str:
    """Draw a path that breaks where a value is missing."""
    path, pen = [], "M"
    for epoch, value in curve.points:
        if not math.isfinite(value):
            pen = "M"
            continue
        x, y = place(epoch, value)
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return f'<path class="line {colour}" d="{"".join(path)}"/>'


def tick_values(low: float, high: float) -> list[float]:
    """Choose two to seven round numbers that enclose the values.

    Example:
        >>> tick_values(0.03, 0.29)
        [0.0, 0.1, 0.2, 0.3]
    """
    size = max(abs(low), abs(high))
    # A curve that is flat up to rounding gets ticks for its height instead of its span.
    span = high - low if high - low > 1e-9 * size else size or 1.0
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= span / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def _spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move labels down until neighbours are ``gap`` apart; the order is kept.

    Example:
        >>> _spread([10.0, 4.0, 5.0], 4.0)
        [12.0, 4.0, 8.0]
    """
    placed = [0.0] * len(positions)
    lowest = -math.inf
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        placed[index] = lowest = max(positions[index], lowest + gap)
    return placed


def _svg(width: int, height: int, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
