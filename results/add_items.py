"""Add 1,000 unseen items to an artefact of tuned encoders: ``python results/add_items.py``.

A shop is generated and 1,000 of its items, with all their purchases, are taken away. Encoders are
tuned on the rest, a recommender is fitted on them, and ``mmalign add-items`` takes the 1,000 in;
what it ranks is compared with the purchases that were taken away. ``add_items.md`` is written.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from mmalign.benchmark.environment import provenance
from mmalign.demo import generate_shop

HERE = Path(__file__).parent
CONFIG = "configs/demo.yaml"
UNSEEN, K = 1000, 20
TUNING = [
    "--finetune.text.mode=last_n",
    "--finetune.text.last_n=3",
    "--finetune.text.max_length=64",
    "--finetune.image.mode=last_n",
    "--finetune.image.last_n=5",
    "--finetune.image.views=2",
    "--finetune.objectives={image_text: 1, behaviour: 1}",
    "--trainer.max_epochs=2",
]


def main() -> None:
    """Run both ways and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taken = _split(generate_shop(folder / "shop", num_items=3000, num_users=4000), folder)
        rows = [_row("frozen", folder, taken, [])]
        encoders = folder / "encoders"
        _mmalign("finetune", f"--output={encoders}", *_of(folder), *TUNING)
        own = [f"--encoders.{name}={encoders / name}" for name in ("text", "image")]
        rows.append(_row("tuned", folder, taken, own))
    head = (
        f"# {UNSEEN:,} unseen items, placed without training\n\n"
        f"`python results/add_items.py`, {provenance()}. A generated shop of 3,000 items,\n"
        f"of which {UNSEEN:,} are never seen before `add-items`; what is asked for is their\n"
        f"{len(taken):,} purchases, among them alone. Seconds on a shared machine.\n\n"
    )
    table = [
        f"| encoders | seconds of add-items | recall@{K} | recall@{K} of a random ranking |",
        "|---|---:|---:|---:|",
        *rows,
    ]
    (HERE / "add_items.md").write_text(head + "\n".join(table) + "\n", encoding="utf-8")


def _split(shop: Path, folder: Path) -> pd.DataFrame:
    """Take items and their purchases away: files ``new.parquet``, and the shop without them."""
    items = pd.read_parquet(shop / "items.parquet")
    log = pd.read_parquet(shop / "interactions.parquet")
    new = items.sample(UNSEEN, random_state=0).item_id
    items[items.item_id.isin(new)].to_parquet(shop / "new.parquet")
    items[~items.item_id.isin(new)].to_parquet(shop / "items.parquet")
    log[~log.item_id.isin(new)].to_parquet(shop / "interactions.parquet")
    known = log[~log.item_id.isin(new)].user_id
    return log[log.item_id.isin(new) & log.user_id.isin(known)]


def _row(name: str, folder: Path, taken: pd.DataFrame, own: list[str]) -> str:
    artefact, wider = folder / name, folder / f"{name}-wider"
    _mmalign("fit", f"--output={artefact}", *_of(folder), *own)
    started = time.perf_counter()
    _mmalign("add-items", artefact, folder / "shop" / "new.parquet", f"--output={wider}")
    seconds = time.perf_counter() - started
    listed = folder / f"{name}.parquet"
    _mmalign(
        "recommend", wider, "--users=all", "-k=2000", "--candidates=cold", f"--output={listed}"
    )
    ranked = pd.read_parquet(listed)
    new = set(pd.read_parquet(folder / "shop" / "new.parquet").item_id)
    ranked = ranked[ranked.item_id.isin(new)]
    top = ranked.groupby("user_id", sort=False).head(K).groupby("user_id").item_id.agg(set)
    recalls, chance = [], []
    for user, items in taken.groupby("user_id").item_id:
        bought = set(items)
        recalls.append(len(bought & top.get(user, set())) / min(K, len(bought)))
        chance.append(K / UNSEEN * len(bought) / min(K, len(bought)))
    cells = f"{seconds:.0f} | {np.mean(recalls):.3f} | {np.mean(chance):.3f}"
    print(name, cells, flush=True)
    return f"| {name} | {cells} |"


def _of(folder: Path) -> list[str]:
    return [
        f"--config={CONFIG}",
        f"--data.path={folder / 'shop'}",
        f"--cache={folder / 'cache'}",
        f"--trainer.default_root_dir={folder / 'runs'}",
    ]


def _mmalign(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "mmalign", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
