"""What several commands need: the config, the catalogue, the encoders, the features."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.config import from_dict, load_yaml, merge, to_dict
from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.errors import ConfigError, nearest
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Encoder, Feature
from mmalign.models import modalities_of

if TYPE_CHECKING:
    from mmalign.encoders import AttributeEncoder
    from mmalign.features.build import AttributeEncoderLike, BuildReport

__all__ = [
    "add_config_option",
    "attribute_encoder",
    "check_encoders",
    "check_trainer_names",
    "config_over",
    "encode",
    "load_encoders",
    "print_lines",
    "read_config",
    "refuse_overrides",
    "resolve_paths",
    "run_folder",
]


COMMON_TRAINER_KEYS = {
    "accelerator",
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "default_root_dir",
    "deterministic",
    "devices",
    "enable_model_summary",
    "enable_progress_bar",
    "gradient_clip_val",
    "limit_train_batches",
    "limit_val_batches",
    "log_every_n_steps",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "num_nodes",
    "num_sanity_val_steps",
    "strategy",
}
"""Arguments of ``lightning.Trainer`` that are known without importing it."""


def add_config_option(parser: argparse.ArgumentParser, example: str) -> None:
    """Give a command ``--config`` and an example."""
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML config")
    parser.epilog = f"example:\n  {example}\n\nany key of the config can be set: --data.path DIR"


def read_config(options: argparse.Namespace) -> ExperimentConfig:
    """Lay config files and the command line over each other, the later ones on top."""
    values: dict[str, Any] = {}
    for file in options.config:
        values = merge(values, load_yaml(file))
    config = from_dict(ExperimentConfig, merge(values, options.overrides))
    check_trainer_names(config)
    return resolve_paths(config)


def config_over(
    base: ExperimentConfig, options: argparse.Namespace, *sections: str
) -> ExperimentConfig:
    """Lay config files and the command line over the config of an artefact.

    Args:
        base: Of the artefact.
        options: Of the command.
        sections: What the command reads of a config. Files may hold more, which is passed over;
            on the command line it is refused, for it would do nothing.

    Raises:
        ConfigError: A key is wrong, or does nothing here.
    """
    values = to_dict(base)
    for file in options.config:
        given = load_yaml(file)
        from_dict(ExperimentConfig, given)  # a wrong key is wrong in any section
        values = merge(values, {name: given[name] for name in sections if name in given})
    config = from_dict(ExperimentConfig, merge(values, options.overrides))
    for name in options.overrides:
        if name not in sections:
            raise ConfigError(
                f"--{name} does nothing here, the artefact is fitted",
                fix=f"leave it out; what can be set is {', '.join(sections)}",
            )
    return resolve_paths(config)


def check_trainer_names(config: ExperimentConfig) -> None:
    """Fail on trainer keys that ``lightning.Trainer`` does not know.

    Lightning takes seconds to import, so it is asked only about names that are not common.

    Raises:
        ConfigError: There is no such key.
    """
    if not config.trainer.keys() <= COMMON_TRAINER_KEYS:
        from mmalign.trainers.options import check_trainer

        check_trainer(config.trainer)


def refuse_overrides(options: argparse.Namespace) -> None:
    """Fail on config keys in a command that reads no config, where they would do nothing."""
    if options.overrides:
        raise ConfigError(
            "this command reads no config", got=options.overrides, fix="leave the keys out"
        )


def run_folder(config: ExperimentConfig, output: str | None) -> Path:
    """Folder for logs and checkpoints, so named that two runs at a time do not share one.

    All processes of a run find the same name.

    Args:
        config: ``trainer.default_root_dir`` is taken as it is.
        output: Where goes what is made; None where that is not known yet, and the config decides.
    """
    if given := config.trainer.get("default_root_dir"):
        return Path(given)
    name = "python" if output is None else Path(output).name
    decisive = repr(config) if output is None else str(Path(output).resolve())
    return Path(".mmalign/runs") / f"{name}-{sha256(decisive.encode()).hexdigest()[:8]}"


def resolve_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Make paths of the data folder and of encoders absolute: an artefact is used from anywhere."""
    from mmalign.encoders import available_presets

    presets = available_presets() if config.encoders else ()
    encoders = {
        modality: name if name in presets else _resolved(name)
        for modality, name in config.encoders.items()
    }
    data = replace(config.data, path=_resolved(config.data.path))
    return replace(config, data=data, encoders=encoders)


def _resolved(text: str) -> str:
    """The absolute path of what is there; a name of something else, such as an id, stays."""
    path = Path(text).expanduser()
    return os.path.abspath(path) if text and path.exists() else text


