"""Items that stand on both sides of the split under two ids: a cold item that is no news."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from mmalign.data.catalog import Catalog
from mmalign.interfaces import Feature, Features, FloatArray, IntArray

__all__ = ["Duplicate", "digest_of", "duplicates_across_split", "normalise_text", "size_of"]

COSINE = 0.995
"""From here on two features of texts or pictures are those of one item, re-cropped or re-typed."""
_BLOCK = 2048
_NO_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Duplicate:
    """A cold item of valid or test that is also in train, by its content.

    Attributes:
        cold: Id of the cold item.
        warm: Id of the first warm item that is the same.
        by: ``text`` (equal but for case, accents, signs and spaces), ``picture`` (equal bytes), or
            the name of a feature whose rows are nearly parallel.
        similarity: 1 for equal content, else the cosine.
    """

    cold: str
    warm: str
    by: str
    similarity: float


def duplicates_across_split(
    catalog: Catalog, features: Features | None = None
) -> tuple[Duplicate, ...]:
    """Find items without a train row but with rows in valid or test that equal a warm item.

    Ids play no part: what leaks is content that was trained on under another id.

    Args:
        catalog: Texts, as ``data.rewrite`` leaves them, and pictures are compared.
        features: Those of ``text`` and ``image`` are compared by cosine, blockwise; attributes are
            not, since many items rightly share them.

    Returns:
        One entry per cold item and kind of content, in the order of the items.
    """
    measured = catalog.matrix("valid", "test").getnnz(axis=0) > 0
    cold, warm = np.flatnonzero(measured & ~catalog.warm), np.flatnonzero(catalog.warm)
    if not len(cold) or not len(warm):
        return ()
    ids = catalog.item_ids
    texts = [None if text is None else normalise_text(text) or None for text in catalog.texts()]
    found = [("text", c, w, 1.0) for c, w in _equal(texts, cold, warm)]
    found += [("picture", c, w, 1.0) for c, w in _same_pictures(catalog.images(), cold, warm)]
    for name, feature in (features or {}).items():
        # Another reading of what is compared already tells no more: rows of a language model that
        # is asked the same of all items are nearly parallel.
        if name.partition(".")[0] in ("text", "image") and "@" not in name:
            found += [(name, c, w, s) for c, w, s in _parallel(feature, cold, warm)]
    return tuple(
        Duplicate(str(ids[c]), str(ids[w]), by, similarity)
        for by, c, w, similarity in sorted(found, key=lambda one: (one[1], one[0]))
    )


def normalise_text(text: str) -> str:
    """Bring a text to the form in which retyped copies are equal.

    Example:
        >>> normalise_text("  The Café -- Part_2 ") == normalise_text("the cafe, part 2!")
        True
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    return _NO_WORDS.sub(" ", plain).strip()


def _equal(contents: Sequence[str | None], cold: IntArray, warm: IntArray) -> list[tuple[int, int]]:
    known: dict[str, int] = {}
    for row in warm.tolist():
        content = contents[row]
        if content is not None:
            known.setdefault(content, row)
    pairs = ((row, contents[row]) for row in cold.tolist())
    return [(row, known[content]) for row, content in pairs if content in known]


def _same_pictures(
    images: Sequence[Path | bytes | None], cold: IntArray, warm: IntArray
) -> list[tuple[int, int]]:
    """Compare digests, of those pictures only whose length is not unique."""
    lengths = [size_of(image) for image in images]
    shared = {lengths[row] for row in cold.tolist()} & {lengths[row] for row in warm.tolist()}
    contents = [
        digest_of(image) if image is not None and length and length in shared else None
        for image, length in zip(images, lengths, strict=True)
    ]
    return _equal(contents, cold, warm)


def size_of(image: Path | bytes | None) -> int:
    """Bytes of a picture; 0 for one that is not there, or whose path no system would take."""
    if not isinstance(image, Path):
        return len(image or b"")
    try:
        return image.stat().st_size if image.is_file() else 0
    except OSError:
        return 0


def digest_of(image: Path | bytes) -> str:
    """SHA-256 of a picture's bytes."""
    return sha256(image if isinstance(image, bytes) else image.read_bytes()).hexdigest()


def _parallel(feature: Feature, cold: IntArray, warm: IntArray) -> list[tuple[int, int, float]]:
    unit = _unit(feature)
    cold, warm = cold[feature.present[cold]], warm[feature.present[warm]]
    if not len(warm):
        return []
    found = []
    for start in range(0, len(cold), _BLOCK):
        rows = cold[start : start + _BLOCK]
        best, at = np.full(len(rows), -1.0), np.zeros(len(rows), np.int64)
        for other in range(0, len(warm), _BLOCK):
            cosine = unit[rows] @ unit[warm[other : other + _BLOCK]].T
            nearest = cosine.argmax(axis=1)
            value = cosine[np.arange(len(rows)), nearest]
            better = value > best
            best[better], at[better] = value[better], other + nearest[better]
        found += [
            (int(rows[i]), int(warm[at[i]]), min(float(best[i]), 1.0))
            for i in np.flatnonzero(best >= COSINE)
        ]
    return found


def _unit(feature: Feature) -> FloatArray:
    norms = np.linalg.norm(feature.values, axis=1, keepdims=True)
    return np.asarray(feature.values / np.where(norms > 0, norms, 1), np.float32)
