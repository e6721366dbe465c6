"""Measure k-shot on films: ``python results/kshot.py DATA`` writes ``results/kshot.md``.

After 0, 1, 2, 5 and 10 interactions of each cold item: what the fitted models make of them without
training, against a refit with these interactions in train. ``DATA`` is the folder of the films with
``benchmark.parquet``. With ``--split valid`` the table is only printed: that is where the constant
of the closed form was chosen. See :mod:`mmalign.evaluation.kshot` for what is drawn and ranked.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.benchmark.environment import provenance
from mmalign.cli.fit import fit_recommender
from mmalign.config import from_dict, load_yaml, merge
from mmalign.data.catalog import Catalog
from mmalign.evaluation.kshot import SHOTS, KShot, draw_shots, with_train_rows
from mmalign.experiment import ExperimentConfig
from mmalign.recommender import Recommender
from mmalign.trainers.fit import fit

HERE = Path(__file__).parent
DRAWS = {"collective": 5, "aligned": 5}
REFITS = {"collective": 3, "aligned": 1}
METRICS = ("ndcg@20", "recall@20")


def revealed(recommender: Recommender, catalog: Catalog, drawn: KShot, k: int) -> dict[str, float]:
    """Let a copy of the fitted model hear k shots, and measure it."""
    told = copy.deepcopy(recommender)
    told.model.reveal(catalog.matrix("train"), drawn.revealed(k))
    return drawn.measure(told, k)


def refitted(
    recommender: Recommender, catalog: Catalog, drawn: KShot, k: int, folder: str
) -> dict[str, float]:
    """Fit from scratch with k shots in train, and measure that."""
    known = with_train_rows(catalog, drawn.revealed(k))
    config, features = recommender.config, recommender.features
    result = fit(config, known, features, folder=folder, progress=False)
    again = Recommender.from_catalog(result.model, result.calibration, config, known, features)
    return drawn.measure(again, k)


def cells(found: list[dict[str, float]]) -> str:
    """Means over draws, and the deviation of NDCG."""
    means = [f"{np.mean([row[name] for row in found]):.4f}" for name in METRICS]
    spread = f" ± {np.std([row['ndcg@20'] for row in found], ddof=1):.4f}" if found[1:] else ""
    return f"{means[0]}{spread} | {means[1]}"


def main() -> None:
    """Run all rows; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the films")
    parser.add_argument("--config", default="configs/movies.yaml")
    parser.add_argument("--cache", default=".mmalign/cache")
    parser.add_argument("--runs", default=".mmalign/runs", help="where networks keep their logs")
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    options = parser.parse_args()
    origin = provenance()
    place = {"path": options.data, "interactions": "benchmark.parquet"}
    started = time.perf_counter()
    rows: list[str] = []

    def add(name: str, k: int, parts: list[list[dict[str, float]]], drawn: KShot) -> None:
        rows.append(f"| {name} | {k} | {' | '.join(map(cells, parts))} |")
        print(rows[-1], flush=True)
        head = (
            "# Films: cold items after k interactions\n\n"
            f"`python results/kshot.py DATA`, {origin}; "
            f"{(time.perf_counter() - started) / 60:.0f} minutes.\n\n"
            f"Test; {len(drawn.part.candidates)} cold items with more than {SHOTS[-1]} rows, the "
            "same users and truths for every k (protocol: `docs/protocol.md`). Without retraining: "
            f"mean and deviation over {DRAWS['collective']} draws of what is revealed. Retrained: "
            f"{REFITS['collective']} draws for collective, {REFITS['aligned']} for aligned.\n\n"
        )
        titles = [f"{way} {metric}" for way in ("revealed", "retrained") for metric in METRICS]
        table = [f"| model | k | {' | '.join(titles)} |", f"|---|{'---:|' * 5}", *rows]
        if options.split == "test":
            (HERE / "kshot.md").write_text(head + "\n".join(table) + "\n", encoding="utf-8")

    for name in DRAWS:
        over: dict[str, Any] = {
            "data": place,
            "cache": options.cache,
            "model": {"name": name},
            "trainer": {"default_root_dir": str(Path(options.runs) / "kshot")},
        }
        config = from_dict(ExperimentConfig, merge(load_yaml(options.config), over))
        recommender, _, catalog = fit_recommender(config, None, progress=False)
        draws = [draw_shots(catalog, options.split, seed=s) for s in range(DRAWS[name])]
        folder = config.trainer["default_root_dir"]
        for k in SHOTS:
            heard = [revealed(recommender, catalog, drawn, k) for drawn in draws]
            again = heard[: REFITS[name]]  # without a shot there is nothing to fit again
            if k > 0:
                again = [
                    refitted(recommender, catalog, drawn, k, folder)
                    for drawn in draws[: REFITS[name]]
                ]
            add(name, k, [heard, again], draws[0])


if __name__ == "__main__":
    main()
