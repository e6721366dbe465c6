"""Tune encoders: ``mmalign finetune``, or ``python trainers/finetune.py`` with its options."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import Callback

from mmalign.config import to_dict
from mmalign.data.catalog import Catalog
from mmalign.data.stream import ItemStream
from mmalign.errors import ConfigError, nearest
from mmalign.experiment import ExperimentConfig, TrainingConfig
from mmalign.finetuning import FinetuneConfig
from mmalign.interfaces import Media, Tower
from mmalign.trainers.callbacks import CurvePoint
from mmalign.trainers.finetuning.contents import Contents
from mmalign.trainers.finetuning.data import FinetuneDataModule
from mmalign.trainers.finetuning.module import FinetuneModule
from mmalign.trainers.finetuning.objectives import make_objectives
from mmalign.trainers.finetuning.start import check_startable, start_projections
from mmalign.trainers.finetuning.streamed import StreamedDataModule
from mmalign.trainers.finetuning.validation import Retrieval
from mmalign.trainers.finetuning.views import Views
from mmalign.trainers.loop import run_lightning
from mmalign.trainers.options import FINETUNE_DEFAULTS, check_plain, check_trainer
from mmalign.trainers.resume import digest, flat

__all__ = ["FinetuneResult", "finetune"]

FREE = {"test", "merge", "workers"}
"""Settings that say nothing of the training itself; a resumed run may have others."""

FEW = 20
"""Items among which recall@10 is half by chance."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a run did.

    Attributes:
        curve: All that was logged.
        parameters: Modality to how many parameters were trained, and how many there are.
        seconds: Of views, training and validation, with those of the runs it went on from.
        peak_memory_gb: Most memory that was held, of the device or else of the process.
        problems: Modality to item id to the reason why training could not read it.
        temperature: Of the contrast, as it was learned.
        bias: Of its logits, as it was learned; None where the loss has none.
        measure: Measures the tuned towers on ``valid`` or ``test``, see :class:`Retrieval`.
    """

    curve: list[CurvePoint]
    parameters: dict[str, tuple[int, int]]
    seconds: float
    peak_memory_gb: float
    problems: dict[str, dict[str, str]]
    temperature: float
    bias: float | None
    measure: Retrieval


def finetune(
    config: ExperimentConfig,
    catalog: Catalog | ItemStream,
    towers: Mapping[str, Tower],
    *,
    folder: Path,
    resume: str | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> FinetuneResult:
    """Train towers in place; they end at their best validated weights.

    Args:
        config: ``finetune``, ``training``, ``trainer`` and ``seed`` are read. What is watched is
            ``valid/retrieval``, unless ``training.monitor`` names another metric of valid.
        catalog: Items, and interactions where an objective needs them; or a stream of items, of
            which only those to measure on are kept.
        towers: Modality (``text``, ``image``) to its tower.
        folder: Config, logs and checkpoints.
        resume: A checkpoint to go on from.
        progress: Whether to show a bar.
        callbacks: More of Lightning's.

    Raises:
        ConfigError: Objectives, towers and data do not fit, or nothing is trained.
        DataError: Fewer than two items are left to contrast.
        TrainingError: The loss is not finite, the checkpoint is of another run, or training was
            interrupted.
    """
    check_trainer(config.trainer)
    check_plain(config.trainer)
    if config.trainer.get("max_epochs") == 0:
        raise ConfigError(
            "no epoch would train anything", got="trainer.max_epochs=0", fix="set 1 or more"
        )
    parameters = {name: _count(tower) for name, tower in towers.items()}
    if not any(trained for trained, _ in parameters.values()):
        raise ConfigError(
            "nothing is trained",
            got={name: config.finetune.tower(name).mode for name in towers},
            fix="set another mode than frozen for a tower, or put a projection on one by dim",
        )
    _check_drift(config.finetune, towers)
    if config.finetune.start == "ridge":
        check_startable(towers)
    stream = catalog if isinstance(catalog, ItemStream) else None
    if isinstance(catalog, ItemStream):
        _check_streamed(config.finetune)
        catalog = catalog.held_out()
    contents = Contents.of(catalog, config.finetune, seed=config.seed)
    started = time.perf_counter()
    objectives = make_objectives(
        config.finetune, catalog, contents, towers, seed=config.seed, stream=stream
    )
    origin = _origin(config, catalog, contents, towers)
    if stream is not None:
        origin["train items"] = stream.digest
    views = _views(config, towers, contents, origin, folder / "views", progress)
    if config.finetune.start == "ridge":
        if progress:
            print("starting projections by ridge regression", file=sys.stderr)
        start_projections(towers, contents, views, seed=config.seed)
    measured = Retrieval(config.finetune, catalog, contents, towers)
    if progress and not measured.names("valid"):
        print(
            "note: no item of valid is kept out of training, so nothing is measured, all epochs "
            "run and the last weights are kept; a column split of the items says which to keep out",
            file=sys.stderr,
        )
    module = FinetuneModule(
        towers,
        objectives,
        config.finetune,
        contents=contents,
        validate=_Valid(measured, progress=progress),
        seed=config.seed,
        began=started,
    )
    batches: LightningDataModule
    if stream is not None:
        batches = StreamedDataModule(stream, config.finetune, objectives, towers, seed=config.seed)
    else:
        batches = FinetuneDataModule(
            objectives,
            contents,
            towers,
            batch_size=config.finetune.batch_size,
            chunk_size=config.finetune.chunk_size,
            workers=config.finetune.workers,
            seed=config.seed,
            views=views,
        )
    curve = run_lightning(
        module,
        batches,
        seed=config.seed,
        folder=folder,
        training=_watched(config.training, measured.names("valid")),
        is_validated=bool(measured.names("valid")),
        trainer_options={**FINETUNE_DEFAULTS, **config.trainer},
        origin=origin,
        config=config,
        resume=resume,
        progress=progress,
        callbacks=callbacks,
    )
    module.finish()
    for stored in views.values():
        stored.remove()
    peak = [point.value for point in curve if point.name == "train/peak_memory_gb"]
    return FinetuneResult(
        curve,
        parameters,
        module.seconds_before + time.perf_counter() - started,
        max(peak, default=0.0),
        module.problems,
        float(module.temperature().detach()),
        float(module.bias.detach()) if config.finetune.loss == "siglip" else None,
        measured,
    )


class _Valid:
    """Measures valid, and says the first time of how many items.

    Args:
        measured: Measures.
        progress: Whether to say so.
    """

    def __init__(self, measured: Retrieval, *, progress: bool) -> None:
        self._measured, self._to_say = measured, progress

    def __call__(self) -> dict[str, float]:
        found = self._measured("valid")
        unread = self._measured.unread("valid")
        for pair, count in self._measured.counts("valid").items() if self._to_say else ():
            more = f", {unread[pair]:,} could not be read" if pair in unread else ""
            more += "" if count > FEW else ", too few for recall to say anything"
            print(f"valid measures {pair} of {count:,} items{more}", file=sys.stderr)
        self._to_say = False
        return found


def _views(
    config: ExperimentConfig,
    towers: Mapping[str, Tower],
    contents: Contents,
    origin: Mapping[str, Any],
    folder: Path,
    progress: bool,
) -> dict[str, Views]:
    """Pass views of pictures through what is frozen of their tower, where that is asked for."""
    count = config.finetune.image.views
    if not count or "image" not in towers:
        return {}
    pictures = contents.plain["image"]
    told = [origin, *(_stamp(pictures[row]) for row in contents.train)]
    every = Views(
        towers["image"],
        pictures,
        contents.train,
        count=count,
        seed=config.seed,
        folder=folder,
        name=hashlib.sha256(repr(told).encode()).hexdigest()[:16],
        progress=progress,
    )
    return {"image": every}


def _name(value: Media | None) -> str | None:
    """A text, or what tells a picture from another wherever the catalogue lies."""
    if isinstance(value, Path):
        return f"{value.name} {value.stat().st_size if value.is_file() else None}"
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


def _stamp(picture: Media | None) -> str:
    """What changes when a picture does, without decoding it."""
    if isinstance(picture, Path) and picture.is_file():
        status = picture.stat()
        return f"{picture} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(picture).hexdigest() if isinstance(picture, bytes) else str(picture)


def _check_drift(config: FinetuneConfig, towers: Mapping[str, Tower]) -> None:
    for modality, tower in towers.items():
        told = config.tower(modality)
        is_new = tower.starts_anew or (told.dim is not None and told.hidden > 0)
        if config.drift == "features" and is_new:
            raise ConfigError(
                f"a new projection has no frozen rows to stay close to, and {modality} gets one",
                got=told.dim,
                fix=f"set finetune.{modality}.dim: null, or finetune.drift: similarity",
            )
    parts = [tower.trainable() for tower in towers.values()]
    if config.drift == "weights" and not any(
        parameters for part in parts for name, parameters in part.items() if name != "projection"
    ):
        raise ConfigError(
            "finetune.drift: weights holds what is trained below projections, and nothing is",
            got={name: config.tower(name).mode for name in towers},
            fix="set finetune.drift: none, or another mode than head for a tower",
        )


def _check_streamed(config: FinetuneConfig) -> None:
    for name in config.active():
        if name not in ("image_text", "text_pairs"):
            raise ConfigError(
                f"the objective {name} needs all items at hand, not a stream",
                fix="set finetune.streaming: false",
            )
    if config.image.views:
        raise ConfigError(
            "a stream keeps no views of pictures",
            got=f"finetune.image.views={config.image.views}",
            fix="set finetune.image.views: 0",
        )
    if config.workers or config.drift in ("features", "similarity"):
        raise ConfigError(
            "a stream has no workers, and no frozen rows of all items",
            got={"workers": config.workers, "drift": config.drift},
            fix="set finetune.workers: 0, and finetune.drift: weights or none",
        )


def _watched(training: TrainingConfig, names: Sequence[str]) -> TrainingConfig:
    """Watch ``valid/retrieval`` where nothing else is named."""
    if training.monitor == TrainingConfig().monitor:
        training = replace(training, monitor="valid/retrieval")
    known = [f"valid/{name}" for name in names]
    if known and training.monitor not in known:
        raise ConfigError(
            "training.monitor names no metric that valid gives",
            got=training.monitor,
            fix=nearest(training.monitor, known),
        )
    return training


def _count(tower: Tower) -> tuple[int, int]:
    """Parameters that are trained, and all."""
    trained = sum(p.numel() for part in tower.trainable().values() for p in part)
    module = torch.nn.ModuleList([tower])  # type: ignore[list-item]
    return trained, sum(p.numel() for p in module.parameters())


def _origin(
    config: ExperimentConfig, catalog: Catalog, contents: Contents, towers: Mapping[str, Tower]
) -> dict[str, Any]:
    """What a resumed run must share with the one that it goes on from."""
    settings = to_dict(config.finetune)
    told = hashlib.sha256()
    for row in contents.train:
        content = [_name(contents.plain[name][row]) for name in sorted(contents.plain)]
        told.update(repr((str(catalog.item_ids[row]), content)).encode())
    return {
        "train items": told.hexdigest(),
        "train rows": digest(catalog.matrix("train")),
        "seed": config.seed,
        "data.text": config.data.text,
        "data.image": config.data.image,
        "data.rewrite": to_dict(config.data)["rewrite"] or None,
        **{f"fingerprint of {name}": tower.fingerprint for name, tower in towers.items()},
        **flat({k: v for k, v in settings.items() if k not in FREE}, "finetune"),
    }


if __name__ == "__main__":
    from mmalign.cli.main import main

    sys.exit(main(["finetune", *sys.argv[1:]]))
