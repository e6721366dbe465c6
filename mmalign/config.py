"""Frozen dataclasses to and from YAML; an unknown key fails and names the nearest valid one."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mmalign.errors import ConfigError, nearest

__all__ = ["from_dict", "load_yaml", "merge", "parse_overrides", "to_dict"]

FLAT = {"encoders", "weights"}
"""Sections whose keys may hold dots, as ``text.title`` does."""

T = TypeVar("T")


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML would quietly keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"key {key.value!r} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def from_dict(cls: type[T], values: Mapping[str, Any] | None, *, where: str = "") -> T:
    """Build a config dataclass from plain values, checking keys and types on the way.

    Args:
        cls: A frozen dataclass, whose fields may be dataclasses, mappings of dataclasses,
            sequences or scalars.
        values: Plain values, as YAML gives them; None means all defaults.
        where: Dotted path of this section, for error messages.

    Raises:
        ConfigError: An unknown key, a missing one, or a value of the wrong type.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Loss:
        ...     temperature: float = 0.1
        >>> from_dict(Loss, {"temperature": 1})
        Loss(temperature=1.0)
        >>> from_dict(Loss, {"temprature": 1})
        Traceback (most recent call last):
        ...
        mmalign.errors.ConfigError: unknown key 'temprature': did you mean 'temperature'? ...
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where or 'the config'} must be a mapping", got=values, fix="write key: value lines"
        )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls)) if f.init}
    built: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise ConfigError(f"unknown key {path!r}", fix=nearest(str(key), fields))
        built[key] = _coerce(hints[key], value, path)
    missing = [
        name
        for name, f in fields.items()
        if name not in built
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        path = f"{where}.{missing[0]}" if where else missing[0]
        raise ConfigError(f"missing key {path!r}", fix="add it to the config or the command line")
    return cls(**built)


def to_dict(config: Any) -> Any:
    """Turn a config dataclass into plain values that YAML and JSON can hold."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(v) for v in config]
    if isinstance(config, Path):
        return str(config)
    return config


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: The file is absent, is not YAML, holds no mapping, or a key twice.
    """
    path = Path(path)
    try:
        values = _UniqueKeys(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise ConfigError("config file not found", got=str(path), fix="check --config") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"cannot read {where}", got=error.problem, fix="mend the YAML") from None
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"cannot read {path}", got=str(error), fix="mend the YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no mapping", got=values, fix="write key: value lines")
    return values


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse ``--a.b value`` and ``--a.b=value`` into a nested mapping; values are YAML.

    A value that itself starts with ``--`` needs the form with ``=``.

    Raises:
        ConfigError: An argument is no option, an option has no value, or it sets a key below a
            value, as ``--data x --data.path y`` does.

    Example:
        >>> parse_overrides(["--data.path", "shop", "--seed=3"])
        {'data': {'path': 'shop'}, 'seed': 3}
        >>> parse_overrides(["--encoders.text.title", "mpnet"])
        {'encoders': {'text.title': 'mpnet'}}
    """
    nested: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ConfigError(
                "unexpected argument", got=option, fix="overrides look like --a.b value"
            )
        name, equals, text = option[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"option --{name} has no value", fix=f"write --{name} VALUE")
            text = rest.pop(0)
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # such as 2024-13-01, no date
            value = text
        section = nested
        parts = name.split(".")
        depth = next((n for n, part in enumerate(parts) if part in FLAT), len(parts)) + 1
        *parents, leaf = name.split(".", depth)
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ConfigError(
                    f"--{name} sets a key below a value", got=section, fix="give one of the two"
                )
        section[leaf] = value
    return nested


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; neither is changed.

    Example:
        >>> merge({"data": {"path": "a", "text": ["t"]}}, {"data": {"path": "b"}})
        {'data': {'path': 'b', 'text': ['t']}}
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged


def _coerce(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _coerce_union([a for a in arguments if a is not type(None)], value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(
                f"{path} has no such choice",
                got=value,
                fix=nearest(str(value), map(str, arguments)),
            )
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, where=path)
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} must be a list", got=value, fix="write [a, b]")
        item = arguments[0] if arguments else Any
        return tuple(_coerce(item, v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a mapping", got=value, fix="write key: value lines")
        item = arguments[1] if arguments else Any
        return {str(k): _coerce(item, v, f"{path}.{k}") for k, v in value.items()}
    return _coerce_scalar(hint, value, path)


def _coerce_union(hints: list[Any], value: Any, path: str) -> Any:
    for hint in hints:
        if isinstance(hint, type) and type(value) is hint:
            return value
    failure: ConfigError | None = None
    for hint in hints:
        try:
            return _coerce(hint, value, path)
        except ConfigError as error:
            failure = error
    raise failure or ConfigError(f"{path} has a wrong value", got=value, fix="see --help")


def _coerce_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as a string
        except ValueError:
            pass
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is str and isinstance(value, (int, float, date)) and not isinstance(value, bool):
        return str(value)  # an id that looks like a number, a day that YAML made a date
    if isinstance(hint, type) and isinstance(value, hint):
        if hint is int and isinstance(value, bool):
            raise ConfigError(f"{path} must be of type int", got=value, fix="write a number")
        return value
    name = getattr(hint, "__name__", str(hint))
    if value is None:
        raise ConfigError(f"{path} is empty", fix=f"give a value of type {name}, or leave it out")
    fix = f"give a value of type {name}"
    if hint is str and isinstance(value, dict):
        fix = (
            """put quotes around it, on a command line '"{...}"': YAML reads braces as a mapping"""
        )
    raise ConfigError(f"{path} must be of type {name}", got=value, fix=fix)
