"""The text that an item is read by: its columns or a template, parts left out in training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, nearest

__all__ = ["FieldText"]

_FIELD = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_BRACKET = re.compile(r"[\[\]{}]")


@dataclass(frozen=True)
class FieldText:
    """Renders the text of items.

    Attributes:
        fields: Column to the text of each item, None where it has none.
        template: Text with ``{column}`` in it; what stands in square brackets is left out where one
            of its columns is missing. None joins the columns by ``". "``.
        dropout: Probability that training leaves out a column; one at least stays.
        seed: Of what is left out.

    Example:
        >>> fields = {"title": ["Tea", "Mug"], "brand": ["Leaf", None]}
        >>> text = FieldText(fields, "{title}[ by {brand}]")
        >>> text.plain()
        ['Tea by Leaf', 'Mug']
    """

    fields: Mapping[str, Sequence[str | None]]
    template: str | None = None
    dropout: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, catalog: Catalog, template: str | None, dropout: float, seed: int) -> FieldText:
        """Read the text columns of a catalogue.

        Raises:
            ConfigError: The template names a column that ``data.text`` does not.
        """
        columns = catalog.config.text
        for name in _FIELD.findall(template or ""):
            if name not in columns:
                raise ConfigError(
                    "finetune.template names a column that data.text does not",
                    got=name,
                    fix=nearest(name, columns),
                )
        if template is not None and not _FIELD.search(template):
            raise ConfigError(
                "finetune.template names no column", got=template, fix="write '{title}'"
            )
        if _BRACKET.search(_OPTIONAL.sub(r"\1", _FIELD.sub("", template or ""))):
            raise ConfigError(
                "finetune.template has a bracket without its partner, or one inside another",
                got=template,
                fix="write '{title}[ by {brand}]'",
            )
        return cls({c: catalog.joined(c) for c in columns}, template, dropout, seed)

    def plain(self) -> list[str | None]:
        """Text of every item, nothing left out; None where there is none."""
        count = len(next(iter(self.fields.values()), ()))
        return [self._fill(row, frozenset()) for row in range(count)]

    def render(self, row: int, epoch: int) -> str | None:
        """Text of an item in an epoch of training, by seed, epoch and item alone."""
        if not self.dropout:
            return self._fill(row, frozenset())
        read = self.fields if self.template is None else set(_FIELD.findall(self.template))
        present = [n for n, cells in self.fields.items() if n in read and cells[row] is not None]
        if len(present) < 2:
            return self._fill(row, frozenset())
        rng = np.random.default_rng([self.seed, epoch, row])
        out = rng.random(len(present)) < self.dropout
        if out.all():
            out[rng.integers(len(present))] = False
        left_out = {name for name, is_out in zip(present, out, strict=True) if is_out}
        return self._fill(row, frozenset(left_out)) or self._fill(row, frozenset())

    def column(self, name: str) -> Sequence[str | None]:
        """Text of one column alone."""
        if name not in self.fields:
            raise ConfigError(
                "finetune.text_pairs names no text column", got=name, fix=nearest(name, self.fields)
            )
        return self.fields[name]

    def _fill(self, row: int, left_out: frozenset[str]) -> str | None:
        values = {
            name: None if name in left_out else cells[row] for name, cells in self.fields.items()
        }
        if self.template is None:
            return ". ".join(value for value in values.values() if value is not None) or None

        def optional(match: re.Match[str]) -> str:
            names = _FIELD.findall(match[1])
            return match[1] if all(values[name] is not None for name in names) else ""

        named = _FIELD.findall(self.template)
        if all(values[name] is None for name in named):
            return None
        chosen = _OPTIONAL.sub(optional, self.template)
        filled = _FIELD.sub(lambda match: values[match[1]] or "", chosen)
        return " ".join(filled.split()) or None
