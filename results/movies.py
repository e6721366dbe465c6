"""Measure films: ``python results/movies.py DATA`` writes ``results/movies.md``.

``DATA`` is the folder of the films with ``benchmark.parquet``. Models that train in seconds run
once, the aligned model under three seeds. Another ``--config``, such as that of films without
attributes, writes a file of its own name. With ``--modalities`` the aligned model runs on each
group of modalities instead, and ``results/movies-modalities.md`` is written. All that is chosen is
chosen on valid; test is measured once per row.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.benchmark.environment import provenance
from mmalign.cli.fit import fit_recommender
from mmalign.config import from_dict, load_yaml, merge
from mmalign.evaluation.protocol import evaluate
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import SLICES

HERE = Path(__file__).parent
BASELINES = (
    "random",
    "popularity",
    "item_knn",
    "slim",
    "ease",
    "content_mean",
    "content_knn",
    "ials",
    "l3ae",
    "ease_knn",
    "ridge",
    "kernel_ridge",
    "collective",
)
TEXT, IMAGE, ATTRIBUTES = ["text.title", "text.overview", "words"], ["image"], ["year", "genres"]
MODALITIES = {
    "text only": TEXT,
    "image only": IMAGE,
    "attributes only": ATTRIBUTES,
    "text and image": TEXT + IMAGE,
    "text and attributes": TEXT + ATTRIBUTES,
    "all": TEXT + IMAGE + ATTRIBUTES,
}
WEIGHTS = {"image": 0.1, "genres": 0.25}
SEEDS = (0, 1, 2)


def measure(base: dict[str, Any], over: dict[str, Any]) -> dict[str, float]:
    """Fit one configuration; its NDCG@20 and Recall@20 on test, and seconds after encoding."""
    config = from_dict(ExperimentConfig, merge(base, over))
    recommender, result, catalog = fit_recommender(config, None, progress=False)
    found = evaluate(recommender.for_catalog(catalog), catalog, "test").metrics
    row = {f"{s} {m}": found[s][m] for m in ("ndcg@20", "recall@20") for s in SLICES}
    return row | {"fit s": sum(result.seconds.values())}


def line(name: str, row: dict[str, float]) -> str:
    """One row of the table."""
    cells = [
        f"{v:.1f}" if k == "fit s" else "-" if np.isnan(v) else f"{v:.4f}" for k, v in row.items()
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Run all rows; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the films")
    parser.add_argument("--config", default="configs/movies.yaml")
    parser.add_argument("--cache", default=".mmalign/cache")
    parser.add_argument("--modalities", action="store_true", help="what each modality brings")
    options = parser.parse_args()
    place = {"path": options.data, "interactions": "benchmark.parquet"}
    base = merge(load_yaml(options.config), {"data": place, "cache": options.cache})
    origin = provenance()
    started = time.perf_counter()
    rows: list[str] = []
    stem = Path(options.config).stem
    file = f"{stem}-modalities.md" if options.modalities else f"{stem}.md"
    flag = f" --config {options.config}" + (" --modalities" if options.modalities else "")

    def add(name: str, row: dict[str, float]) -> None:
        rows.append(line(name, row))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        head = (
            "# Films: frozen split, test, NDCG@20 and Recall@20\n\n"
            f"`python results/movies.py DATA{flag}`, {origin}; "
            f"peak memory of the whole run {peak:.1f} GB, "
            f"{(time.perf_counter() - started) / 60:.0f} minutes.\n"
            "Seconds are those of fitting and calibrating after encoding, on a shared machine.\n\n"
        )
        columns = list(row)
        table = [f"| model | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}", *rows]
        (HERE / file).write_text(head + "\n".join(table) + "\n", encoding="utf-8")
        print(rows[-1], flush=True)

    if options.modalities:
        for name, modalities in MODALITIES.items():
            weights = {m: weight for m, weight in WEIGHTS.items() if m in modalities}
            kernel = {"modalities": modalities, "weights": weights}
            chosen = {"name": "aligned", "aligned": {"teacher": {"kernel": kernel}}}
            add(name, measure({**base, "model": {}}, {"model": chosen}))
        return
    for name in BASELINES:
        add(name, measure(base, {"model": {"name": name}}))
    seeds = []
    for seed in SEEDS:
        seeds.append(measure(base, {"seed": seed}))
        add(f"aligned, seed {seed}", seeds[-1])
    add("**aligned, mean**", {k: float(np.mean([r[k] for r in seeds])) for k in seeds[0]})


if __name__ == "__main__":
    main()
