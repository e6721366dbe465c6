"""``mmalign finetune``: from a config to encoders that know the catalogue."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmalign.atomic import check_writable, whole_folder
from mmalign.cli.process import process_number
from mmalign.cli.setup import check_encoders, resolve_paths, run_folder
from mmalign.data.catalog import Catalog
from mmalign.data.stream import ItemStream
from mmalign.encoders.presets import read_preset
from mmalign.encoders.tuning import (
    Tower,
    beyond_sentences,
    check_base_apart,
    fits_open_clip,
    is_pair,
    load_tower,
    own_scale,
    place_open_clip,
    save_pair,
)
from mmalign.errors import ConfigError, DataError, MMAlignError, TrainingError
from mmalign.experiment import ExperimentConfig
from mmalign.finetuning import FinetuneConfig
from mmalign.trainers.finetune import FinetuneResult, finetune
from mmalign.trainers.options import parse_fit

__all__ = ["finetune_encoders", "load_towers", "run"]

FILES = ("text", "image", "clip", "metrics.json", "README.md")
OPEN_CLIP = "clip"
OPEN_CLIP_CARD = """
Both as one model, from any directory:

```python
import open_clip

place = "local-dir:{place}"
model, _, transform = open_clip.create_model_and_transforms(place)
tokenizer = open_clip.get_tokenizer(place)
```

