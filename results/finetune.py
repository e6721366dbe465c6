"""Measure tuning on pictures and titles: ``python results/finetune.py DATA``.

``DATA`` is the folder of the set. Each seed of a mode is a run of ``mmalign finetune`` in a process
of its own, chosen by its best epoch on valid; test is measured once. The ridge row regresses frozen
features on each other. ``finetune.json`` keeps what was measured, with its commit, for each
seed of a mode; ``finetune.md`` is the table of it. A run that is there is not run again, and one
that was stopped goes on from its last epoch.
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
        "text.whole": "[LayerNorm]",
        # Norms, and the depthwise convolutions that are 3 pixels wide.
        "image.whole": "[bn1,bn2,bn3,3.0.conv_dw,3.1.conv_dw,3.2.conv_dw,6.0.conv_dw]",
        "text.dim": 64,
        "image.dim": 64,
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
EPOCHS = {"lora": 16}
"""Where a mode takes more than the config's."""


COLUMNS = (
    *("image to text @1", "text to image @1", "image to text @10", "text to image @10"),
    *("mean of the four", "the same on valid", "% trained", "peak GB", "minutes"),
)
DIGITS = (3, 3, 3, 3, 4, 4, 1, 1, 0)


def main() -> None:
    """Measure the modes that are asked for; both files are written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the set")
    parser.add_argument("--modes", nargs="+", default=["ridge", *MODES], choices=["ridge", *MODES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    kept = HERE / "finetune.json"
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for mode in options.modes:
        for seed in [0] if mode == "ridge" else options.seeds:
            if mode == "ridge":
                measured, cells = provenance(), _ridge(options.data)
            else:
                run = _run(mode, seed, options.data)
                measured, cells = run["measured"], _cells(run)
            row = rows.setdefault(mode, {"seeds": {}})
            if not isinstance(row["seeds"], dict):  # taken over from an earlier table, as means
                row = rows[mode] = {"seeds": {}}
            row["seeds"][str(seed)] = {"cells": cells, "measured": measured}
            kept.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            (HERE / "finetune.md").write_text(_table(rows), encoding="utf-8")


def _summary(row: dict) -> dict:
    """Means over seeds, their deviation, and where each seed was measured."""
    if not isinstance(row["seeds"], dict):
        return row
    found = list(row["seeds"].values())
    columns = list(zip(*(seed["cells"] for seed in found), strict=True))
    origins: dict[str, list[str]] = {}
    for seed, each in row["seeds"].items():
        origins.setdefault(each["measured"], []).append(seed)
    shown = [f"seed {', '.join(seeds)}: {origin}" for origin, seeds in origins.items()]
    return {
        "seeds": len(found),
        "means": [None if None in column else np.mean(column) for column in columns],
        "deviation": np.std(columns[4], ddof=1) if len(found) > 1 else None,
        "measured": "; ".join(shown) if len(found) > 1 else found[0]["measured"],
    }


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
    data = str(Path(data).resolve())
    settings = json.dumps([load_yaml(CONFIG), MODES[mode], EPOCHS.get(mode), data])
    output = RUNS / f"{mode}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    kept = output.with_suffix(".measured.json")
    if not (kept.is_file() and (output / "metrics.json").is_file()):
        folder = RUNS / f"run-{output.name}"
        last = folder / "checkpoints" / "last.ckpt"
        measured = provenance()  # of the code that is about to run
        goes_on = last.is_file() and kept.is_file()  # whose code it began with is known
        if goes_on:
            began = json.loads(kept.read_text(encoding="utf-8"))
            measured = began if began == measured else f"{began}, gone on with by {measured}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(measured), encoding="utf-8")
        given = {f"finetune.{key}": value for key, value in MODES[mode].items()}
        given |= {"seed": seed, "finetune.test": "true", "data.path": data}
        given |= {"trainer.default_root_dir": folder}
        if goes_on:
            given["ckpt_path"] = last
        if mode in EPOCHS:
            given["trainer.max_epochs"] = EPOCHS[mode]
        arguments = [f"--{key}={value}" for key, value in given.items()]
        command = [sys.executable, "-m", "mmalign", "finetune", "--config", CONFIG, *arguments]
        subprocess.run([*command, f"--output={output}"], check=True)
    run = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return {**run, "measured": json.loads(kept.read_text(encoding="utf-8"))}


def _ridge(data: str) -> list[float | None]:
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
    return [*shown, np.mean(shown), None, 0.0, peak, minutes]


def _hits(sides, asked, answer, rows, k) -> float:
    one, other = (torch.from_numpy(sides[name][rows]).float() for name in (asked, answer))
    return retrieval_at_k(one, other, k)


def _table(rows: dict[str, dict]) -> str:
    rows = {mode: _summary(rows[mode]) for mode in ("ridge", *MODES) if mode in rows}
    modes = list(rows)
    lines = [f"| mode | seeds | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * (len(COLUMNS) + 1)}"]
    for mode in modes:
        row = rows[mode]
        cells = [
            "" if mean is None else f"{mean:.{places}f}"
            for mean, places in zip(row["means"], DIGITS, strict=True)
        ]
        if row["deviation"] is not None:
            cells[4] += f" +- {row['deviation']:.4f}"
        lines.append(f"| {mode} | {row['seeds']} | {' | '.join(cells)} |")
    lines += ["", "Measured:", *(f"- {mode}: {rows[mode]['measured']}" for mode in modes), ""]
    if {"ridge", "full"} <= rows.keys():
        means = {mode: rows[mode]["means"][4] for mode in modes}
        gain = means["full"] - means["ridge"]
        shares = [
            f"{mode} {100 * (means[mode] - means['ridge']) / gain:.1f}%"
            for mode in modes
            if mode not in ("ridge", "full")
        ]
        lines += [f"Share of the gain of full tuning over ridge: {', '.join(shares)}.", ""]
    return (
        "# Tuning on 8,000 product pictures and titles\n\n"
        f"`python results/finetune.py DATA`. Recall among the 1,000 test items, means over seeds,\n"
        f"from `{CONFIG}` with what `MODES` in the script changes.\n"
        "Ridge regresses frozen features on each other, at the encoders' own picture sizes; full\n"
        "reads pictures at 160 x 128, for its memory. Minutes of one thread, machine shared.\n\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    main()
