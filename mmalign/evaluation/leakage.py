"""Whether a fitted model knows what it must not: found by changing that and looking what moves.

Nothing of a model is read but its scores, so the check holds for any model, and for every way by
which a cold item may get in: an edge of training, a list of negatives, a scaler, a mean, a
neighbour graph. Half of the cold items become noise. If the model learned from warm items alone,
neither warm scores nor those of the other, unchanged cold items can move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.data.catalog import Catalog
from mmalign.interfaces import ITEM_ID, SPLIT, USER_ID, Feature, Features, IntArray, Recommends

__all__ = ["Fit", "Leak", "find_attribute_leaks", "find_leaks"]

Fit = Callable[[Catalog, Features], Recommends]
"""Fits from scratch under a fixed seed; anything it reads of the catalogue is under suspicion."""

_TOLERANCE = 1e-4  # in deviations of a user's scores: above rounding, below any real influence
_MAX_USERS = 200
_DEALS = 20  # attempts at giving every test row another item
WARM = "scores of warm items"


@dataclass(frozen=True)
class Leak:
    """Something that reached the model and must not.

    Attributes:
        source: What was changed.
        target: What moved.
        change: By how much at most, in deviations of a user's scores or of an attribute.
    """

    source: str
    target: str
    change: float

    def __str__(self) -> str:
        return f"{self.target} move when {self.source}, by {self.change:.2g} deviations"


def find_leaks(
    fit: Fit, catalog: Catalog, features: Features, *, seed: int = 0
) -> tuple[Leak, ...]:
    """Fit on the data as it is and on changed data, and compare scores.

    What is changed is what training must not see: the content of half of the items that have rows
    neither in train nor in valid becomes noise, and all test rows get other items. Valid rows and
    the items in them stay, since settings are rightly chosen on them.

    Args:
        fit: Fits a model from scratch; called twice, and up to twice more to tell a leak's source
            when there is one.
        catalog: The data.
        features: Content of its items.
        seed: Of the noise.

    Returns:
        What was found; nothing for a clean model.
    """
    rng = np.random.default_rng(seed)
    altered, kept = _halves(catalog, rng)
    watched = {WARM: np.flatnonzero(catalog.warm)}
    if features:  # the others come last, whatever is known
        known = np.any([feature.present for feature in features.values()], axis=0)
        kept = kept[known[kept]]
    if len(kept):
        watched["scores of cold items that stayed as they are"] = kept
    history = _histories(catalog, rng)
    noisy, shuffled = _with_noise(features, altered, rng), _with_other_tests(catalog, rng)

    def scores(catalog: Catalog, features: Features) -> dict[str, Any]:
        scorer = fit(catalog, features)
        return {name: scorer.score(history, items) for name, items in watched.items()}

    before = scores(catalog, features)
    if not _moved(before, scores(shuffled, noisy)):
        return ()
    unstable = _moved(before, scores(catalog, features))
    if unstable:
        source = "nothing at all is changed, so that no leak can be told"
        return tuple(Leak(source, target, change) for target, change in unstable.items())
    by_noise = _moved(before, scores(catalog, noisy))
    by_tests = _moved(before, scores(shuffled, features))
    return tuple(
        Leak(source, target, change)
        for source, found in (
            ("the content of other cold items becomes noise", by_noise),
            ("test rows get other items", by_tests),
        )
        for target, change in found.items()
    )


def find_attribute_leaks(
    build: Callable[[Catalog], Features], catalog: Catalog, *, seed: int = 0
) -> tuple[Leak, ...]:
    """Fit the attribute encoder with and without the values of half of the cold items.

    Args:
        build: Makes the attribute features of a catalogue, encoder and all.
        catalog: The data.
        seed: Of the choice of items.

    Returns:
        The attributes whose features of other items differ.
    """
    altered, _ = _halves(catalog, np.random.default_rng(seed))
    columns = [attribute.column or name for name, attribute in catalog.config.attributes.items()]
    items = catalog.items.copy()
    for column in set(columns):
        items[column] = items[column].where(~items.index.isin(altered), None)
    before, after = build(catalog), build(replace(catalog, items=items))
    others = np.setdiff1d(np.arange(catalog.num_items), altered)
    leaks = []
    for name, feature in before.items():
        change = _difference(feature.values[others], after[name].values[others])
        if change > _TOLERANCE:
            source = "values of other cold items are taken away"
            leaks.append(Leak(source, f"features of the attribute {name!r}", change))
    return tuple(leaks)


def _halves(catalog: Catalog, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Items without train and valid rows, parted into those to change and those to watch."""
    cold = np.flatnonzero(catalog.matrix("train", "valid").getnnz(axis=0) == 0)
    order = rng.permutation(cold)
    half = (len(order) + 1) // 2
    return np.sort(order[:half]), np.sort(order[half:])


