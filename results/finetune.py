"""Measure tuning on pictures and titles: ``python results/finetune.py DATA``.

``DATA`` is the folder of the set; ``finetune.md`` is written. Each row is a run of ``mmalign
finetune`` in a process of its own, chosen by its best epoch on valid; test is measured once a row.
The ridge row regresses frozen features on each other. A run that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from mmalign.benchmark.environment import provenance
from mmalign.config import from_dict, load_yaml, merge
from mmalign.data.catalog import Catalog
from mmalign.encoders import load_encoder
from mmalign.experiment import ExperimentConfig
from mmalign.objectives.alignment import retrieval_at_k
from mmalign.trainers.finetuning.contents import Contents

HERE = Path(__file__).parent
CONFIG = "configs/finetune_fashion.yaml"
RUNS = Path(".mmalign/finetune")
METRICS = ("image_to_text@1", "text_to_image@1", "image_to_text@10", "text_to_image@10")
MODES = {
    "head": {
        "text.mode": "head",
        "image.mode": "head",
        "text.hidden": 1024,
        "image.hidden": 1024,
    },
    "last_n": {},
    "lora": {
        "text.mode": "lora",
        "image.mode": "lora",
        "image.targets": "[blocks.3,blocks.4,blocks.5,blocks.6,conv_head]",
        "text.dim": 128,
        "image.dim": 128,
        "text.rank": 4,
        "image.rank": 4,
        "text.learning_rate": 1e-3,
        "image.learning_rate": 2e-3,
    },
    "full": {"text.mode": "full", "image.mode": "full", "image.views": 0},
}


def main() -> None:
    """Run all rows; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the set")
    parser.add_argument("--rows", nargs="+", default=["ridge", *MODES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--options", nargs="*", default=[], help="of mmalign finetune, as a=b")
    options = parser.parse_args()
    rows = []
    for name in options.rows:
        if name == "ridge":
            rows.append(_ridge(options.data))
            _write(rows, options)
            continue
        for seed in options.seeds:
            found = _run(name, seed, options.data, options.options)
            trained, every = (sum(x) for x in zip(*found["parameters"].values(), strict=True))
            cells = [f"{found['test'][metric]:.3f}" for metric in METRICS]
            rows.append(
                f"| {name}, seed {seed} | {' | '.join(cells)} | {found['valid']['retrieval']:.3f} "
                f"| {100 * trained / every:.1f} | {found['peak_memory_gb']:.1f} "
                f"| {found['seconds'] / 60:.0f} |"
            )
            _write(rows, options)


def _run(name: str, seed: int, data: str, more: list[str]) -> dict:
    output = RUNS / f"{name}-{seed}"
    if not (output / "metrics.json").is_file():
        given = {f"finetune.{key}": value for key, value in MODES[name].items()}
        given |= {"seed": seed, "finetune.test": "true", "data.path": data}
        given |= {"trainer.default_root_dir": RUNS / f"run-{name}-{seed}"}
        arguments = [f"--{key}={value}" for key, value in given.items()]
        command = [sys.executable, "-m", "mmalign", "finetune", "--config", CONFIG, *arguments]
        command += [f"--output={output}", *(f"--{option}" for option in more)]
        subprocess.run(command, check=True)
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def _ridge(data: str) -> str:
    """Regress either side's frozen features on the other's; the penalty is chosen on valid."""
    started = time.perf_counter()
    values = merge(load_yaml(CONFIG), {"data": {"path": data}})
    config = from_dict(ExperimentConfig, values)
    catalog = Catalog.read(config.data)
    contents = Contents.of(catalog, config.finetune, seed=0)
    sides = {
        name: load_encoder(config.encoders[name]).encode(contents.plain[name]).values
        for name in ("image", "text")
    }
    unit = {}
    for name, rows in sides.items():
        centred = rows - rows[contents.train].mean(axis=0)
        unit[name] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cells, valid = {}, []
    for source, target in (("image", "text"), ("text", "image")):
        x, y = (unit[name][contents.train].astype(np.float64) for name in (source, target))
        best = (-1.0, np.zeros(0))
        for penalty in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
            weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
            hits = _hits(unit, source, target, weights, contents.valid, 10)
            best = max(best, (hits, weights), key=lambda found: found[0])
        valid.append(best[0])
        for k in (1, 10):
            name = f"{source}_to_{target}@{k}"
            cells[name] = _hits(unit, source, target, best[1], contents.test, k)
    shown = " | ".join(f"{cells[metric]:.3f}" for metric in METRICS)
    minutes = (time.perf_counter() - started) / 60
    return f"| ridge on frozen features | {shown} | | 0 | | {minutes:.0f} |"


def _hits(unit, source, target, weights, rows, k) -> float:
    asked = torch.from_numpy(unit[source][rows] @ weights).float()
    return retrieval_at_k(asked, torch.from_numpy(unit[target][rows]).float(), k)


def _write(rows: list[str], options: argparse.Namespace) -> None:
    titles = [
        "row",
        "image to text @1",
        "text to image @1",
        "image to text @10",
        "text to image @10",
        "valid retrieval",
        "% trained",
        "peak GB",
        "minutes",
    ]
    chosen = f" --rows {' '.join(options.rows)} --seeds {' '.join(map(str, options.seeds))}"
    chosen += f" --options {' '.join(options.options)}" if options.options else ""
    head = (
        "# Tuning on 8,000 product pictures and titles\n\n"
        f"`python results/finetune.py DATA{chosen}`, {provenance()}. Recall among the 1,000 test\n"
        "items; `configs/finetune_fashion.yaml`, the mode changed. Minutes of training and\n"
        "validation on a shared machine.\n\n"
    )
    table = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}", *rows]
    (HERE / "finetune.md").write_text(head + "\n".join(table) + "\n", encoding="utf-8")
    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
