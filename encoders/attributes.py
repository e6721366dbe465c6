"""Attributes are content: categories, lists, numbers, dates and words become feature rows.

Everything that is learned (vocabulary, range, mean) comes from the rows named in ``fit``, which
are the items with train interactions; a cold item never shapes its own representation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from mmalign.config import from_dict, to_dict
from mmalign.encoders.attribute_values import read_labels, read_numbers, read_texts
from mmalign.encoders.words import Words, encode_words, learn_words
from mmalign.errors import EncoderError, nearest
from mmalign.interfaces import Feature

__all__ = ["AttributeEncoder", "AttributeSpec"]

Kind = Literal["category", "multi", "number", "date", "words"]
Columns = Mapping[str, "pd.Series[Any] | Sequence[Any]"]

_MAX_BUMPS = 512
_DEFAULT_WIDTHS = {"laplace": 6, "gauss": 12}  # across the middle nine tenths of train values
_STEPS_PER_WIDTH = 8  # grid of the Laplace features


@dataclass(frozen=True)
class AttributeSpec:
    """How one attribute is read.

    Attributes:
        kind: ``category`` (one label), ``multi`` (labels in a list or split by ``|``), ``number``,
            ``date`` (anything pandas reads as a date; bare numbers are Unix seconds), or ``words``
            of a text.
        width: How far a number reaches, in its unit (days for a date); by default a sixth of the
            range from the 5th to the 95th percentile, or a twelfth for ``gauss``.
        shape: What of two numbers ``d`` apart is alike: ``laplace`` features have the inner
            product ``exp(-d / width)``; ``gauss`` features are the number itself and bumps
            ``exp(-(d / width)^2)`` around centres every ``width``.
        max_labels: Most frequent labels that are kept, or four times as many words.
    """

    kind: Kind
    width: float | None = None
    shape: Literal["laplace", "gauss"] = "laplace"
    max_labels: int = 512

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        choices = get_args(Kind)
        if self.kind not in choices:
            raise EncoderError(
                "no such attribute kind", got=self.kind, fix=nearest(str(self.kind), choices)
            )
        if self.width is not None and not (np.isfinite(self.width) and self.width > 0):
            raise EncoderError("width must be positive", got=self.width, fix="pass a width > 0")
        if self.shape not in _DEFAULT_WIDTHS:
            raise EncoderError(
                "no such shape", got=self.shape, fix=nearest(str(self.shape), _DEFAULT_WIDTHS)
            )
        if self.max_labels < 1:
            raise EncoderError("max_labels must be positive", got=self.max_labels, fix="pass >= 1")


@dataclass(frozen=True)
class _Labels:
    """What was learned of a categorical attribute."""

    labels: tuple[str, ...]

    @property
    def dim(self) -> int:
        return max(1, len(self.labels))


@dataclass(frozen=True)
class _Numbers:
    """What was learned of a numeric attribute; ``width`` 0 means there was nothing to learn."""

    low: float
    high: float
    mean: float
    scale: float
    width: float
    shape: Literal["laplace", "gauss"]

    @property
    def centres(self) -> NDArray[np.float64]:
        step = self.width
        if self.shape == "laplace":
            step = max(self.width / _STEPS_PER_WIDTH, (self.high - self.low) / (_MAX_BUMPS / 2))
        steps = int(np.ceil((self.high - self.low) / step - 1e-9))
        return np.asarray(self.low + step * np.arange(steps + 1), np.float64)

    @property
    def dim(self) -> int:
        return int(self.shape == "gauss") + len(self.centres) if self.width else 1


_Learned: TypeAlias = _Labels | _Numbers | Words
_LEARNED: dict[str, type[_Learned]] = {"category": _Labels, "multi": _Labels, "words": Words}


class AttributeEncoder:
    r"""Turns attribute columns into features, one modality per attribute.

    * ``category`` and ``multi``: one column per label that a fitted row has. Labels never seen
      are ignored; a row with none left is absent.
    * ``number`` and ``date``: smooth features, see :class:`AttributeSpec`. Neighbouring values
      overlap, so that a linear or kernel model can follow any curve. Values are first brought
      into the range of the fitted rows (1st to 99th percentile): an outlier is an extreme, no
      more.

    * ``words``: TF-IDF, see :mod:`mmalign.encoders.words`. An encoder of meaning blurs names, years
      and rare terms, and these tell items apart.

    A missing value (None, NaN, empty) makes the row absent: zero, ``present`` False.

    Args:
        specs: Attribute name to its :class:`AttributeSpec`, or just its kind.

    Example:
        >>> encoder = AttributeEncoder({"genres": "multi"})
        >>> columns = {"genres": ["Comedy|Drama", "Drama", None]}
        >>> genres = encoder.fit(columns, [0, 1]).transform(columns)["genres"]
        >>> genres.values.tolist(), genres.present.tolist()
        ([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]], [True, True, False])
    """

    def __init__(self, specs: Mapping[str, AttributeSpec | Kind]) -> None:
        self.specs = {
            name: spec if isinstance(spec, AttributeSpec) else AttributeSpec(spec)
            for name, spec in specs.items()
        }
        self._learned: dict[str, _Learned] = {}

    def fit(self, columns: Columns, rows: NDArray[np.generic] | Sequence[int]) -> AttributeEncoder:
        """Learn vocabularies and ranges.

        Args:
            columns: Attribute name to its raw values, ``[I]`` each.
            rows: The rows to learn from: row numbers or a boolean mask. Pass train items only.

        Returns:
            Itself.

        Raises:
            EncoderError: A column is missing, or an explicit width makes too many bumps.
        """
        self._check(columns)
        index = np.asarray(rows)
        index = index if index.dtype == np.bool_ else index.astype(np.int64)
        learned: dict[str, _Learned] = {}
        for name, spec in self.specs.items():
            values = pd.Series(columns[name]).reset_index(drop=True)[index]
            if spec.kind in ("category", "multi"):
                learned[name] = _learn_labels(read_labels(values, spec.kind), spec.max_labels)
            elif spec.kind == "words":
                learned[name] = learn_words(read_texts(values), 4 * spec.max_labels)
            else:
                numbers, _ = read_numbers(values, spec.kind)
                learned[name] = _learn_numbers(numbers, spec, name)
        self._learned = learned
        return self

    def transform(self, columns: Columns) -> dict[str, Feature]:
        """Encode columns of any length with what was learned.

        Shapes:
            columns: ``[I]`` per attribute.
            returns: per attribute ``[I, D]`` and ``[I]``.

        Raises:
            EncoderError: A column is missing, or nothing was fitted.
        """
        self._check(columns)
        if self._learned.keys() != self.specs.keys():
            raise EncoderError("the attribute encoder was not fitted", fix="call fit first")
        features = {}
        for name, spec in self.specs.items():
            values = pd.Series(columns[name])
            learned = self._learned[name]
            if isinstance(learned, _Labels):
                features[name] = _encode_labels(read_labels(values, spec.kind), learned)
            elif isinstance(learned, Words):
                features[name] = encode_words(read_texts(values), learned)
            else:
                features[name] = _encode_numbers(read_numbers(values, spec.kind)[0], learned)
        return features

    def problems(self, columns: Columns) -> dict[str, dict[int, str]]:
        """Find values that are there but cannot be read: infinite numbers, words, bad dates.

        Their rows are absent, as if the value were missing.

        Returns:
            Attribute name to row number to a one-line reason; attributes without any are left out.
        """
        self._check(columns)
        found = {}
        for name, spec in self.specs.items():
            if spec.kind in ("number", "date"):
                _, reasons = read_numbers(pd.Series(columns[name]), spec.kind)
                if reasons:
                    found[name] = reasons
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; :meth:`from_dict` gives back an encoder with the same output."""
        return {
            name: {"spec": to_dict(spec)}
            | ({"learned": to_dict(self._learned[name])} if name in self._learned else {})
            for name, spec in self.specs.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AttributeEncoder:
        """Rebuild an encoder from :meth:`to_dict`.

        Raises:
            ConfigError: A key is unknown or missing, or a value has the wrong type.
        """
        specs: dict[str, AttributeSpec | Kind] = {
            name: from_dict(AttributeSpec, entry["spec"], where=name)
            for name, entry in values.items()
        }
        encoder = cls(specs)
        for name, entry in values.items():
            if "learned" in entry:
                kind: type[_Learned] = _LEARNED.get(encoder.specs[name].kind, _Numbers)
                encoder._learned[name] = from_dict(kind, entry["learned"], where=name)
        return encoder

    def _check(self, columns: Columns) -> None:
        for name in self.specs:
            if name not in columns:
                raise EncoderError(
                    "no values for this attribute", got=name, fix=nearest(name, columns)
                )


def _learn_labels(labels: list[tuple[str, ...]], max_labels: int) -> _Labels:
    counts = Counter(label for row in labels for label in row)
    kept = sorted(counts, key=lambda label: (-counts[label], label))[:max_labels]
    return _Labels(tuple(sorted(kept)))


def _encode_labels(labels: list[tuple[str, ...]], learned: _Labels) -> Feature:
    columns = {label: column for column, label in enumerate(learned.labels)}
    values = np.zeros((len(labels), learned.dim), np.float32)
    for row, found in enumerate(labels):
        values[row, [columns[label] for label in found if label in columns]] = 1
    return Feature(values, np.asarray(values.any(axis=1)))


def _learn_numbers(numbers: NDArray[np.float64], spec: AttributeSpec, name: str) -> _Numbers:
    usable = numbers[~np.isnan(numbers)]
    if not len(usable):
        return _Numbers(0.0, 0.0, 0.0, 1.0, 0.0, spec.shape)
    low, p5, p95, high = (float(x) for x in np.percentile(usable, [1, 5, 95, 99]))
    width = spec.width
    if width is None:
        # The second bound keeps the number of columns small when the tails are long.
        parts = _DEFAULT_WIDTHS[spec.shape]
        width = max((p95 - p5) / parts, (high - low) / (4 * parts)) or 1.0
    from sklearn.preprocessing import StandardScaler  # takes long to import; encoding needs none

    scaler = StandardScaler().fit(np.clip(usable, low, high)[:, None])
    mean, scale = float(scaler.mean_[0]), float(scaler.scale_[0])
    learned = _Numbers(low, high, mean, scale, float(width), spec.shape)
    least = 2 * (high - low) / (_MAX_BUMPS / 2)  # else values between two centres are like none
    if spec.shape == "laplace" and width < least:
        raise EncoderError(
            f"attribute {name!r} has too small a width for values from {low:g} to {high:g}",
            got=width,
            fix=f"pass a width of {least:.3g} or more",
        )
    if learned.dim > _MAX_BUMPS:
        raise EncoderError(
            f"attribute {name!r} would get more than {_MAX_BUMPS} columns",
            got=width,
            fix=f"pass a width of {width * learned.dim / _MAX_BUMPS:.3g} or more",
        )
    return learned


def _encode_numbers(numbers: NDArray[np.float64], learned: _Numbers) -> Feature:
    if not learned.width:
        return _absent(len(numbers), learned.dim)
    present = ~np.isnan(numbers)
    clipped = np.clip(numbers, learned.low, learned.high)[:, None]
    distance = np.abs(clipped - learned.centres) / learned.width
    if learned.shape == "laplace":
        values = _laplace(distance, learned)
    else:
        standardised = (clipped - learned.mean) / learned.scale
        values = np.hstack([standardised, np.exp(-(distance**2))])
    values[~present] = 0.0
    return Feature(values.astype(np.float32), present)


def _laplace(distance: NDArray[np.float64], learned: _Numbers) -> NDArray[np.float64]:
    """Coordinates whose inner product on the grid is the Laplace kernel: whiten by its root."""
    centres = learned.centres
    kernel = np.exp(-np.abs(centres[:, None] - centres) / learned.width)
    root = np.linalg.cholesky(kernel)
    similar = np.exp(-np.nan_to_num(distance, nan=np.inf))
    whitened: NDArray[np.float64] = solve_triangular(root, similar.T, lower=True).T
    return whitened


def _absent(rows: int, dim: int) -> Feature:
    return Feature(np.zeros((rows, dim), np.float32), np.zeros(rows, np.bool_))
