"""What several commands need: the config, the encoders, the features."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmalign.config import from_dict, load_yaml, merge, to_dict
from mmalign.data.catalog import Catalog
from mmalign.data.config import DataConfig
from mmalign.errors import ConfigError, DataError
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import Encoder, Feature

if TYPE_CHECKING:
    from mmalign.encoders import AttributeEncoder
    from mmalign.features.build import AttributeEncoderLike, BuildReport
    from mmalign.recommender import Recommender

__all__ = [
    "add_config_option",
    "attribute_encoder",
    "catalog_of",
    "encode",
    "load_encoders",
    "print_json",
    "read_config",
    "read_ids",
    "resolve_path",
    "with_overrides",
    "write_table",
]


def add_config_option(parser: argparse.ArgumentParser, example: str) -> None:
    """Give a command ``--config`` and an example."""
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML config")
    parser.epilog = f"example:\n  {example}\n\nany key of the config can be set, --data.path DIR"


def read_config(files: Iterable[str], overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Lay config files and the command line over each other, the later ones on top."""
    values: dict[str, Any] = {}
    for file in files:
        values = merge(values, load_yaml(file))
    return resolve_path(from_dict(ExperimentConfig, merge(values, overrides)))


def resolve_path(config: ExperimentConfig) -> ExperimentConfig:
    """Make the path of a data folder absolute, so that an artefact finds it from anywhere."""
    folder = Path(config.data.path).expanduser()
    if config.data.path and folder.is_dir():
        return replace(config, data=replace(config.data, path=str(folder.resolve())))
    return config


def with_overrides(config: ExperimentConfig, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Lay the command line over the config of an artefact."""
    return resolve_path(from_dict(ExperimentConfig, merge(to_dict(config), overrides)))


def catalog_of(recommender: Recommender, overrides: Mapping[str, Any]) -> Catalog:
    """Read the catalogue that an artefact was fitted on, or the one that is named instead."""
    return Catalog.read(with_overrides(recommender.config, overrides).data)


def load_encoders(config: ExperimentConfig) -> dict[str, Encoder]:
    """Load the configured encoders of the modalities that the data section names."""
    from mmalign.encoders import load_encoder

    named = {"text": bool(config.data.text), "image": config.data.image is not None}
    for modality, is_named in named.items():
        if is_named and modality not in config.encoders:
            raise ConfigError(
                f"data.{modality} is named but no encoder is",
                fix=f"set encoders.{modality}, such as "
                + ("minilm" if modality == "text" else "efficientnet-lite0"),
            )
    for modality in config.encoders:
        if modality not in named:
            raise ConfigError(f"unknown modality 'encoders.{modality}'", fix="text or image")
    return {m: load_encoder(config.encoders[m]) for m, is_named in named.items() if is_named}


def attribute_encoder(config: DataConfig) -> AttributeEncoder | None:
    """Make the encoder of the configured attributes, not fitted yet."""
    from mmalign.encoders import AttributeEncoder, AttributeSpec

    specs: dict[str, Any] = {
        name: AttributeSpec(attribute.kind, attribute.width)
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

    features, report = build_features(catalog, encoders, attributes, config.cache, not quiet)
    if not quiet:
        for line in report.lines():
            print(line, file=sys.stderr)
    return features, report


def read_ids(values: list[str], column: str) -> list[str]:
    """Take ids from the command line, or from the one file that is named there.

    The file is a table with the column, or a text with an id a line.
    """
    if len(values) != 1 or not Path(values[0]).is_file():
        return values
    path = Path(values[0])
    if path.suffix in (".parquet", ".csv", ".jsonl"):
        from mmalign.data.reading import read_table

        frame = read_table(path, {column})
        if column not in frame:
            raise DataError(f"{path} has no column {column!r}", fix="name a file that has")
        return [str(value) for value in frame[column]]
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def write_table(frame: pd.DataFrame, output: str | None, as_json: bool) -> None:
    """Write a table to a file by its ending, or to standard output."""
    if output is None:
        print(frame.to_json(orient="records") if as_json else frame.to_string(index=False))
        return
    path = Path(output)
    writers = {
        ".parquet": lambda p: frame.to_parquet(p, index=False),
        ".csv": lambda p: frame.to_csv(p, index=False),
        ".jsonl": lambda p: frame.to_json(p, orient="records", lines=True),
    }
    if path.suffix not in writers:
        raise ConfigError(
            "cannot tell the format of the output",
            got=output,
            fix="end it in .parquet, .csv or .jsonl",
        )
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[path.suffix](part)
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}", got=error.strerror, fix="name another file"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    print(f"wrote {len(frame):,} rows to {path}", file=sys.stderr)


def print_json(values: Any) -> None:
    """Print plain values as JSON."""
    print(json.dumps(values, indent=2, ensure_ascii=False))
