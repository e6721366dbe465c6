"""Three pictures of a benchmark, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.evaluation.metrics import BUCKETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_REFERENCE, _OTHER = "#c4451c", "#4a6b8a"
_BARS = 8
"""Most models in a group of bars: more shades cannot be told apart."""
Summary = Mapping[str, Any]


def draw(summary: Summary, folder: Path) -> list[str]:
    """Draw what there are numbers for.

    Args:
        summary: Of :func:`mmalign.benchmark.summary.summarise`.
        folder: Where the files go.

    Returns:
        Names of the PNG files; beside each stands an SVG.
    """
    if not summary["models"]:
        return []
    import matplotlib
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, draw_one in _PLOTS.items():
        # A figure of its own, so no state of matplotlib is touched and no display is needed.
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        if not draw_one(figure.add_subplot(), summary):
            continue
        with matplotlib.rc_context({"svg.hashsalt": "mmalign", "svg.fonttype": "none"}):
            figure.savefig(folder / f"{name}.png", dpi=150)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        names.append(f"{name}.png")
    return names


def _time(axes: Axes, summary: Summary) -> bool:
    """Accuracy on all items against the seconds of fitting."""
    for model, m in summary["models"].items():
        accuracy = m["test"]["all"]["metrics"][summary["metric"]]["mean"]
        seconds = max(m["seconds"]["total"]["mean"], 1e-3)
        _point(axes, summary, model, seconds, accuracy)
    axes.set_xscale("log")
    _label(axes, "seconds to fit", f"{summary['metric']}, all items")
    return True


def _cold_warm(axes: Axes, summary: Summary) -> bool:
    """Accuracy on cold items against warm ones."""
    tests = [m["test"] for m in summary["models"].values()]
    if not all(test[s]["counts"]["users"] for test in tests for s in ("warm", "cold")):
        return False
    for model, m in summary["models"].items():
        warm, cold = (m["test"][s]["metrics"][summary["metric"]]["mean"] for s in ("warm", "cold"))
        if cold is not None:  # a model that does not serve cold items has no such number
            _point(axes, summary, model, warm, cold)
    _label(axes, f"{summary['metric']}, warm items", f"{summary['metric']}, cold items")
    return True


def _popularity(axes: Axes, summary: Summary) -> bool:
    """Recall by popularity of what was to be found, a group of bars per bucket.

    Of many models the reference and the most accurate others are drawn.
    """

    def rank(model: str) -> tuple[bool, float]:
        mean = summary["models"][model]["test"]["all"]["metrics"][summary["metric"]]["mean"]
        return model != summary["reference"], -mean

    models = {name: summary["models"][name] for name in sorted(summary["models"], key=rank)[:_BARS]}
    first = next(iter(models.values()))["test"]["all"]["buckets"]
    buckets = [name for name in BUCKETS if name in first]
    width = 0.8 / len(models)
    shades = np.linspace(0.95, 0.2, len(models))
    for i, (model, m) in enumerate(models.items()):
        found = [m["test"]["all"]["buckets"][name]["recall"]["mean"] or 0.0 for name in buckets]
        at = np.arange(len(buckets)) - 0.4 + width * (i + 0.5)
        is_reference = model == summary["reference"]
        colour = _REFERENCE if is_reference else (0.2, 0.35, 0.5, float(shades[i]))
        axes.bar(at, found, width, color=colour, label=model)
    axes.set_xticks(np.arange(len(buckets)), buckets)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _label(axes, "popularity of the item", f"recall@{max(summary['protocol']['ks'])}, all items")
    return True


_PLOTS = {
    "accuracy_against_time": _time,
    "popularity": _popularity,
    "cold_against_warm": _cold_warm,
}


def _point(axes: Axes, summary: Summary, model: str, x: float, y: float) -> None:
    is_reference = model == summary["reference"]
    colour = _REFERENCE if is_reference else _OTHER
    axes.scatter([x], [y], s=70 if is_reference else 35, color=colour, zorder=3)
    axes.annotate(model, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