Once the folder is moved, write its new path here and, where `clip/open_clip_config.json` has an
`hf_model_name`, there.
"""


def run(arguments: list[str]) -> int:
    """Parse as ``fit`` does, tune, and write one folder per tower."""
    options = parse_fit(arguments, command="finetune")
    if options is None:  # --help or --print_config
        return 0
    output = Path(options.output)
    check_writable(output, FILES)
    config = resolve_paths(options.config)
    is_first = process_number(config.trainer) == 0
    last, since = run_folder(config, options.output) / "checkpoints" / "last.ckpt", time.time()
    resume = options.ckpt_path
    with _going_on(last, since, resume, KeyboardInterrupt):
        towers, result = finetune_encoders(config, options.output, resume=resume, progress=is_first)
    if not is_first:
        return 0
    with _going_on(last, since, resume, KeyboardInterrupt, MMAlignError, OSError):
        _write(output, config, towers, result)
    print(f"saved {output} after {result.seconds:.0f} s", file=sys.stderr)
    return 0


@contextmanager
def _going_on(
    last: Path, since: float, resume: str | None, *kinds: type[BaseException]
) -> Iterator[None]:
    """Name the checkpoint that has what was trained, where one of these errors ends the command."""
    try:
        yield
    except kinds as error:
        is_new = last.is_file() and last.stat().st_mtime >= since
        saved = last if is_new else resume
        if saved is None:
            raise
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        raise TrainingError(
            f"the tuned encoders were not written: {what}", fix=f"go on with --ckpt_path {saved}"
        ) from error


def _write(
    output: Path, config: ExperimentConfig, towers: Mapping[str, Tower], result: FinetuneResult
) -> None:
    """Measure the towers and write their folders."""
    for modality, found in result.problems.items():
        item, reason = next(iter(found.items()))
        print(f"note: {modality} of {len(found):,} items unread, {item}: {reason}", file=sys.stderr)
    splits = ("valid", "test") if config.finetune.test else ("valid",)
    measured = _measure(result, splits)
    unread = {split: result.measure.unread(split) for split in measured}
    for split, counts in unread.items():
        for pair, count in counts.items():
            print(f"note: {split}: {pair} of {count:,} items unread", file=sys.stderr)
    with whole_folder(output, FILES) as folder:
        _save(folder, towers, config.finetune, result)
        numbers = {
            "parameters": result.parameters,
            "seconds": result.seconds,
            "peak_memory_gb": result.peak_memory_gb,
            "measured_items": {split: result.measure.counts(split) for split in measured},
            "unread_items": unread,
            **measured,
        }
        (folder / "metrics.json").write_text(json.dumps(numbers, indent=2), encoding="utf-8")
        card = _card(output.name, config, result, measured, towers)
        for modality in (*towers, OPEN_CLIP):
            place_open_clip(folder / modality, output / modality)
        if (folder / OPEN_CLIP).is_dir():
            card += OPEN_CLIP_CARD.format(place=(output / OPEN_CLIP).resolve())
        (folder / "README.md").write_text(card, encoding="utf-8")
    for split, values in measured.items():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        print(f"{split}: {shown}", file=sys.stderr)


def _measure(result: FinetuneResult, splits: Sequence[str]) -> dict[str, dict[str, float]]:
    """Metrics of each split; what cannot be measured costs its metrics, not the encoders."""
    measured = {}
    for split in splits:
        try:
            measured[split] = result.measure(split)
        except DataError as error:
            print(f"note: {split} is not measured: {error}", file=sys.stderr)
    return {split: values for split, values in measured.items() if values}


def finetune_encoders(
    config: ExperimentConfig, output: str, *, resume: str | None = None, progress: bool = True
) -> tuple[dict[str, Tower], FinetuneResult]:
    """Read the catalogue, load the towers and tune them.

    Args:
        config: The experiment.
        output: Where the towers will go, for the folder of logs and checkpoints.
        resume: A checkpoint to go on from.
        progress: Whether to show bars and notes.
    """
    catalog: Catalog | ItemStream
    if config.finetune.streaming:
        catalog = ItemStream(config.data, seed=config.seed)
    else:
        catalog = Catalog.read(config.data)
        for notice in catalog.notices if progress else ():
            print(f"note: {notice}", file=sys.stderr)
    folder = run_folder(config, output)
    check_writable(folder)
    if progress:
        print(f"logs and checkpoints: {folder}", file=sys.stderr)
    torch.manual_seed(config.seed)  # of new projections and adapters
    towers = load_towers(config)
    for tower in towers.values():
        if tower.adapters is not None and not config.finetune.merge:
            check_base_apart(tower, Path(output))
    if _is_pair(towers):
        config = replace(config, finetune=_with_own_scale(config.finetune, towers["text"]))
    result = finetune(config, catalog, towers, folder=folder, resume=resume, progress=progress)
    return towers, result


def _with_own_scale(config: FinetuneConfig, tower: Tower) -> FinetuneConfig:
    """Begin with the temperature and the bias of the model that both towers are of."""
    temperature, bias = own_scale(tower)
    low, high = config.temperature_bounds()
    if config.temperature is None:
        config = replace(config, temperature=min(max(temperature, low), high))
    return config if config.bias is not None else replace(config, bias=bias)


def load_towers(config: ExperimentConfig) -> dict[str, Tower]:
    """Load the towers of the modalities that the data section names.

    Raises:
        ConfigError: ``image_text`` lacks one of its towers, there is none at all, or an encoder
            reads something else.
        EncoderError: An encoder cannot be found or loaded.
    """
    named = {"text": bool(config.data.text), "image": config.data.image is not None}
    check_encoders(config)
    if set(config.finetune.active()) == {"text_pairs"}:
        named["image"] = False  # nothing would teach it
    chosen = {m: config.encoders[m] for m in named if named[m] and m in config.encoders}
    for modality, encoder in chosen.items():
        reads = read_preset(encoder).modality
        if reads != modality:
            raise ConfigError(
                f"encoders.{modality} cannot be an encoder of {reads}",
                got=encoder,
                fix=f"set encoders.{reads}, or name an encoder that reads {modality}",
            )
    towers = {m: load_tower(encoder, config.finetune.tower(m)) for m, encoder in chosen.items()}
    if "image_text" in config.finetune.active() and len(towers) < len(named):
        missing = next(name for name in named if name not in towers)
        raise ConfigError(
            f"the objective image_text needs a tower for {missing}",
            fix=f"set data.{missing} and encoders.{missing}",
        )
    if not towers:
        raise ConfigError("there is no encoder to tune", fix="set data.text and encoders.text")
    return towers


def _save(
    folder: Path, towers: Mapping[str, Tower], config: FinetuneConfig, result: FinetuneResult
) -> None:
    """Write each tower; two that belong together as one open_clip model, or so as well."""
    temperature, bias = None, None
    if "image_text" in config.active():
        temperature, bias = result.temperature, result.bias
    if config.merge and _is_pair(towers):
        save_pair(folder / OPEN_CLIP, **towers, temperature=temperature, bias=bias)
        return
    for modality, tower in towers.items():
        tower.save_pretrained(folder / modality, merge=config.merge)
    if config.merge and "image_text" in config.active() and fits_open_clip(**towers):
        try:
            save_pair(folder / OPEN_CLIP, **towers, temperature=temperature, bias=bias)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            print(f"note: not written as one open_clip model as well: {reason}", file=sys.stderr)


def _is_pair(towers: Mapping[str, Tower]) -> bool:
    return len(towers) == 2 and is_pair(**towers)


def _card(
    name: str,
    config: ExperimentConfig,
    result: FinetuneResult,
    measured: Mapping[str, Mapping[str, float]],
    towers: Mapping[str, Tower],
) -> str:
    """Say what the folder holds, how it came about, and how to use it."""
    tuned = []
    for modality, tower in towers.items():
        trained, every = result.parameters[modality]
        origin = "a folder" if Path(tower.origin.name).is_absolute() else tower.origin.name
        mode = config.finetune.tower(modality).mode
        tuned.append(f"| {modality} | {origin} | {mode} | {trained:,} of {every:,} |")
    counts = [
        f"| {split} | items with {pair} | {count:,} |"
        for split in measured
        for pair, count in result.measure.counts(split).items()
    ]
    counts += [
        f"| {split} | items with {pair} that could not be read | {count:,} |"
        for split in measured
        for pair, count in result.measure.unread(split).items()
    ]
    rows = [
        f"| {split} | {metric} | {value:.4f} |"
        for split, values in measured.items()
        for metric, value in values.items()
    ]
    places = _places(towers, merge=config.finetune.merge)
    objectives = ", ".join(f"{key} {value:g}" for key, value in config.finetune.active().items())
    lines = [
        f"# {name}: encoders tuned by mmalign",
        "",
        f"Objectives: {objectives}; seed {config.seed}; {result.seconds:.0f} s.",
        "",
        "| tower | from | mode | parameters trained |",
        "|---|---|---|---|",
        *tuned,
        "",
        *(["| split | metric | value |", "|---|---|---:|", *counts, *rows, ""] if rows else []),
        "In a config of mmalign:",
        "",
        "```yaml",
        "encoders:",
        *(f"  {modality}: {name}/{place}" for modality, place in places.items()),
        "```",
        "",
    ]
    if config.finetune.merge and "text" in towers and beyond_sentences(towers["text"]):
        lines += [
            "`text` has a suffix or a pooler, which sentence-transformers does not know:",
            "`SentenceTransformer` would give plain means of tokens.",
            "",
        ]
    return "\n".join(lines)


def _places(towers: Mapping[str, Any], *, merge: bool) -> dict[str, str]:
    if _is_pair(towers) and merge:
        return {modality: f"{OPEN_CLIP}/{modality}.yaml" for modality in towers}
    return {modality: modality for modality in towers}
