"""Search spaces as data: a small YAML per model in ``configs/search``, keys with dots."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import yaml

from mmalign.config import from_dict, merge, to_dict
from mmalign.errors import ConfigError
from mmalign.experiment import ExperimentConfig

__all__ = ["Choices", "Range", "Space", "lay", "search_space", "setting", "shipped_spaces"]

_FOLDER = "mmalign.configs.search"
Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included; whole ones where the setting is a whole number.

    Attributes:
        low: Lower end.
        high: Upper end.
        log: Whether orders of magnitude are alike, rather than differences.

    Raises:
        ConfigError: The ends are not in order, or ``log`` reaches zero.
    """

    low: int | float
    high: int | float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError("low must be below high", got=(self.low, self.high), fix="swap them")
        if self.log and self.low <= 0:
            raise ConfigError("log needs a low above 0", got=self.low, fix="leave log out")


@dataclass(frozen=True)
class Choices:
    """Some values, in no order.

    Attributes:
        choices: Numbers, words, true, false or null.

    Raises:
        ConfigError: There is none, or one is no such value.
    """

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ConfigError("choices is empty", fix="name at least one value")
        for value in self.choices:
            if not isinstance(value, Scalar):
                raise ConfigError(
                    "a choice must be a number, a word, true, false or null",
                    got=value,
                    fix="write choices: [1, 2]",
                )


Space = dict[str, Range | Choices]
"""Dotted name of a model's setting, such as ``kernel.weights.image``, to where it is looked for."""


def shipped_spaces() -> tuple[str, ...]:
    """Names of the models that have a search space, found by scanning the folder.

    Example:
        >>> "ease" in shipped_spaces()
        True
    """
    files = resources.files(_FOLDER).iterdir()
    return tuple(sorted(f.name[: -len(".yaml")] for f in files if f.name.endswith(".yaml")))


def search_space(config: ExperimentConfig, model: str) -> Space:
    """The space that ships for a model under what ``benchmark.search`` says about it.

    There, null takes a setting out of the space.

    Returns:
        Where each setting is looked for; empty for a model with nothing to set.

    Raises:
        ConfigError: A setting that the model does not have, with the nearest one, an end or a
            choice that it does not take, or an entry that is neither a range nor choices.

    Example:
        >>> search_space(ExperimentConfig(), "ease")["l2"]
        Range(low=10.0, high=2000.0, log=True)
    """
    shipped: dict[str, Any] = {}
    if model in shipped_spaces():
        text = resources.files(_FOLDER).joinpath(f"{model}.yaml").read_text("utf-8")
        shipped = yaml.safe_load(text) or {}
    entries = {**shipped, **config.benchmark.search.get(model, {})}
    space: Space = {}
    for name, entry in entries.items():
        if entry is None:
            continue
        where = f"benchmark.search.{model}"
        is_choice = isinstance(entry, Mapping) and "choices" in entry
        kind: type[Choices] | type[Range] = Choices if is_choice else Range
        read = from_dict(kind, entry, where=f"{where}.{name}")
        laid = [lay(config, model, {name: value}, where=where) for value in _extremes(read)]
        if isinstance(read, Range):  # the ends become whole or not as the setting is
            low, high = (setting(one, model, name) for one in laid)
            read = replace(read, low=low, high=high)
        space[name] = read
    return space


def lay(
    config: ExperimentConfig, model: str, values: Mapping[str, Any], *, where: str | None = None
) -> ExperimentConfig:
    """Name a model in a config and lay values over its settings.

    Args:
        config: The experiment.
        model: Name of the model.
        values: Dotted name to value.
        where: Path of the settings, for error messages; by default where the config has them.

    Raises:
        ConfigError: A setting is unknown, or does not take its value.

    Example:
        >>> lay(ExperimentConfig(), "ridge", {"kernel.weights.image": 0.5}).model.ridge.kernel
        KernelConfig(kind='sum', weights={'image': 0.5}, ...)
    """
    named = replace(config.model, name=model)
    if values:
        section = getattr(config.model, model, None)
        if section is None:
            raise ConfigError(
                f"model {model!r} has nothing to set", got=list(values), fix="leave it out"
            )
        plain = to_dict(section)
        for name, value in values.items():
            plain = merge(plain, _nest(type(section), name, value))
        built = from_dict(type(section), plain, where=where or f"model.{model}")
        named = replace(named, **{model: built})
    return replace(config, model=named)


def setting(config: ExperimentConfig, model: str, name: str) -> Any:
    """The value of a setting in a config; None when a mapping does not name it.

    Example:
        >>> setting(ExperimentConfig(), "ridge", "kernel.kind")
        'sum'
    """
    at: Any = getattr(config.model, model)
    while name:
        if isinstance(at, Mapping):
            return at.get(name)
        head, _, name = name.partition(".")
        at = getattr(at, head)
    return at


def _nest(cls: type, name: str, value: Any) -> dict[str, Any]:
    """Turn a dotted name into nested keys; the keys of a mapping may hold dots themselves."""
    head, dot, rest = name.partition(".")
    if not dot:
        return {head: value}
    hint = typing.get_type_hints(cls).get(head)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return {head: _nest(hint, rest, value)}
    return {head: {rest: value}}


def _extremes(entry: Range | Choices) -> tuple[Any, ...]:
    return entry.choices if isinstance(entry, Choices) else (entry.low, entry.high)
