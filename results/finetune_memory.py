"""Measure what tuning takes: ``python results/finetune_memory.py DATA``.

``DATA`` is the folder of product pictures; ``finetune_memory.md`` is written. Each row is two steps
of ``mmalign finetune`` in a process of its own; peak memory is that of the process, its libraries
and data included. Rows with views go through one view of each picture first, which is not timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from finetune import CONFIG, MODES

from mmalign.benchmark.environment import provenance

HERE = Path(__file__).parent
SIZE = {"image.preprocess": "{input_size: [3, 160, 128]}"}
EVERY = {"text.mode": "full", "image.mode": "full", "image.views": 0}
VIEWED = {"image.views": 1}
ROWS = {
    "head, views": (MODES["head"] | VIEWED, 64, None),
    "last_n (text 6, image 11), views": (MODES["last_n"] | VIEWED, 64, None),
    "last_n, every picture anew": (MODES["last_n"] | {"image.views": 0}, 64, None),
    "lora, views": (MODES["lora"] | VIEWED, 64, None),
    "full": (EVERY, 64, None),
    "full, checkpointing": (
        {**EVERY, "text.checkpointing": "true", "image.checkpointing": "true"},
        64,
        None,
    ),
    "full, 1,024 in chunks of 64": (EVERY, 1024, 64),
}


def main() -> None:
    """Run all rows and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the set")
    data = parser.parse_args().data
    rows = []
    for name, (settings, batch, chunk) in ROWS.items():
        found = _run(data, settings, batch, chunk)
        trained, every = (sum(x) for x in zip(*found["parameters"].values(), strict=True))
        rows.append(
            f"| {name} | {trained:,} ({100 * trained / every:.1f}%) "
            f"| {found['peak_memory_gb']:.2f} | {found['items_per_second'] / 2:.0f} |"
        )
        print(rows[-1], flush=True)
    head = (
        "# Memory and speed of tuning\n\n"
        f"`python results/finetune_memory.py DATA`, {provenance()}. Two steps of\n"
        f"`{CONFIG}` in batches of 64 where no other is named, the mode changed, pictures at\n"
        "160 x 128; a shared machine, so pairs per second are for comparison between rows.\n\n"
    )
    table = ["| mode | parameters trained | peak GB | pairs/s |", "|---|---:|---:|---:|", *rows]
    text = head + "\n".join(table) + "\n"
    (HERE / "finetune_memory.md").write_text(text, encoding="utf-8")


def _run(data: str, settings: dict, batch: int, chunk: int | None) -> dict:
    given = {f"finetune.{key}": value for key, value in (SIZE | settings).items()}
    given |= {"finetune.batch_size": batch, "finetune.chunk_size": chunk or "null"}
    given |= {"trainer.max_epochs": 1, "trainer.limit_train_batches": 2, "data.path": data}
    given |= {"trainer.limit_val_batches": 0}
    with tempfile.TemporaryDirectory() as folder:
        given |= {"trainer.default_root_dir": f"{folder}/run", "output": f"{folder}/out"}
        command = [sys.executable, "-m", "mmalign", "finetune", "--config", CONFIG]
        command += [f"--{key}={value}" for key, value in given.items()]
        subprocess.run(command, check=True)
        found = json.loads(Path(folder, "out", "metrics.json").read_text(encoding="utf-8"))
        (log,) = Path(folder, "run", "csv").rglob("metrics.csv")
        found["items_per_second"] = pd.read_csv(log)["train/items_per_second"].max()
        return found


if __name__ == "__main__":
    main()
