"""From a catalogue to the features of all its items, encoding only what changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmalign.data.catalog import Catalog
from mmalign.errors import DataError
from mmalign.features.cache import FeatureCache
from mmalign.features.shelf import Advance, Lookup, Shelf
from mmalign.interfaces import Encoder, Feature, Media
from mmalign.progress import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "AttributeEncoderLike",
    "BuildReport",
    "ModalityReport",
    "Problem",
    "build_features",
]


_SHOWN = 10  # problems that a terminal is told of


class AttributeEncoderLike(Protocol):
    """What :class:`mmalign.encoders.AttributeEncoder` offers."""

    def fit(self, columns: Mapping[str, Any], rows: NDArray[np.generic]) -> Any:
        """Learn from these rows and return the fitted encoder."""
        ...

    def transform(self, columns: Mapping[str, Any]) -> dict[str, Feature]:
        """Encode all rows."""
        ...

    def problems(self, columns: Mapping[str, Any]) -> dict[str, dict[int, str]]:
        """Attribute to row to the reason why a value that is there cannot be read."""
        ...


@dataclass(frozen=True)
class Problem:
    """An item that lost one modality, and why."""

    modality: str
    item_id: str
    reason: str


@dataclass(frozen=True)
class ModalityReport:
    """What became of all items in one modality; the four counts add up to their number.

    Attributes:
        encoded: Items encoded now.
        cached: Items found in the cache.
        absent: Items that have no such content.
        broken: Items whose content cannot be used.
        seconds: Time taken.
        notes: The encoder's counts, such as ``truncated`` texts.
    """

    encoded: int
    cached: int
    absent: int
    broken: int
    seconds: float
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Items encoded per second."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class BuildReport:
    """What :func:`build_features` did."""

    modalities: dict[str, ModalityReport]
    problems: tuple[Problem, ...]
    notices: tuple[str, ...]

    def lines(self) -> list[str]:
        """One line per modality and notice, and for the first problems, for a terminal."""
        lines = []
        for name, m in self.modalities.items():
            notes = "".join(f", {count:,} {note}" for note, count in m.notes.items())
            rate = f" ({m.rate:,.0f}/s)" if m.encoded else ""
            lines.append(
                f"{name}: {m.encoded:,} encoded in {m.seconds:.1f} s{rate}, {m.cached:,} cached, "
                f"{m.absent:,} absent, {m.broken:,} broken{notes}"
            )
        lines.extend(self.notices)
        first = self.problems[:_SHOWN]
        lines.extend(f"{p.modality} of item {p.item_id}: {p.reason}" for p in first)
        if len(self.problems) > len(first):
            lines.append(f"and {len(self.problems) - len(first):,} more items like these")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def build_features(
    catalog: Catalog,
    encoders: Mapping[str, Encoder],
    attributes: AttributeEncoderLike | None,
    cache_dir: str | Path,
    progress: bool = True,
) -> tuple[dict[str, Feature], BuildReport]:
    """Make the features of all items of a catalogue.

    Texts and pictures come from the cache, and only content that is new or changed is encoded.
    Attributes are computed each time, by an encoder that is fitted on warm items alone. Content
    that came encoded with the catalogue is taken as it is.

    Args:
        catalog: The items.
        encoders: Modality (``text``, ``text.<column>``, ``image``) to its encoder; what follows
            an ``@`` tells several readings of the same content apart, and such a reading sees a
            column whole.
        attributes: Encodes the attributes that the catalogue's config names; None for none.
        cache_dir: Folder of the feature cache.
        progress: Whether a bar with rate and time left is drawn on standard error.

    Returns:
        Modality or attribute name to its feature ``[I, D]``, and what was done.

    Raises:
        DataError: An encoder's modality is not one a catalogue has, or the cache cannot be
            written.
        EncoderError: An encoder that is needed cannot be loaded; nothing was encoded then.
    """
    contents = _contents(catalog, encoders)
    columns = {name: catalog.attribute_values(name) for name in catalog.config.attributes}
    features: dict[str, Feature] = dict(catalog.features)
    reports: dict[str, ModalityReport] = {}
    problems: list[Problem] = []

    def complain(modality: str, rows: Mapping[int, str]) -> None:
        ids = catalog.item_ids
        problems.extend(Problem(modality, str(ids[row]), reason) for row, reason in rows.items())

    with _bar(progress) as bar:
        wanted = _look_up(FeatureCache(cache_dir), encoders, contents, bar)
        for modality, one in wanted.items():
            started = time.perf_counter()
            with _advancing(bar, f"encoding {modality}", len(one.lookup.missing)) as advance:
                run = one.shelf.fill(one.lookup, advance)
            features[modality] = run.feature
            seconds = one.seconds + time.perf_counter() - started
            reports[modality] = ModalityReport(
                run.encoded, run.cached, run.absent, len(run.problems), seconds, run.notes
            )
            complain(modality, run.problems)
    if attributes is not None and columns:
        started = time.perf_counter()
        encoded = attributes.fit(columns, catalog.warm).transform(columns)
        unusable = attributes.problems(columns)
        seconds = (time.perf_counter() - started) / max(1, len(encoded))
        for name, feature in encoded.items():
            features[name] = feature
            broken = unusable.get(name, {})
            present = int(feature.present.sum())
            absent = len(feature.present) - present - len(broken)
            reports[name] = ModalityReport(present, 0, absent, len(broken), seconds)
            complain(name, broken)
    notices = dict.fromkeys(notice for one in wanted.values() for notice in one.shelf.notices)
    for name, feature in catalog.features.items():
        if name not in reports:
            notices[f"{name}: came encoded, for {feature.present.mean():.1%} of the items"] = None
    return features, BuildReport(reports, tuple(problems), tuple(notices))


def _contents(
    catalog: Catalog, encoders: Mapping[str, Encoder]
) -> dict[str, Sequence[Media | None]]:
    readers: dict[str, Callable[[], Sequence[Media | None]]] = {
        "text": catalog.texts,
        "image": catalog.images,
        **{f"text.{column}": partial(catalog.texts_of, column) for column in catalog.config.text},
    }
    contents: dict[str, Sequence[Media | None]] = {}
    for modality, encoder in encoders.items():
        content, is_further, _ = modality.partition("@")
        if content not in readers or encoder.modality != content.partition(".")[0]:
            raise DataError(
                f"modality {modality!r} cannot be encoded by an encoder of {encoder.modality!r}",
                fix="map text to a text encoder and image to an image encoder",
            )
        column = content.partition(".")[2]
        if is_further and column:
            contents[modality] = catalog.texts_of(column, whole=True)
        else:
            contents[modality] = readers[content]()
    return contents


@dataclass(frozen=True)
class _Wanted:
    """What one modality wants of the cache, and the seconds it took to find out."""

    shelf: Shelf
    lookup: Lookup
    seconds: float


def _look_up(
    cache: FeatureCache,
    encoders: Mapping[str, Encoder],
    contents: Mapping[str, Sequence[Media | None]],
    bar: Progress | None,
) -> dict[str, _Wanted]:
    """Find out what there is to encode in all modalities, and load the encoders of that.

    All are loaded before the first one works, which may take hours: one that cannot be loaded is
    known at once. Modalities with the same encoder share it.
    """
    shelves: dict[str, Shelf] = {}
    wanted: dict[str, _Wanted] = {}
    for modality, encoder in encoders.items():
        started = time.perf_counter()
        if encoder.fingerprint not in shelves:
            shelves[encoder.fingerprint] = cache.open(encoder)
        shelf = shelves[encoder.fingerprint]
        with _advancing(bar, f"hashing {modality}", len(contents[modality])) as advance:
            lookup = shelf.look_up(contents[modality], advance)
        wanted[modality] = _Wanted(shelf, lookup, time.perf_counter() - started)
    for one in wanted.values():
        if one.lookup.missing:
            one.shelf.check_encoder()
    return wanted


@contextmanager
def _advancing(bar: Progress | None, what: str, total: int) -> Iterator[Advance | None]:
    """Draw how far a step is."""
    if bar is None or not total:
        yield None
        return
    task = bar.add_task(what, total=total)
    yield lambda count: bar.advance(task, count)


@contextmanager
def _bar(progress: bool) -> Iterator[Progress | None]:
    if not progress:
        yield None
        return
    with progress_bar() as bar:
        yield bar
