"""What of a user's files is read, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mmalign.data.condition import Condition
from mmalign.data.splits import SplitConfig
from mmalign.errors import ConfigError, nearest

__all__ = ["AttributeConfig", "AttributeKind", "DataConfig"]

AttributeKind = Literal["category", "multi", "number", "date", "words"]


@dataclass(frozen=True)
class AttributeConfig:
    r"""One attribute of the items.

    Args:
        kind: ``category`` (one value), ``multi`` (several, separated by ``|`` or in a list),
            ``number``, ``date``, or ``words`` (of a text, weighed by rarity).
        column: Column that holds it; the attribute's name when not given.
        pattern: Regular expression with one group that pulls the value out of a text column.
        width: How far a number reaches, in its unit (days for a date); by default a part of the
            middle nine tenths of the range.
        shape: How the likeness of two numbers falls with their distance: ``laplace`` or ``gauss``.

    Raises:
        ConfigError: There is no such kind, the width is not positive, or the pattern is broken or
            has not one group.

    Example:
        >>> AttributeConfig("number", column="title", pattern=r"\((\d{4})\)").kind
        'number'
    """

    kind: AttributeKind
    column: str | None = None
    pattern: str | None = None
    width: float | None = None
    shape: Literal["laplace", "gauss"] = "laplace"

    def __post_init__(self) -> None:
        kinds = get_args(AttributeKind)
        if self.kind not in kinds:
            raise ConfigError(
                "no such kind of attribute", got=self.kind, fix=nearest(str(self.kind), kinds)
            )
        if self.width is not None and not self.width > 0:
            raise ConfigError(
                "the attribute's width must be positive", got=self.width, fix="mend it"
            )
        if self.pattern is None:
            return
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigError(
                f"the attribute's pattern is broken, {error}", got=self.pattern, fix="mend it"
            ) from None
        if groups != 1:
            raise ConfigError(
                "the attribute's pattern must have exactly one group",
                got=self.pattern,
                fix="put round brackets around the value, and (?:...) around anything else",
            )


@dataclass(frozen=True)
class DataConfig:
    """Where the data is and which of its columns are used.

    Args:
        path: Data folder, ``load_from_disk`` folder, folder of pictures, folder of a peer's
            files, or Hugging Face dataset id.
        items: File name, with or without ending; None takes the items from the interactions.
        interactions: File name, with or without ending; None for a catalogue without a log.
        users: File name, with or without ending; None when there is no such table.
        text: Columns whose texts are joined to the text of an item.
        rewrite: Text column to what is changed in its cells before they are read as texts: regular
            expression to what stands in place of each match, one after the other. ``^`` and ``$``
            are the ends of the cell, in which the values of a list stand as ``a|b``. Attributes
            read cells as they are.
        image: Column of pictures: paths relative to ``path``, or bytes.
        attributes: Name of each attribute to where it is found.
        neighbours: Modality to the file of a given neighbour list, with or without ending: columns
            ``item_id, neighbour_id`` and optionally ``weight``, for content that is at hand only
            as which items are alike.
        positive: Condition that a row of the log must fulfil, such as ``rating >= 3.5``; other rows
            are dropped.
        split: How to divide a log that has no ``split`` column.

    Raises:
        ConfigError: The condition cannot be read, an attribute has the name of a modality, or what
            is to be rewritten is no text column or no regular expression.
    """

    path: str = ""
    items: str | None = "items"
    interactions: str | None = "interactions"
    users: str | None = None
    text: tuple[str, ...] = ()
    rewrite: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    image: str | None = None
    attributes: Mapping[str, AttributeConfig] = field(default_factory=dict)
    neighbours: Mapping[str, str] = field(default_factory=dict)
    positive: str | None = None
    split: SplitConfig = field(default_factory=SplitConfig)

    def __post_init__(self) -> None:
        if isinstance(self.text, str):
            raise ConfigError("data.text must be a list", got=self.text, fix="write [title, ...]")
        for reserved in ("text", "image"):
            if reserved in self.attributes:
                raise ConfigError(
                    "an attribute has the name of a modality", got=reserved, fix="rename it"
                )
        for column, changes in self.rewrite.items():
            if column not in self.text:
                raise ConfigError(
                    "data.rewrite names a column that data.text does not",
                    got=column,
                    fix=nearest(column, self.text),
                )
            for pattern, replacement in changes.items():
                try:
                    re.sub(pattern, replacement, "")
                except (re.error, IndexError, OverflowError, TypeError) as error:
                    raise ConfigError(
                        f"data.rewrite.{column} cannot be used, {error}", got=pattern, fix="mend it"
                    ) from error
        if self.positive is not None:
            Condition.parse(self.positive)

    def text_parts(self) -> tuple[str, ...]:
        """Text columns that are worth encoding alone: all but those that are attributes themselves.

        Nothing when there are not several text columns: the text as a whole is the one part.

        Example:
            >>> genres = {"genres": AttributeConfig("multi")}
            >>> DataConfig(text=("title", "genres", "plot"), attributes=genres).text_parts()
            ('title', 'plot')
        """
        whole = {
            attribute.column or name
            for name, attribute in self.attributes.items()
            if attribute.pattern is None and attribute.kind != "words"
        }
        return tuple(c for c in self.text if c not in whole) if len(self.text) > 1 else ()

    def columns(self) -> dict[str, str]:
        """Every item column that is named here, with the key that names it.

        Example:
            >>> DataConfig(text=("title",), image="photo").columns()
            {'title': 'data.text', 'photo': 'data.image'}
        """
        named = dict.fromkeys(self.text, "data.text")
        if self.image is not None:
            named.setdefault(self.image, "data.image")
        for name, attribute in self.attributes.items():
            named.setdefault(attribute.column or name, f"data.attributes.{name}")
        return named

    def text_columns(self) -> set[str]:
        """Item columns whose cells are text even when they look like numbers.

        Example:
            >>> price = AttributeConfig("number")
            >>> DataConfig(text=("title",), attributes={"price": price}).text_columns()
            {'title'}
        """
        named = {*self.text, *([self.image] if self.image is not None else [])}
        for name, attribute in self.attributes.items():
            if attribute.kind != "number" or attribute.pattern is not None:
                named.add(attribute.column or name)
        return named
