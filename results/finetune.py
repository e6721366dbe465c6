"""Measure tuning on pictures and titles: ``python results/finetune.py DATA``.

``DATA`` is the folder of the set; ``finetune.md`` is written. Each row is a run of ``mmalign
finetune`` in a process of its own, chosen by its best epoch on valid; test is measured once a row.
The ridge row regresses frozen features on each other. A run of the same settings that is there is
not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
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
        "start": "ridge",
        "text.mode": "lora",
        "image.mode": "lora",
        "image.targets": "[blocks.3,blocks.4,blocks.5,blocks.6,conv_head]",
        "text.dim": 96,
        "image.dim": 96,
        "text.rank": 5,
        "image.rank": 7,
        "text.learning_rate": 4e-3,
        "image.learning_rate": 8e-3,
    },
    "full": {
        "start": "ridge",
        "text.mode": "full",
        "image.mode": "full",
        "image.views": 0,
        "image.preprocess": "{input_size: [3, 160, 128]}",
    },
}
EPOCHS = {"lora": 12}
"""Where a mode takes more than the config's."""


ROWS = ["ridge", *(f"{mode}@{seed}" for mode in MODES for seed in (0, 1, 2))]


def main() -> None:
    """Run all rows; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the set")
    parser.add_argument("--rows", nargs="+", default=ROWS, help="ridge, and modes as lora@0")
    options = parser.parse_args()
    origin, found = provenance(), dict[str, list[list[float]]]()
    for row in options.rows:
        mode, _, seed = row.partition("@")
        found.setdefault(mode, []).append(
            _ridge(options.data) if mode == "ridge" else _cells(_run(mode, int(seed), options.data))
        )
        _write(found, options.rows, origin)


def _cells(run: dict) -> list[float]:
    trained, every = (sum(x) for x in zip(*run["parameters"].values(), strict=True))
    return [
        *(run["test"][metric] for metric in METRICS),
        np.mean([run["test"][metric] for metric in METRICS]),
        run["valid"]["retrieval"],
        100 * trained / every,
        run["peak_memory_gb"],
        run["seconds"] / 60,
    ]


def _run(mode: str, seed: int, data: str) -> dict:
    settings = json.dumps([load_yaml(CONFIG), MODES[mode], EPOCHS.get(mode)])
    output = RUNS / f"{mode}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    if not (output / "metrics.json").is_file():
        given = {f"finetune.{key}": value for key, value in MODES[mode].items()}
        given |= {"seed": seed, "finetune.test": "true", "data.path": data}
        given |= {"trainer.default_root_dir": RUNS / f"run-{output.name}"}
        if mode in EPOCHS:
            given["trainer.max_epochs"] = EPOCHS[mode]
        arguments = [f"--{key}={value}" for key, value in given.items()]
        command = [sys.executable, "-m", "mmalign", "finetune", "--config", CONFIG, *arguments]
        subprocess.run([*command, f"--output={output}"], check=True)
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def _ridge(data: str) -> list[float]:
    """Regress frozen features on each other; which side on which, and how much, by valid."""
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
    names, cells = ("image", "text"), {}
    mapped = []
    for source, target in (names, names[::-1]):
        x, y = (unit[name][contents.train].astype(np.float64) for name in (source, target))
        for penalty in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
            weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
            rows = unit[source] @ weights
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            mapped.append({source: rows, target: unit[target]})
    for asked, answer in (names, names[::-1]):
        best = max(mapped, key=lambda sides: _hits(sides, asked, answer, contents.valid, 10))
        for k in (1, 10):
            cells[f"{asked}_to_{answer}@{k}"] = _hits(best, asked, answer, contents.test, k)
    shown = [cells[metric] for metric in METRICS]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    minutes = (time.perf_counter() - started) / 60
    return [*shown, np.mean(shown), float("nan"), 0.0, peak, minutes]


def _hits(sides, asked, answer, rows, k) -> float:
    one, other = (torch.from_numpy(sides[name][rows]).float() for name in (asked, answer))
    return retrieval_at_k(one, other, k)


def _write(found: dict[str, list[list[float]]], rows: list[str], origin: str) -> None:
    titles = [
        "mode",
        "seeds",
        "image to text @1",
        "text to image @1",
        "image to text @10",
        "text to image @10",
        "mean of the four",
        "the same on valid",
        "% trained",
        "peak GB",
        "minutes",
    ]
    digits = (3, 3, 3, 3, 4, 4, 1, 1, 0)
    lines = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}"]
    for mode, runs in found.items():
        cells = []
        for values, places in zip(zip(*runs, strict=True), digits, strict=True):
            mean = f"{np.mean(values):.{places}f}"
            spread = f" +- {np.std(values, ddof=1):.{places}f}" if len(runs) > 1 else ""
            cells.append("" if np.isnan(values).any() else mean + spread * (places == 4))
        lines.append(f"| {mode} | {len(runs)} | {' | '.join(cells)} |")
    shares = []
    if {"ridge", "full"} <= found.keys():
        means = {mode: np.mean([run[4] for run in runs]) for mode, runs in found.items()}
        gain = means["full"] - means["ridge"]
        shares = [
            f"{mode} {100 * (mean - means['ridge']) / gain:.0f}%"
            for mode, mean in means.items()
            if mode not in ("ridge", "full")
        ]
    text = (
        "# Tuning on 8,000 product pictures and titles\n\n"
        f"`python results/finetune.py DATA --rows {' '.join(rows)}`,\n"
        f"{origin}. Recall among\n"
        f"the 1,000 test items, means over seeds, from `{CONFIG}` with the mode changed.\n"
        "Ridge regresses frozen features on each other, at the encoders' own picture sizes; full\n"
        "reads pictures at 160 x 128, for its memory; LoRA takes twelve epochs; both start with\n"
        "projections in closed form (`start: ridge`). Runs that were there are not repeated.\n"
        "Minutes of one thread on a shared machine.\n\n"
        + "\n".join(lines)
        + "\n"
        + (
            f"\nShare of the gain of full tuning over ridge: {', '.join(shares)}.\n"
            if shares
            else ""
        )
    )
    (HERE / "finetune.md").write_text(text, encoding="utf-8")
    print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
