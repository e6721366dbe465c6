"""Titles and descriptions, composed from word lists by a small grammar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmalign.demo.words import CATEGORIES, MAKINGS, OCCASIONS, THEMES

__all__ = ["write_description", "write_title"]

TITLES = (
    "{motif} {noun}",
    "{motif} {noun}",
    "{material} {noun} “{motif}”",
    "“{motif}” {noun} in {material_lower}",
    "The {motif} {noun}",
    "{noun} {motif}",
)


def write_title(rng: np.random.Generator, *, category: str, theme: str, material: str) -> str:
    """Compose a title that tells the kind of product, its theme and at times its material.

    Args:
        rng: Source of all choices.
        category: A key of ``CATEGORIES``.
        theme: A key of ``THEMES``; the title carries a motif of the theme, seldom its name.
        material: A material of the category.

    Example:
        >>> write_title(np.random.default_rng(1), category="mug", theme="jazz", material="enamel")
        'Enamel Coffee Mug “Brushed Snare”'
    """
    return _pick(rng, TITLES).format(
        motif=_pick(rng, THEMES[theme].motifs),
        noun=_pick(rng, CATEGORIES[category].nouns),
        material=material.title(),
        material_lower=material,
    )


def write_description(
    rng: np.random.Generator,
    *,
    category: str,
    theme: str,
    material: str,
    occasion: str,
    making: str | None = None,
) -> str:
    """Compose two to five sentences on theme, material, occasion and making, in varied order.

    Example:
        >>> write_description(
        ...     np.random.default_rng(2),
        ...     category="vase",
        ...     theme="cats",
        ...     material="concrete",
        ...     occasion="gift",
        ...     making="local",
        ... ).count(".") >= 2
        True
    """
    noun = _pick(rng, CATEGORIES[category].nouns).lower()
    a_noun = f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"
    lines = [line.format(a_noun=a_noun) for line in THEMES[theme].lines]
    chosen = rng.choice(len(lines), size=int(rng.integers(1, 3)), replace=False)
    details = [CATEGORIES[category].materials[material], _pick(rng, OCCASIONS[occasion])]
    if making is not None:
        details.append(MAKINGS[making])
    rng.shuffle(details)
    sentences = [lines[i] for i in chosen]
    # Most descriptions open with the theme; some begin with the plain facts.
    ordered = sentences + details if rng.random() < 0.7 else details + sentences
    return " ".join(ordered)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
