"""Measure Amazon: ``python results/amazon.py baby DATA`` writes ``results/amazon_baby.md``.

``DATA`` is the folder of the set, with its published split. Protocol of the published tables: all
items are ranked, only train items are left out, Recall and NDCG at 10 and 20, chosen by Recall@20
on valid. Test is measured once per row.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.benchmark.environment import provenance
from mmalign.cli.fit import fit_recommender
from mmalign.config import from_dict, load_yaml, merge, parse_overrides
from mmalign.evaluation.protocol import evaluate
from mmalign.experiment import ExperimentConfig

HERE = Path(__file__).parent
MODELS = ("popularity", "item_knn", "ease", "graph_ease", "lightgcn", "freedom", "fused")
METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
PUBLISHED = {
    "baby": {
        "LightGCN, published": (0.0479, 0.0754, 0.0257, 0.0328),
        "FREEDOM, published": (0.0627, 0.0992, 0.0330, 0.0424),
        "DGUMA, published": (0.0694, 0.1078, 0.0383, 0.0481),
    },
    "sports": {
        "LightGCN, published": (0.0569, 0.0864, 0.0311, 0.0387),
        "FREEDOM, published": (0.0717, 0.1089, 0.0385, 0.0481),
        "PGL, published": (0.0789, 0.1174, 0.0428, 0.0528),
    },
    "clothing": {"PGL with content, published": (0.0712, 0.1034, 0.0385, 0.0467)},
}


def main() -> None:
    """Run all rows; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(PUBLISHED))
    parser.add_argument("data", help="folder of the set")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="of the last model, if trained"
    )
    parser.add_argument(
        "--options", nargs="*", default=[], help="of the last model's config, as a.b=c"
    )
    options = parser.parse_args()
    origin = provenance()
    base = merge(load_yaml(f"configs/amazon_{options.name}.yaml"), {"data": {"path": options.data}})
    own = merge(base, parse_overrides([f"--{option}" for option in options.options]))
    chosen = f" --models {' '.join(options.models)} --seeds {' '.join(map(str, options.seeds))}"
    chosen += f" --options {' '.join(options.options)}" if options.options else ""
    rows = [
        f"| {name} | | {' | '.join(f'{x:.4f}' for x in values)} | |"
        for name, values in PUBLISHED[options.name].items()
    ]
    for model in options.models:
        is_trained = model in ("fused", "lightgcn", "freedom")
        is_last = model == options.models[-1]
        seeds = options.seeds if is_trained and is_last else options.seeds[:1]
        found = []
        for seed in seeds:
            found.append(alone(own if is_last else base, options.name, model, seed))
            rows.append(line(f"{model}, seed {seed}" if is_trained else model, found[-1]))
            write(options.name, chosen, origin, rows)
        if len(seeds) > 1:
            rows.append(line(f"**{model}, mean**", np.mean(found, axis=0)))
            write(options.name, chosen, origin, rows)


def alone(base: dict[str, Any], name: str, model: str, seed: int) -> list[float]:
    """Measure in a process of its own, which leaves no memory behind."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, base, name, model, seed).result()


def measure(base: dict[str, Any], name: str, model: str, seed: int) -> list[float]:
    """Fit one model: valid's Recall@20, the metrics on test, and seconds of fitting."""
    config = from_dict(ExperimentConfig, merge(base, {"model": {"name": model}, "seed": seed}))
    recommender, result, catalog = fit_recommender(config, None, progress=True)
    scorer, seen = recommender.for_catalog(catalog), config.evaluation.exclude_seen
    test = evaluate(scorer, catalog, "test", ks=(10, 20), exclude_seen=seen, slices=("warm",))
    valid = recommender.measured["valid, warm"]["recall@20"]
    return [valid, *(test.metrics["warm"][m] for m in METRICS), sum(result.seconds.values())]


def line(name: str, found: Sequence[float]) -> str:
    """One row of the table."""
    *values, seconds = found
    return f"| {name} | {' | '.join(f'{x:.4f}' for x in values)} | {seconds:.0f} |"


def write(name: str, chosen: str, origin: str, rows: list[str]) -> None:
    """Write the table as far as it is."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    head = (
        f"# Amazon {name}: published split, test\n\n"
        f"`python results/amazon.py {name} DATA{chosen}`, {origin}; peak memory of "
        f"a row {peak:.1f} GB.\nAll items ranked, train items left out. Seconds "
        "are those of fitting, on a shared machine.\n\n"
    )
    titles = ["model", "valid R@20", "R@10", "R@20", "N@10", "N@20", "fit s"]
    table = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}", *rows]
    path = HERE / f"amazon_{name}.md"
    path.write_text(head + "\n".join(table) + "\n", encoding="utf-8")
    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
