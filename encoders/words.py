"""Words of short and long texts, weighed by how rare they are (TF-IDF)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex

from mmalign.interfaces import Feature

__all__ = ["Words", "encode_words", "learn_words"]

_WORD = regex.compile(r"[\w\p{M}]+")
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+"
)
"""Runs of letters of the scripts that are written without spaces."""
_LEAST_ITEMS = 2
_MOST_ITEMS = 0.3


@dataclass(frozen=True)
class Words:
    """What was learned of a text column.

    Attributes:
        words: The vocabulary, sorted.
        idf: Weight of each word.
    """

    words: tuple[str, ...]
    idf: tuple[float, ...]

    @property
    def dim(self) -> int:
        """Columns of the feature."""
        return max(1, len(self.words))


def learn_words(texts: Sequence[str | None], max_words: int) -> Words:
    """Choose a vocabulary and weigh it by smoothed inverse document frequency.

    ``idf = ln((1 + n) / (1 + df)) + 1`` (Sparck Jones 1972, as scikit-learn smooths it). A word in
    one text alone likens nothing to anything, and one in more than 0.3 of the texts says little, in
    whatever language: both are left out. Of the others the most frequent ``max_words`` stay.
    """
    counts = Counter(word for text in texts if text for word in set(_split(text)))
    total = sum(bool(text and text.strip()) for text in texts)
    usable = {w: n for w, n in counts.items() if _LEAST_ITEMS <= n <= _MOST_ITEMS * total}
    kept = sorted(sorted(usable, key=lambda word: (-usable[word], word))[:max_words])
    return Words(tuple(kept), tuple(math.log((1 + total) / (1 + usable[w])) + 1 for w in kept))


def encode_words(texts: Sequence[str | None], learned: Words) -> Feature:
    """Encode texts as unit rows of ``(1 + ln tf) * idf``; a text without a known word is absent.

    Shapes:
        returns: values ``[I, W]``; present ``[I]``.

    Example:
        >>> learned = Words(words=("cat", "dog"), idf=(1.0, 2.0))
        >>> encode_words(["Cat!", None, "a bird"], learned).values.tolist()
        [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    columns = {word: column for column, word in enumerate(learned.words)}
    values = np.zeros((len(texts), learned.dim), np.float32)
    for row, text in enumerate(texts):
        for word, count in Counter(_split(text or "")).items():
            if word in columns:
                column = columns[word]
                values[row, column] = (1 + math.log(count)) * learned.idf[column]
    norms = np.linalg.norm(values, axis=1)
    values /= np.where(norms > 0, norms, 1)[:, None]
    return Feature(values, norms > 0)


def _split(text: str) -> list[str]:
    """Words in small letters; of what is written without spaces, letters two by two."""
    words: list[str] = []
    for word in _WORD.findall(text.lower()):
        for run in _UNSPACED.findall(word):
            words += [run[at : at + 2] for at in range(max(1, len(run) - 1))]
        words += _UNSPACED.sub(" ", word).split()
    return words
