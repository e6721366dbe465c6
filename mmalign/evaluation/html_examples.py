"""The part of the HTML report that shows recommendations with pictures and reasons."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from mmalign.evaluation.html_charts import COLOURS
from mmalign.evaluation.html_data import Example, ItemCard, Recommendation
from mmalign.pictures import BrokenImageError, open_image

__all__ = ["render_examples"]

_SIDE = 192
"""Pixels of an embedded picture: sharp at the largest size the page shows, on a dense screen."""


def render_examples(examples: Sequence[Example]) -> str:
    """Render one card per user.

    Every text is escaped, and every picture decoded and embedded anew as a small JPEG, so that no
    byte of the catalogue's files reaches the page as it was.
    """
    # One colour per modality on the whole page, whatever order each recommendation names them in.
    names = dict.fromkeys(
        name for e in examples for r in e.recommendations for name in (r.shares or {})
    )
    colours = {name: f"c{i % COLOURS}" for i, name in enumerate(names)}
    return "".join(_example(example, colours) for example in examples)


def _example(example: Example, colours: Mapping[str, str]) -> str:
    picks = "".join(_pick(rank, r, colours) for rank, r in enumerate(example.recommendations, 1))
    note = f'<p class="quiet">{escape(example.note)}</p>' if example.note else ""
    history = _strip(example.history, "Chosen before") or '<p class="quiet">Nothing yet.</p>'
    return (
        f'<article class="card example"><h3>{escape(example.user)}</h3>{note}'
        f"<h4>Chosen before</h4>{history}"
        f'<h4>Recommended</h4><ol class="picks">{picks}</ol></article>'
    )


def _pick(rank: int, pick: Recommendation, colours: Mapping[str, str]) -> str:
    state = "cold" if pick.cold else "warm"
    hit = '<span class="badge hit">chosen later</span>' if pick.hit else ""
    detail = f'<span class="detail">{escape(pick.item.detail)}</span>' if pick.item.detail else ""
    return (
        f'<li class="pick">{_thumbnail(pick.item)}{hit}'
        f'<span class="row"><b>#{rank}</b><span class="badge {state}">{state}</span>'
        f'<span class="score">score {pick.score:.2f}</span></span>'
        f'<span class="name">{escape(pick.item.title)}</span>{detail}{_why(pick, colours)}</li>'
    )


def _why(pick: Recommendation, colours: Mapping[str, str]) -> str:
    parts = []
    if pick.nearest:
        parts.append(f"Because of{_strip(pick.nearest, 'Nearest chosen items')}")
    total = sum((pick.shares or {}).values())
    if pick.shares and total > 0:
        largest_first = sorted(pick.shares.items(), key=lambda pair: -pair[1])
        shares = {name: share / total for name, share in largest_first}
        bar = "".join(
            f'<i class="{colours[name]}" style="--part:{share:.3f}"></i>'
            for name, share in shares.items()
        )
        key = "".join(
            f'<li><i class="{colours[name]}"></i>{escape(name)} <b>{share:.0%}</b></li>'
            for name, share in shares.items()
        )
        parts.append(
            f'<div class="shares" aria-hidden="true">{bar}</div><ul class="key">{key}</ul>'
        )
    return f'<div class="why">{"".join(parts)}</div>' if parts else ""


def _strip(items: Iterable[ItemCard], label: str) -> str:
    cards = "".join(f"<li>{_thumbnail(item)}</li>" for item in items)
    return f'<ul class="strip" tabindex="0" aria-label="{label}">{cards}</ul>' if cards else ""


def _thumbnail(item: ItemCard) -> str:
    title = escape(item.title)
    picture = _embed(item.image) if item.image is not None else None
    if picture is not None:
        return f'<img class="thumb" src="{picture}" alt="{title}" title="{title}">'
    initial = escape(item.title.strip()[:1].upper() or "?")
    label = f'role="img" aria-label="{title}" title="{title}"'
    return f'<span class="thumb blank" {label}>{initial}</span>'


def _embed(image: Path | bytes) -> str | None:
    """Shrink a picture into a data address; None when it cannot be read."""
    try:
        small = open_image(image)
    except BrokenImageError:
        return None
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
