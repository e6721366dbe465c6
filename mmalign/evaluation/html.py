"""One self-contained HTML page for a whole run: no scripts, no requests, nothing but the file.

Every text is escaped, and a content security policy forbids whatever a hostile catalogue might
still try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

from mmalign.evaluation.html_charts import (
    SLICE_COLOURS,
    category_colours,
    line_chart,
    scatter_map,
)
from mmalign.evaluation.html_data import Curve, Fact, ItemMap, MetricTable, ReportData, Step
from mmalign.evaluation.html_examples import render_examples
from mmalign.evaluation.html_style import STYLE

__all__ = ["render_report"]

_ABSENT = "&ndash;"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_report(data: ReportData) -> str:
    """Render a report as one HTML document.

    Args:
        data: What to show; empty parts are left out.

    Returns:
        The document. Write it as UTF-8.

    Example:
        >>> page = render_report(ReportData("Tiny shop", summary=(Fact("items", "12"),)))
        >>> page.startswith("<!doctype html>") and "Tiny shop" in page
        True
    """
    sections = [
        ("results", "Results", "", "".join(map(_table, data.tables))),
        ("training", "Training", "", _curves(data.curves)),
        ("map", "Embedding map", _MAP_LEAD, _map(data.map) if data.map else ""),
        ("examples", "Recommendations", _EXAMPLES_LEAD, render_examples(data.examples)),
        ("data", "Data", "", _card(_facts(data.dataset, "facts")) if data.dataset else ""),
        ("time", "Time", "", _steps(data.steps)),
    ]
    shown = [section for section in sections if section[3]]
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _, _ in shown)
    body = "".join(
        f'<section id="{key}"><h2>{name}</h2>{_paragraph("lead", lead)}{content}</section>'
        for key, name, lead, content in shown
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(data.title)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f'<header><p class="eyebrow">mmalign report</p><h1>{escape(data.title)}</h1>'
        f"{_paragraph('', data.subtitle)}{_facts(data.summary, 'tiles')}</header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'<main id="content">{body}</main><footer>{escape(data.footer)}</footer></body></html>\n'
    )


_MAP_LEAD = (
    "Each point is an item where the model put it; similar items lie close. Cold items, which"
    " nobody had chosen during training, are placed by their content alone. Hover over a point"
    " for its name."
)
_EXAMPLES_LEAD = (
    "What some users chose before, what the model recommends, and why: the items of the history"
    " that a recommendation rests on, and how much each kind of content speaks for it."
)


def _paragraph(style: str, text: str) -> str:
    return f'<p class="{style}">{escape(text)}</p>' if text else ""


def _card(content: str, title: str = "", style: str = "card") -> str:
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="{style}">{heading}{content}</div>'


def _facts(facts: Sequence[Fact], style: str) -> str:
    if not facts:
        return ""
    entries = "".join(
        f"<div><dt>{escape(f.label)}</dt><dd><b>{escape(f.value)}</b>"
        f"{f'<small>{escape(f.note)}</small>' if f.note else ''}</dd></div>"
        for f in facts
    )
    return f'<dl class="{style}">{entries}</dl>'


# --- tables ---------------------------------------------------------------------------------------


def _table(table: MetricTable) -> str:
    slices = list(dict.fromkeys(name for row in table.rows.values() for name in row))
    columns = [(part, metric) for part in slices for metric in table.metrics]
    span = len(table.metrics)
    top = "".join(
        f'<th class="slice first {SLICE_COLOURS.get(name, "rest")}" scope="colgroup"'
        f' colspan="{span}">{escape(name)}</th>'
        for name in slices
    )
    names = "".join(
        f'<th scope="col"{_first(i, span)}>{escape(_metric_name(metric))}</th>'
        for i, (_, metric) in enumerate(columns)
    )
    best = [_best(table, *column) for column in columns]
    lines = []
    for model, row in table.rows.items():
        cells = "".join(
            _cell(row.get(part, {}).get(metric, math.nan), best[i], i % span == 0)
            for i, (part, metric) in enumerate(columns)
        )
        style = ' class="ours"' if model == table.ours else ""
        lines.append(f'<tr{style}><th scope="row">{escape(model)}</th>{cells}</tr>')
    title = escape(table.title)
    content = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><thead>'
        f'<tr><th rowspan="2" scope="col">Model</th>{top}</tr><tr>{names}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{_paragraph('quiet', table.note)}"
    )
    return _card(content, table.title)


def _first(index: int, span: int) -> str:
    return ' class="first"' if index % span == 0 else ""


def _best(table: MetricTable, part: str, metric: str) -> float:
    values = (row.get(part, {}).get(metric, math.nan) for row in table.rows.values())
    return max((v for v in values if math.isfinite(v)), default=math.nan)


def _cell(value: float, best: float, first: bool) -> str:
    style = "first" if first else ""
    if not math.isfinite(value):
        return f'<td class="{style}">{_ABSENT}</td>'
    number = f"{value:.3f}"
    if number == f"{best:.3f}":
        number, style = f"<strong>{number}</strong>", f"best {style}"
    part = 100 * max(value, 0) / best if best > 0 else 0
    return (
        f'<td class="{style}">{number}<span class="meter" style="--part:{part:.0f}%"></span></td>'
    )


def _metric_name(metric: str) -> str:
    name, at, k = metric.partition("@")
    return ("NDCG" if name.lower() == "ndcg" else name.replace("_", " ").capitalize()) + at + k


# --- charts ---------------------------------------------------------------------------------------


def _curves(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    order = list(dict.fromkeys(c.chart for c in curves))
    charts = groupby(sorted(curves, key=lambda c: order.index(c.chart)), key=lambda c: c.chart)
    cards = (_card(line_chart(title, list(lines)), title) for title, lines in charts)
    return f'<div class="charts">{"".join(cards)}</div>'


def _map(data: ItemMap) -> str:
    if not len(data.points):
        return ""
    switch = "".join(
        f'<label><input type="radio" name="shown" class="only-{key}"{checked}>{label}</label>'
        for key, label, checked in (
            ("all", "all items", " checked"),
            ("warm", "warm only", ""),
            ("cold", "cold only", ""),
        )
    )
    colours = category_colours(data.categories)
    named = [(name, colour) for name, colour in colours.items() if colour != "rest"]
    if len(named) < len(colours):
        named.append(("other", "rest"))
    key = "".join(f'<li><i class="{colour}"></i>{escape(name)}</li>' for name, colour in named)
    content = (
        f'<fieldset class="switch"><legend>Show</legend>{switch}</fieldset>{scatter_map(data)}'
        f'<ul class="key"><li><i class="rest"></i>warm item</li>'
        f'<li><i class="rest diamond"></i>cold item</li>{key}</ul>'
    )
    return _card(content, style="card map")


def _steps(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    longest = max(s.seconds for s in steps) or 1.0
    lines = "".join(
        f'<tr><th scope="row">{escape(s.name)}</th><td>{_duration(s.seconds)}</td><td>'
        f'<span class="meter" style="--part:{100 * s.seconds / longest:.1f}%"></span></td></tr>'
        for s in steps
    )
    total = _duration(sum(s.seconds for s in steps))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Step", "Time", "Share"))
    table = f'<table class="steps"><thead class="skip"><tr>{head}</tr></thead>'
    return _card(f'{table}<tbody>{lines}</tbody></table><p class="quiet">{total} in all.</p>')


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