def _histories(catalog: Catalog, rng: np.random.Generator) -> sp.csr_matrix:
    train = catalog.matrix("train")
    users = np.flatnonzero(train.getnnz(axis=1))
    return train[np.sort(rng.permutation(users)[:_MAX_USERS])]


def _with_noise(features: Features, rows: IntArray, rng: np.random.Generator) -> Features:
    """Put noise far from all content into some rows: it moves means, spans and neighbours."""
    noisy = {}
    for name, feature in features.items():
        values, present = feature.values.copy(), feature.present.copy()
        spread = 1 + float(np.abs(values).max(initial=0))
        noise = rng.normal(loc=3 * spread, scale=3 * spread, size=(len(rows), values.shape[1]))
        values[rows], present[rows] = noise, True
        noisy[name] = Feature(values, present)
    return noisy


def _with_other_tests(catalog: Catalog, rng: np.random.Generator) -> Catalog:
    """Give test rows items that their users have no test row of, but none for the first time.

    Which items have test rows at all is part of the split: it says which are cold in valid. Of a
    single item half of the rows are left out. Where users have nearly all items some rows may stay.
    """
    log = catalog.interactions.copy()
    rows = log.index[log[SPLIT] == "test"]
    test = log.loc[rows]
    items = test[ITEM_ID].unique()
    if len(items) < 2:
        return replace(catalog, interactions=log.drop(index=rows[: len(rows) // 2]))
    own = pd.MultiIndex.from_frame(test[[USER_ID, ITEM_ID]])

    def still_own(chosen: NDArray[Any]) -> IntArray:
        pairs = pd.MultiIndex.from_arrays([test[USER_ID], chosen])
        return np.flatnonzero(pairs.isin(own))

    best, left = test[ITEM_ID].to_numpy(), len(rows)
    for _ in range(_DEALS):
        chosen = _deal(items, len(rows), still_own, rng)
        if (staying := len(still_own(chosen))) < left:
            best, left = chosen, staying
        if not left:
            break
    log.loc[rows, ITEM_ID] = best
    return replace(catalog, interactions=log)


def _deal(
    items: NDArray[Any],
    count: int,
    still_own: Callable[[NDArray[Any]], IntArray],
    rng: np.random.Generator,
) -> NDArray[Any]:
    """Deal every item at least once, then let rows that got their own swap with others."""
    chosen = rng.permutation(np.concatenate([items, rng.choice(items, count - len(items))]))
    for _ in range(_DEALS):
        own = still_own(chosen)
        if not len(own):
            break
        for row in own:
            other = rng.integers(count)
            chosen[row], chosen[other] = chosen[other], chosen[row]
    return chosen


def _moved(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    # Items of which nothing is known stand far below all others: no unit to measure by.
    unit = float(np.std(before[WARM])) if before[WARM].size else 0.0
    changes = {name: _difference(before[name], after[name], unit) for name in before}
    return {name: change for name, change in changes.items() if change > _TOLERANCE}


def _difference(before: Any, after: Any, unit: float = 0.0) -> float:
    """Largest change, in a unit, or else in deviations of what was there before."""
    if before.shape != after.shape:
        return float("inf")
    if not before.size:
        return 0.0
    # No deviation in what never differs: there any change counts as it is.
    return float(np.max(np.abs(after - before))) / (unit or float(np.std(before)) or 1.0)
