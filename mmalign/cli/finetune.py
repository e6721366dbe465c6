"""``mmalign finetune``: from a config to encoders that know the catalogue."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mmalign.atomic import check_writable, whole_folder
from mmalign.cli.process import process_number
from mmalign.cli.setup import resolve_path
from mmalign.data.catalog import Catalog
from mmalign.encoders.tuning import load_tower
from mmalign.errors import ConfigError
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Tower
from mmalign.trainers.finetune import FinetuneResult, finetune
from mmalign.trainers.options import parse_fit

__all__ = ["finetune_encoders", "load_towers", "run"]

FILES = ("text", "image", "metrics.json", "README.md")


def run(arguments: list[str]) -> int:
    """Parse as ``fit`` does, tune, and write one folder per tower."""
    options = parse_fit(arguments, command="finetune")
    if options is None:  # --help or --print_config
        return 0
    output = Path(options.output)
    check_writable(output, FILES)
    config = resolve_path(options.config)
    is_first = process_number() == 0
    towers, result = finetune_encoders(
        config, output.name, resume=options.ckpt_path, progress=is_first
    )
    if not is_first:
        return 0
    for modality, found in result.problems.items():
        item, reason = next(iter(found.items()))
        print(f"note: {modality} of {len(found):,} items unread, {item}: {reason}", file=sys.stderr)
    splits = ("valid", "test") if config.finetune.test else ("valid",)
    measured = {split: result.measure(split) for split in splits}
    with whole_folder(output, FILES) as folder:
        for modality, tower in towers.items():
            tower.save_pretrained(folder / modality, merge=config.finetune.merge)
        numbers = {"parameters": result.parameters, "seconds": result.seconds, **measured}
        (folder / "metrics.json").write_text(json.dumps(numbers, indent=2), encoding="utf-8")
    for split, values in measured.items():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        print(f"{split}: {shown}", file=sys.stderr)
    print(f"saved {output} after {result.seconds:.0f} s", file=sys.stderr)
    return 0


def finetune_encoders(
    config: ExperimentConfig, name: str, *, resume: str | None = None, progress: bool = True
) -> tuple[dict[str, Tower], FinetuneResult]:
    """Read the catalogue, load the towers and tune them.

    Args:
        config: The experiment.
        name: Of the folder for logs and checkpoints.
        resume: A checkpoint to go on from.
        progress: Whether to show bars and notes.
    """
    catalog = Catalog.read(config.data)
    if progress:
        for notice in catalog.notices:
            print(f"note: {notice}", file=sys.stderr)
    folder = Path(config.trainer.get("default_root_dir") or Path(".mmalign/runs") / name)
    check_writable(folder)
    towers = load_towers(config)
    result = finetune(config, catalog, towers, folder=folder, resume=resume, progress=progress)
    return towers, result


def load_towers(config: ExperimentConfig) -> dict[str, Tower]:
    """Load the towers of the modalities that the data section names.

    Raises:
        ConfigError: ``image_text`` lacks one of its towers.
        EncoderError: An encoder cannot be found or loaded.
    """
    named = {"text": bool(config.data.text), "image": config.data.image is not None}
    towers: dict[str, Tower] = {}
    for modality, is_named in named.items():
        if is_named and modality in config.encoders:
            tuning = config.finetune.tower(modality)
            towers[modality] = load_tower(config.encoders[modality], tuning)
    if "image_text" in config.finetune.active() and len(towers) < 2:
        missing = next(name for name in named if name not in towers)
        raise ConfigError(
            f"the objective image_text needs a tower for {missing}",
            fix=f"set data.{missing} and encoders.{missing}",
        )
    if not towers:
        raise ConfigError("there is no encoder to tune", fix="set data.text and encoders.text")
    return towers
