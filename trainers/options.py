"""The command line of ``fit``, in the manner of LightningCLI."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Trainer

from mmalign.config import from_dict, load_yaml, merge, parse_overrides
from mmalign.errors import ConfigError, nearest
from mmalign.experiment import ExperimentConfig

__all__ = ["FitOptions", "check_trainer", "parse_fit"]

OURS = {"self", "logger", "callbacks"}
FLAGS = ("print_config", "help", "output", "ckpt_path", "config")


@dataclass(frozen=True)
class FitOptions:
    """What ``mmalign fit`` was told.

    Attributes:
        config: The experiment; ``trainer`` holds what differs from Lightning's defaults.
        output: Folder of the artefact.
        ckpt_path: A checkpoint to resume from.
    """

    config: ExperimentConfig
    output: str
    ckpt_path: str | None


def parse_fit(arguments: list[str]) -> FitOptions | None:
    """Parse options as LightningCLI does: ``--config``, dotted keys, ``--print_config``.

    Returns:
        The options, or None after ``--print_config``.

    Raises:
        ConfigError: An unknown key, with the nearest valid one, or a value of the wrong type.
    """
    _check_keys(arguments)
    parser = _parser()
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        first = " ".join(str(error).split())
        raise ConfigError(
            f"cannot read the options, {first}", fix="see mmalign fit --help"
        ) from None
    if not parsed.output:
        raise ConfigError("fit needs a place for the artefact", fix="add --output FOLDER")
    values = parsed.as_dict()
    output, resume = str(values.pop("output")), values.pop("ckpt_path")
    for key in ("config", "print_config"):
        values.pop(key, None)
    values["trainer"] = _chosen(values["trainer"])
    return FitOptions(from_dict(ExperimentConfig, values), output, resume)


def check_trainer(options: Mapping[str, Any]) -> None:
    """Check the names of arguments for ``lightning.Trainer``.

    Raises:
        ConfigError: It has no such argument, or mmalign sets it itself.
    """
    valid = set(inspect.signature(Trainer.__init__).parameters) - OURS
    for name in options:
        if name not in valid:
            raise ConfigError(f"unknown key 'trainer.{name}'", fix=nearest(name, valid))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="mmalign fit",
        description="Train a model and write the artefact.",
        epilog="example: mmalign fit --config configs/movies.yaml --data.path DIR --output ART",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; may be repeated")
    parser.add_argument("--output", type=str, default=None, help="folder of the artefact")
    parser.add_argument("--ckpt_path", type=str, default=None, help="checkpoint to resume from")
    parser.add_class_arguments(ExperimentConfig, None, skip={"trainer"}, fail_untyped=False)
    parser.add_class_arguments(
        Trainer, "trainer", skip=OURS - {"self"}, fail_untyped=False, instantiate=False
    )
    return parser


def _check_keys(arguments: list[str]) -> None:
    """Find an unknown key before jsonargparse does: its message names no alternative."""
    values: dict[str, Any] = {}
    options = [a for a in arguments if a.split("=")[0] not in ("--print_config", "--help", "-h")]
    given = parse_overrides(options)
    for name in (given.pop("config", None),):
        if name is not None:
            values = load_yaml(str(name))
    for flag in FLAGS:
        given.pop(flag, None)
    values = merge(values, given)
    check_trainer(values.get("trainer") or {})
    from_dict(ExperimentConfig, values)


def _chosen(trainer: Namespace | Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(Trainer.__init__).parameters
    plain = dict(trainer) if isinstance(trainer, Mapping) else trainer.as_dict()
    return {k: v for k, v in plain.items() if v != parameters[k].default}
