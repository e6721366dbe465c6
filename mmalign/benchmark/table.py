"""``benchmark.md``: the summary as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmalign.evaluation.metrics import BUCKETS

__all__ = ["markdown"]

_NOTHING = "-"
Summary = Mapping[str, Any]


def markdown(summary: Summary, plots: Sequence[str] = ()) -> str:
    """Write a summary for people.

    Args:
        summary: Of :func:`mmalign.benchmark.summary.summarise`.
        plots: Pictures to show, relative to the file.
    """
    parts = [_head(summary), _headline(summary)]
    ks = sorted(summary["protocol"]["ks"], reverse=True)
    parts.append(_absent(summary))
    if summary["models"]:
        parts += [f"## Accuracy at {k}, test\n\n{_accuracy(summary, k)}" for k in ks]
        parts.append(f"## Against the baselines\n\n{_comparisons(summary)}")
        parts += [
            f"## Beyond accuracy, {name} slice, lists of {ks[0]}\n\n"
            + _beyond(summary, name, ks[0])
            for name in _slices(summary)
        ]
        parts.append(f"## Recall@{ks[0]} by popularity, all slice\n\n{_buckets(summary)}")
        parts.append(f"## Effort\n\n{_effort(summary)}")
    if plots:
        pictures = (f"![{plot.rpartition('/')[2].partition('.')[0]}]({plot})" for plot in plots)
        parts.append("## Plots\n\n" + "\n\n".join(pictures))
    parts.append(f"## Settings\n\n{_settings(summary)}")
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _head(summary: Summary) -> str:
    data, budget, hardware = summary["data"], summary["budget"], summary["hardware"]
    seeds = ", ".join(map(str, summary["seeds"]))
    minutes = f", at most {budget['minutes']:g} minutes" if budget["minutes"] else ""
    excluded = " and ".join(summary["protocol"]["excluded"]) or "nothing"
    commits = {run["commit"] for m in summary["models"].values() for run in m["runs"]}
    earlier = sorted(commits - {summary["commit"]})
    return "\n".join(
        [
            "# Benchmark",
            "",
            f"`{summary['command']}`",
            "",
            f"- {summary['date'][:10]}, commit {summary['commit'] or 'unknown'}"
            + (f" (some runs: {', '.join(c or 'unknown' for c in earlier)})" if earlier else ""),
            "- " + ", ".join(f"{name} {value}" for name, value in summary["versions"].items()),
            "- " + ", ".join(f"{name}: {value}" for name, value in hardware.items()),
            f"- {data['users']:,} users, {data['items']:,} items; "
            f"{data['train']:,} train, {data['valid']:,} valid, {data['test']:,} test pairs; "
            f"seen in {excluded} excluded",
            f"- Per model {budget['trials']} trials{minutes}, the configured settings first, on "
            f"`{budget['monitor']}` (the warm slice for models that know nothing of cold items). "
            "Everything is chosen on valid; test is measured once per seed with what was chosen.",
            f"- Mean ± sample deviation over seeds {seeds}; one that rounds to zero is left out. "
            "A model that knows nothing of cold items has no numbers on them alone; among all it "
            "leaves them in the catalogue's order.",
        ]
    )


def _headline(summary: Summary) -> str:
    best = summary["best_baselines"]
    chosen = [c for c in summary["comparisons"] if best.get(c["slice"]) == c["baseline"]]
    if not chosen:
        return f"There are no runs of {summary['reference']} and of baselines to compare."
    rows = [
        [
            c["slice"],
            c["baseline"],
            _number(c["baseline_mean"]),
            _number(c["reference_mean"]),
            _interval(c),
            _p(c["p_holm"]),
        ]
        for c in chosen
    ]
    columns = ["slice", "best baseline", "its", summary["reference"], "difference", "p (Holm)"]
    return f"## {_title(summary['metric'])} on test\n\n{_table(columns, rows, left=2)}"


def _accuracy(summary: Summary, k: int) -> str:
    slices = _slices(summary)
    columns = [(s, f"{metric}@{k}") for metric in ("ndcg", "recall") for s in slices]
    return _spreads(summary, [f"{s} {_title(metric)}" for s, metric in columns], columns)


def _beyond(summary: Summary, name: str, k: int) -> str:
    columns = [(name, f"{metric}@{k}") for metric in ("coverage", "gini", "novelty")]
    return _spreads(summary, ["coverage", "Gini", "novelty (bits)"], columns, bold=False)


def _spreads(
    summary: Summary, titles: list[str], columns: list[tuple[str, str]], *, bold: bool = True
) -> str:
    cells = []
    for name, metric in columns:
        found = [m["test"][name]["metrics"][metric] for m in summary["models"].values()]
        shown = [_spread(value) for value in found]
        means = [_number(value["mean"]) for value in found]
        top = max((mean for mean in means if mean != _NOTHING), key=float, default=None)
        mark = bold and len(found) > 1
        cells.append(
            [f"**{s}**" if mark and m == top else s for s, m in zip(shown, means, strict=True)]
        )
    rows = [list(row) for row in zip(summary["models"], *cells, strict=True)]
    return _table(["model", *titles], rows)


def _absent(summary: Summary) -> str:
    """The models that have no numbers."""
    rows = [
        [model, state, why]
        for state in ("failed", "not run")
        for model, why in summary[state.replace(" ", "_")].items()
    ]
    return f"## Without a result\n\n{_table(['model', '', 'why'], rows, left=3)}" if rows else ""


def _comparisons(summary: Summary) -> str:
    found = summary["comparisons"]
    if not found:
        return f"There are no runs of {summary['reference']} and of baselines to compare."
    statistics = summary["statistics"]
    slices = list(dict.fromkeys(c["slice"] for c in found))
    by = {(c["slice"], c["baseline"]): c for c in found}
    rows = []
    for baseline in dict.fromkeys(c["baseline"] for c in found):
        pairs = [by.get((name, baseline)) for name in slices]
        rows.append(
            [baseline, *(f"{_interval(c)}, {_p(c['p_holm'])}" if c else _NOTHING for c in pairs)]
        )
    note = (
        f"{_title(summary['metric'])} of {summary['reference']} less that of the row, with the "
        f"{statistics['level']:.0%} percentile interval of a paired bootstrap over users "
        f"({statistics['samples']:,} resamples of the mean over seeds), and the two-sided p after "
        f"Holm's correction for the family of all {statistics['family']} comparisons: every slice "
        "with every baseline that has numbers on it."
    )
    return f"{note}\n\n{_table(['baseline', *slices], rows)}"


def _buckets(summary: Summary) -> str:
    models = summary["models"]
    first = next(iter(models.values()))["test"]["all"]["buckets"]
    names = [name for name in BUCKETS if name in first]
    rows = [
        [model, *(_spread(m["test"]["all"]["buckets"][name]["recall"]) for name in names)]
        for model, m in models.items()
    ]
    return _table(["model", *(f"{n} ({first[n]['items']:,} items)" for n in names)], rows)


def _effort(summary: Summary) -> str:
    rows = []
    for model, m in summary["models"].items():
        tuned, memory = m["tuned"], m["memory"]
        fit = m["seconds"]["total"]
        deviation = "" if fit["std"] is None else f" ± {fit['std']:.1f}"
        rows.append(
            [
                model,
                f"{fit['mean']:.1f}{deviation}",
                f"{memory['peak'] / 2**30:.2f}",
                f"{memory['start'] / 2**30:.2f}",
                f"{tuned['trials']} ({tuned['pruned']} pruned, {tuned['failed']} failed)",
                f"{tuned['seconds']:.0f}",
                f"{tuned['monitor']} {_number(tuned['score'])}",
            ]
        )
    columns = [
        "model",
        "fit s",
        "peak GiB",
        "of it before fitting",
        "trials",
        "in trials s",
        "best on valid",
    ]
    note = "Fitting includes calibration, not encoding; the peak is that of a process of its own."
    return f"{note}\n\n{_table(columns, rows)}"


def _settings(summary: Summary) -> str:
    lines = []
    for model, m in summary["models"].items():
        values = m["tuned"]["values"]
        shown = ", ".join(f"{name} {_value(value)}" for name, value in values.items())
        lines.append(f"- {model}: {shown or 'as configured'}")
    return "\n".join(lines) or "No model ran."


def _slices(summary: Summary) -> list[str]:
    """The slices that have users."""
    first = next(iter(summary["models"].values()))["test"]
    return [name for name, found in first.items() if found["counts"]["users"]]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    align = ["---" if i < left else "---:" for i in range(len(columns))]
    lines = [columns, align, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(value: Mapping[str, float | None]) -> str:
    deviation = _number(value["std"])
    is_shown = deviation not in (_NOTHING, "0.0000")
    return _number(value["mean"]) + (f" ± {deviation}" if is_shown else "")


def _interval(comparison: Mapping[str, Any]) -> str:
    low, high = comparison["low"], comparison["high"]
    return f"{comparison['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"


def _p(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("0.", ".")


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.4f}"


def _title(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{'NDCG' if name == 'ndcg' else name.capitalize()}@{k}"
