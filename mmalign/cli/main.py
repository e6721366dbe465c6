"""Parse a command line, run the command, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from mmalign import __version__
from mmalign.cli.memory import keep_freed_memory, without_collecting
from mmalign.cli.process import stated_number
from mmalign.config import parse_overrides
from mmalign.errors import ConfigError, MMAlignError, nearest

__all__ = ["main"]

COMMANDS = {
    "validate": ("data", "read everything, print counts, coverage, duplicates and leakage"),
    "encode": ("data", "encode items into the feature cache; only what is new or changed"),
    "finetune": ("finetune", "tune encoders on the catalogue and write them"),
    "fit": ("fit", "train a model and write the artefact"),
    "evaluate": ("evaluate", "measure an artefact: warm, cold and all"),
    "recommend": ("recommend", "rank items for users, or for a history"),
    "add-items": ("items", "take new items into an artefact by content alone"),
    "audience": ("items", "find the users to show a new item to"),
    "explain": ("items", "say which items an item is placed by"),
    "benchmark": ("benchmark", "tune and compare all models: tables, significance, plots"),
    "demo": ("demo", "a small generated shop, the whole way, to an HTML report"),
    "doctor": ("doctor", "versions, devices, and which encoders can be loaded"),
}
SECTIONS = (
    "benchmark",
    "cache",
    "data",
    "encoders",
    "evaluation",
    "finetune",
    "model",
    "seed",
    "trainer",
    "training",
)
"""Keys of :class:`~mmalign.experiment.ExperimentConfig`, which takes long to import."""


TRAINING = ("fit", "finetune")
"""Commands that follow LightningCLI, so they parse their own line."""
TRAINING_FLAGS = ("-h", "--help", "--print_config")
"""Their options that take no value."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, fix=f"see {self.prog} --help")

    def parse_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, or name the option nearest to one that is unknown."""
        options, rest = self.parse_known_args(arguments)
        unknown = [argument for argument in rest if argument.startswith("-")]
        if unknown:
            name = unknown[0].partition("=")[0]
            known = [o for action in self._actions for o in action.option_strings]
            raise ConfigError(f"unknown option {name!r}", fix=nearest(name, known))
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0 when it worked, 1 when it failed, 2 when the command was not understood.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _run(arguments)
        except ConfigError as error:
            return _complain(error, 2)
        except MMAlignError as error:
            return _complain(error, 1)
        except KeyboardInterrupt:
            return _complain("interrupted", 1)
        except BrokenPipeError:
            # Whoever read the output has enough of it. Python would complain on flushing the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            return _complain(f"the system refused: {error}", 1)
        except MemoryError as error:
            size = f" ({error})" if str(error) else ""
            return _complain(f"not enough memory{size}: use smaller batches or less data", 1)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part config overrides (``--data.path DIR``, ``--seed 1``) from a command's own options.

    Example:
        >>> split_overrides(["ART", "--data.path", "shop", "-k", "5", "--seed=1"])
        (['ART', '-k', '5'], ['--data.path', 'shop', '--seed=1'])
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, _ = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and ("." in name or name in SECTIONS):
            overrides.append(argument)
            if not equals and rest:
                overrides.append(rest.pop(0))
        else:
            own.append(argument)
    return own, overrides


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(f"mmalign {__version__}")
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name!r}", fix=nearest(name, COMMANDS))
    room, summary = COMMANDS[name]
    keep_freed_memory()
    if name in TRAINING:  # an option without a value is seen before what takes long to import
        parse_overrides([argument for argument in rest if argument not in TRAINING_FLAGS])
    with without_collecting():
        module = import_module(f"mmalign.cli.{room}")
    if name in TRAINING:
        train: Callable[[list[str]], int] = module.run
        return train(rest)
    parser = _Parser(
        prog=f"mmalign {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run = module.COMMANDS[name](parser)
    own, overrides = split_overrides(rest)
    options = parser.parse_all(own)
    options.overrides = parse_overrides(overrides)
    code: int = run(options)
    return code


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return (
        "usage: mmalign COMMAND [options]   (mmalign COMMAND --help for one)\n\n"
        + "\n".join(lines)
        + "\n\nAny key of a config can be set: --data.path DIR --model.name ease --seed 1"
    )


def _process() -> str:
    return f"process {stated_number()}: " if stated_number() else ""


def _complain(error: Exception | str, code: int) -> int:
    """Print one line; a process that was started beside others says which it is."""
    print(f"mmalign: error: {_process()}{' '.join(str(error).split())}", file=sys.stderr)
    return code


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    if issubclass(category, (UserWarning, RuntimeWarning)):
        print(f"mmalign: warning: {_process()}{' '.join(str(message).split())}", file=sys.stderr)
