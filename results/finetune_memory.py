"""Measure what tuning takes: ``python results/finetune_memory.py DATA``.

``DATA`` is the folder of product pictures; ``finetune_memory.md`` is written. Each row is two steps
of ``mmalign finetune`` in a process of its own; peak memory is that of the process, its libraries
and data included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from finetune import CONFIG, MODES

from mmalign.benchmark.environment import provenance

HERE = Path(__file__).parent
EVERY = {"text.mode": "full", "image.mode": "full"}
ROWS = {
    "head, batch 64": (MODES["head"], 64, None),
    "last_n (text 3, image 8), batch 64": (MODES["last_n"], 64, None),
    "lora (rank 4), batch 64": (MODES["lora"], 64, None),
    "full, batch 64": (EVERY, 64, None),
    "full, batch 64, checkpointing": (
        {**EVERY, "text.checkpointing": "true", "image.checkpointing": "true"},
        64,
        None,
    ),
    "full, batch 1,024 in chunks of 64": (EVERY, 1024, 64),
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
            f"| {found['peak_memory_gb']:.2f} | {2 * batch / found['seconds']:.0f} |"
        )
        print(rows[-1], flush=True)
    head = (
        "# Memory and speed of tuning\n\n"
        f"`python results/finetune_memory.py DATA`, {provenance()}. Two steps of\n"
        f"`{CONFIG}` per row, settings changed; a shared machine, so pairs per second are\n"
        "for comparison between rows, and hold the setting up.\n\n"
    )
    table = ["| mode | parameters trained | peak GB | pairs/s |", "|---|---:|---:|---:|", *rows]
    text = head + "\n".join(table) + "\n"
    (HERE / "finetune_memory.md").write_text(text, encoding="utf-8")


def _run(data: str, settings: dict, batch: int, chunk: int | None) -> dict:
    given = {f"finetune.{key}": value for key, value in settings.items()}
    given |= {"finetune.batch_size": batch, "finetune.chunk_size": chunk or "null"}
    given |= {"trainer.max_epochs": 1, "trainer.limit_train_batches": 2, "data.path": data}
    given |= {"trainer.limit_val_batches": 0}
    with tempfile.TemporaryDirectory() as folder:
        given |= {"trainer.default_root_dir": f"{folder}/run", "output": f"{folder}/out"}
        command = [sys.executable, "-m", "mmalign", "finetune", "--config", CONFIG]
        command += [f"--{key}={value}" for key, value in given.items()]
        subprocess.run(command, check=True)
        return json.loads(Path(folder, "out", "metrics.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