def check_encoders(config: ExperimentConfig) -> None:
    """Check that ``encoders`` names what there is to read.

    Raises:
        ConfigError: A key is no modality, or names no text column.
    """
    for modality in config.encoders:
        content, at, reading = modality.partition("@")
        kind, _, column = content.partition(".")
        is_content = content in ("text", "image") or (kind == "text" and column)
        if not is_content or (at and not reading):
            fix = "text, image, a text column as text.title, or one more reading as text.title@NAME"
            raise ConfigError(f"unknown modality 'encoders.{modality}'", fix=fix)
        if column and config.data.text and column not in config.data.text:
            raise ConfigError(
                f"encoders.{modality} names no column of data.text",
                fix=nearest(column, config.data.text),
            )


def load_encoders(
    config: ExperimentConfig, fingerprints: Mapping[str, str] | None = None
) -> dict[str, Encoder]:
    """Find the configured encoders of the modalities that the data section names.

    None is loaded before it has something to encode; that it can be found is checked here.

    Args:
        config: ``data``, ``encoders`` and the model's modalities are read. Several text columns
            are encoded one by one, unless the model names other modalities. A column that
            ``encoders`` names, as in ``text.title``, has an encoder of its own where it is
            encoded alone. ``text.title@NAME`` is the same column read by one encoder more.
        fingerprints: Modality to the fingerprint its encoder should have, see
            :func:`mmalign.encoders.load_encoder`.
    """
    from mmalign.encoders import load_encoder

    check_encoders(config)
    found: dict[str, Encoder] = {}
    encoders: dict[str, Encoder] = {}
    used = set()
    for modality in _encoded_modalities(config):
        kind = _kind(modality)
        own = modality if modality in config.encoders else kind
        if own not in config.encoders:
            raise ConfigError(
                f"data.{kind} is named but no encoder is",
                fix=f"set encoders.{kind}, such as "
                + ("minilm" if kind == "text" else "efficientnet-lite0"),
            )
        used.add(own)
        name = config.encoders[own]
        if name not in found:
            wanted = (fingerprints or {}).get(modality)
            found[name] = load_encoder(name, lazy=True, fingerprint=wanted)
        encoders[modality] = found[name]
    for modality in config.encoders.keys() - used:
        kind = _kind(modality)
        if not (config.data.text if kind == "text" else config.data.image):
            why = f"data.{kind} is not: no {kind} is read"
        elif "@" in modality:
            why = f"{config.model.name} does not read it"
        elif "." in modality:
            why = f"{config.model.name} does not read that column alone"
        else:
            continue  # other models of the same config may read it
        warnings.warn(f"encoders.{modality} is named but {why}", stacklevel=2)
    return encoders


def _kind(modality: str) -> str:
    """``text`` or ``image``."""
    return modality.partition("@")[0].partition(".")[0]


def _encoded_modalities(config: ExperimentConfig) -> list[str]:
    named = modalities_of(config.model)
    readings = [m for m in config.encoders if "@" in m and getattr(config.data, _kind(m))]
    texts = tuple(f"text.{column}" for column in config.data.text_parts()) or ("text",)
    available = [*(texts if config.data.text else ()), *(["image"] if config.data.image else ())]
    available += readings
    if not named:
        return available
    every = (
        {"text", *(f"text.{column}" for column in config.data.text)} if config.data.text else set()
    )
    every |= {*readings, "image"} if config.data.image else set(readings)
    known = {*every, *config.data.attributes, *config.data.neighbours}
    for name in named:
        if name not in known | {"text", "image"}:  # the two may come encoded with the data
            raise ConfigError(
                f"model {config.model.name} is told to read a modality that there is not",
                got=name,
                fix=nearest(name, known),
            )
    return [name for name in named if name in every]


def attribute_encoder(config: DataConfig) -> AttributeEncoder | None:
    """Make the encoder of the configured attributes, not fitted yet."""
    from mmalign.encoders import AttributeEncoder, AttributeSpec

    specs: dict[str, Any] = {
        name: AttributeSpec(attribute.kind, attribute.width, attribute.shape)
        for name, attribute in config.attributes.items()
    }
    return AttributeEncoder(specs) if specs else None


def encode(
    config: ExperimentConfig,
    catalog: Catalog,
    encoders: Mapping[str, Encoder],
    attributes: AttributeEncoderLike | None,
    *,
    quiet: bool = False,
) -> tuple[dict[str, Feature], BuildReport]:
    """Build features through the cache and report to standard error what was done."""
    from mmalign.features.build import build_features

    bar = not quiet and sys.stderr.isatty()
    features, report = build_features(catalog, encoders, attributes, config.cache, bar)
    if not quiet:
        print_lines(report.lines())
    return features, report


def print_lines(lines: Iterable[str]) -> None:
    """Print notes to standard error."""
    for line in lines:
        print(line, file=sys.stderr)
