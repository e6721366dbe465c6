"""The command line of ``fit``, in the manner of LightningCLI."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from mmalign.config import from_dict, load_yaml, merge, parse_overrides, to_dict
from mmalign.errors import ConfigError, nearest
from mmalign.experiment import ExperimentConfig

__all__ = [
    "FINETUNE_DEFAULTS",
    "TRAINER_DEFAULTS",
    "FitOptions",
    "check_plain",
    "check_trainer",
    "parse_fit",
]

TRAINER_DEFAULTS: Mapping[str, Any] = {
    "max_epochs": 120,
    "check_val_every_n_epoch": 10,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}
"""Arguments of ``lightning.Trainer`` where a network here wants other defaults."""

FINETUNE_DEFAULTS: Mapping[str, Any] = {
    **TRAINER_DEFAULTS,
    "max_epochs": 10,
    "check_val_every_n_epoch": 1,
}
"""The same where encoders are tuned."""

OUTPUTS = {"fit": "the artefact", "finetune": "the encoders"}
DEFAULTS = {"fit": TRAINER_DEFAULTS, "finetune": FINETUNE_DEFAULTS}
EXAMPLES = {
    "fit": "--config configs/movies.yaml --data.path DIR --output ART",
    "finetune": "--config configs/finetune_fashion.yaml --data.path DIR --output ENCODERS",
}
_COUNTS = {"max_epochs", "min_epochs", "max_steps", "min_steps"}
_OURS = {"self", "logger", "callbacks"}
_PRECISIONS = (None, 32, "32", "32-true", 16, "16", "16-mixed", "bf16", "bf16-mixed")
_PARAMETERS = {
    name: parameter
    for name, parameter in inspect.signature(Trainer.__init__).parameters.items()
    if name not in _OURS
}


@dataclass(frozen=True)
class FitOptions:
    """What ``mmalign fit`` was told.

    Attributes:
        config: The experiment; ``trainer`` holds what differs from the defaults.
        output: Folder of the artefact.
        ckpt_path: A checkpoint to resume from.
    """

    config: ExperimentConfig
    output: str
    ckpt_path: str | None


def parse_fit(arguments: list[str], command: str = "fit") -> FitOptions | None:
    """Parse options as LightningCLI does: ``--config``, dotted keys, ``--print_config``.

    Config files are laid over each other and the command line over them, as in every other
    command. What ``--print_config`` prints is a config file.

    Args:
        arguments: Without the program and the command.
        command: ``fit`` or ``finetune``.

    Returns:
        The options, or None after ``--help`` or ``--print_config``.

    Raises:
        ConfigError: An unknown key, with the nearest valid one, a value of the wrong type, or no
            ``--output``.
    """
    parser = _parser(command)
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        return None
    files, given = _split(arguments)
    values: dict[str, Any] = {}
    for file in files:
        values = merge(values, load_yaml(file))
    values = merge(values, parse_overrides([a for a in given if a != "--print_config"]))
    output, resume = values.pop("output", None), values.pop("ckpt_path", None)
    trainer = _checked_trainer(parser, values.pop("trainer", None) or {}, DEFAULTS[command])
    _check_sections(values)
    config = from_dict(ExperimentConfig, {**values, "trainer": trainer})
    if "--print_config" in given:
        shown = {"output": output, "ckpt_path": resume, **to_dict(config)}
        shown["trainer"] = parser.parse_object({"trainer": trainer}).trainer.as_dict()
        print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")
        return None
    if output is None:
        what = f"{command} needs a place for {OUTPUTS[command]}"
        raise ConfigError(what, fix="add --output FOLDER")
    return FitOptions(config, str(output), None if resume is None else str(resume))


def check_trainer(options: Mapping[str, Any]) -> None:
    """Check arguments for ``lightning.Trainer``: names, and values that no network here can take.

    Raises:
        ConfigError: There is no such argument, mmalign sets it itself, or training would break.
    """
    for name in options:
        if name in _OURS - {"self"}:
            raise ConfigError(
                f"trainer.{name} is set by mmalign itself",
                got=options[name],
                fix="leave it out; logs and checkpoints go to trainer.default_root_dir",
            )
        if name not in _PARAMETERS:
            raise ConfigError(f"unknown key 'trainer.{name}'", fix=nearest(name, _PARAMETERS))
    if options.get("barebones"):
        raise ConfigError(
            "trainer.barebones takes away the checkpoints that mmalign needs",
            got=options["barebones"],
            fix="leave it out",
        )
    if options.get("overfit_batches"):
        raise ConfigError(
            "trainer.overfit_batches takes away the order in which mmalign serves batches",
            got=options["overfit_batches"],
            fix="set trainer.limit_train_batches",
        )
    if options.get("precision") not in _PRECISIONS:
        raise ConfigError(
            "trainer.precision must be 32 or mixed: features and graphs are single precision",
            got=options["precision"],
            fix="leave it out, or write bf16-mixed",
        )


def _parser(command: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"mmalign {command}",
        description=f"Train, and write {OUTPUTS[command]}.",
        epilog=f"example: mmalign {command} {EXAMPLES[command]}",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; may be repeated")
    parser.add_argument("--output", type=str, default=None, help=f"folder of {OUTPUTS[command]}")
    parser.add_argument("--ckpt_path", type=str, default=None, help="checkpoint to resume from")
    parser.add_class_arguments(ExperimentConfig, None, skip={"trainer"}, fail_untyped=False)
    parser.add_class_arguments(
        Trainer, "trainer", skip=_OURS - {"self"}, fail_untyped=False, instantiate=False
    )
    parser.set_defaults({f"trainer.{name}": value for name, value in DEFAULTS[command].items()})
    return parser


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part ``--config FILE`` and ``--config=FILE`` from all else."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    try:
        known, given = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error), fix="write --config FILE") from None
    return known.config, given


def _check_sections(values: Mapping[str, Any]) -> None:
    sections = {f.name for f in fields(ExperimentConfig)}
    for name in values:
        if name not in sections:
            choices = {*sections, "config", "output", "ckpt_path", "print_config"}
            raise ConfigError(f"unknown key {name!r}", fix=nearest(name, choices))


def _checked_trainer(
    parser: ArgumentParser, trainer: Any, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments for ``lightning.Trainer`` that have its types and differ from the defaults."""
    if not isinstance(trainer, Mapping):
        raise ConfigError("trainer must be a mapping", got=trainer, fix="write key: value lines")
    check_trainer(trainer)
    try:
        parsed = parser.parse_object({"trainer": dict(trainer)}).trainer.as_dict()
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise _wrong_type(error, trainer) from None
    return {
        name: value
        for name, value in parsed.items()
        if value != defaults.get(name, _PARAMETERS[name].default)
    }


def check_plain(options: Mapping[str, Any]) -> None:
    """Check that arguments for ``lightning.Trainer`` can be kept in a config file.

    Raises:
        ConfigError: One is an object of Python, or no whole number where one is counted.
    """
    for name, value in options.items():
        if name in _COUNTS and not isinstance(value, int | None):
            raise ConfigError(
                f"trainer.{name} must be a whole number", got=value, fix="pass one, or leave it out"
            )
        if not _is_plain(value):
            raise ConfigError(
                f"trainer.{name} must be a plain value, which a config file can hold",
                got=type(value).__name__,
                fix="give the text or number that lightning takes for it, as max_time: 00:12:00:00",
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Path)


def _wrong_type(error: Exception, trainer: Mapping[str, Any]) -> ConfigError:
    named = re.search(r'key "trainer\.(\w+)', str(error))
    if named is None or named[1] not in trainer:
        return ConfigError("trainer cannot be read", got=str(error), fix="see mmalign fit --help")
    kind = str(_PARAMETERS[named[1]].annotation).replace("typing.", "")
    return ConfigError(
        f"trainer.{named[1]} has a value of the wrong type",
        got=trainer[named[1]],
        fix=f"it takes {kind}",
    )
