"""What a catalogue holds, what is odd about it, and what of it cannot work."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmalign.data.catalog import Catalog
from mmalign.data.duplicates import (
    Duplicate,
    digest_of,
    duplicates_across_split,
    size_of,
)
from mmalign.interfaces import ITEM_ID, SPLIT, SPLITS, TIMESTAMP, USER_ID, Features

__all__ = ["Audit", "audit"]

_SHOWN = 10
"""Most pairs of like items that are written out; all of them are in the JSON."""


@dataclass(frozen=True)
class Audit:
    """The findings of :func:`audit`.

    Attributes:
        counts: Users, items, interactions (all and of each split), warm and cold items, users
            without a train row.
        coverage: Share of the items that have each named modality or attribute.
        cold_share: ``items`` without a train row, as a share of all items, and ``valid`` and
            ``test`` rows with such items, as a share of the split's rows.
        duplicates: Rows that repeat a user, item and split; items whose text or picture is the
            same as an earlier item's.
        leakage: ``pairs`` of user and item that are in more than one split; with timestamps,
            ``test_before_train``, the share of test rows older than the last train row of their
            user.
        across_split: Cold items of valid and test whose content is that of a warm item.
        popularity: ``gini`` of the train rows over the warm items, and ``top_tenth``, the share of
            train rows that falls on the most popular tenth of them.
        errors: What cannot work.
        warnings: What works, but is likely not meant.
        notices: What was dropped or mended on reading.
    """

    counts: dict[str, int]
    coverage: dict[str, float]
    cold_share: dict[str, float]
    duplicates: dict[str, int]
    leakage: dict[str, float]
    across_split: tuple[Duplicate, ...]
    popularity: dict[str, float]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Give all findings as plain values that JSON can hold."""
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """Write the findings for people, one line a subject."""
        c = self.counts
        splits = ", ".join(f"{split} {c[split]:,}" for split in SPLITS)
        cold = self.cold_share
        lines = [
            f"users         {c['users']:,} ({c['users_without_train']:,} without a train row)",
            f"items         {c['items']:,} ({c['cold_items']:,} cold, {cold['items']:.1%})",
            f"interactions  {c['interactions']:,} ({splits})",
            f"cold rows     valid {cold['valid']:.1%}, test {cold['test']:.1%}",
        ]
        if self.coverage:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in self.coverage.items())
            lines.append(f"coverage      {shares}")
        repeats = ", ".join(f"{name} {count:,}" for name, count in self.duplicates.items())
        lines.append(f"duplicates    {repeats}")
        leakage = f"leakage       {int(self.leakage['pairs']):,} user-item pairs in several splits"
        if "test_before_train" in self.leakage:
            share = self.leakage["test_before_train"]
            leakage += f", {share:.1%} of test rows older than the user's last train row"
        lines.append(leakage)
        if self.across_split:
            kinds = Counter(duplicate.by for duplicate in self.across_split)
            shown = ", ".join(f"{d.cold} = {d.warm}" for d in self.across_split[:_SHOWN])
            more = len(self.across_split) - _SHOWN
            lines.append(
                "across split  cold items that equal a warm one: "
                + ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())
                + f" ({shown}{f', and {more:,} more' if more > 0 else ''})"
            )
        top, gini = self.popularity["top_tenth"], self.popularity["gini"]
        lines.append(
            f"popularity    Gini {gini:.3f}, top tenth of warm items {top:.1%} of train rows"
        )
        lines += [f"note: {line}" for line in self.notices]
        lines += [f"warning: {line}" for line in self.warnings]
        lines += [f"error: {line}" for line in self.errors]
        return lines


def audit(catalog: Catalog, features: Features | None = None) -> Audit:
    """Look a catalogue through before time is spent on it.

    Pictures are looked for, not opened: whether one can be decoded shows on encoding.

    Args:
        catalog: The catalogue.
        features: Encoded features; their coverage is reported in place of what the files promise,
            and near-duplicates across the split are looked for in them too.

    Example:
        >>> log = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "split": ["train"]})
        >>> audit(Catalog.from_pandas(None, log)).counts["warm_items"]
        1
    """
    texts = catalog.texts()
    images = [image if size_of(image) else None for image in catalog.images()]
    counts = _counts(catalog)
    coverage = _coverage(catalog, texts, images)
    cold_share = _cold_share(catalog)
    leakage = _leakage(catalog)
    errors = _errors(catalog, counts, coverage)
    features = {**catalog.features, **(features or {})}
    for name, feature in features.items():
        coverage[name] = float(feature.present.mean())
        errors += _feature_errors(name, feature.values, feature.present, catalog)
    return Audit(
        counts=counts,
        coverage=coverage,
        cold_share=cold_share,
        duplicates={
            "rows": int(catalog.interactions.duplicated([USER_ID, ITEM_ID, SPLIT]).sum()),
            "texts": _num_repeated(texts),
            "images": _num_same_files(images),
        },
        leakage=leakage,
        across_split=duplicates_across_split(catalog, features),
        popularity=_popularity(catalog),
        errors=tuple(errors),
        warnings=tuple(_warnings(catalog, counts, leakage)),
        notices=catalog.notices,
    )


def _counts(catalog: Catalog) -> dict[str, int]:
    per_split = catalog.interactions[SPLIT].value_counts()
    with_train = catalog.interactions[USER_ID][catalog.interactions[SPLIT] == "train"].nunique()
    warm = int(catalog.warm.sum())
    return {
        "users": catalog.num_users,
        "items": catalog.num_items,
        "interactions": len(catalog.interactions),
        **{split: int(per_split.get(split, 0)) for split in SPLITS},
        "warm_items": warm,
        "cold_items": catalog.num_items - warm,
        "users_without_train": catalog.num_users - int(with_train),
    }


def _coverage(
    catalog: Catalog, texts: list[str | None], images: list[Path | bytes | None]
) -> dict[str, float]:
    coverage = {}
    if catalog.config.text:
        coverage["text"] = float(np.mean([text is not None for text in texts]))
    if catalog.config.image is not None:
        coverage["image"] = float(np.mean([image is not None for image in images]))
    for name in catalog.config.attributes:
        coverage[name] = float(catalog.attribute_values(name).notna().mean())
    return coverage


def _cold_share(catalog: Catalog) -> dict[str, float]:
    log = catalog.interactions
    cold = ~log[ITEM_ID].isin(catalog.item_ids[catalog.warm])
    shares = {"items": float(1 - catalog.warm.mean())}
    for split in ("valid", "test"):
        rows = cold[log[SPLIT] == split]
        shares[split] = float(rows.mean()) if len(rows) else 0.0
    return shares


def _leakage(catalog: Catalog) -> dict[str, float]:
    log = catalog.interactions
    pairs = log[[USER_ID, ITEM_ID, SPLIT]].drop_duplicates()
    repeated = pairs.duplicated([USER_ID, ITEM_ID])
    found = {"pairs": float(len(pairs[repeated].drop_duplicates([USER_ID, ITEM_ID])))}
    if TIMESTAMP in log:
        last = log[log[SPLIT] == "train"].groupby(USER_ID)[TIMESTAMP].max()
        test = log[log[SPLIT] == "test"]
        # pandas cannot compare the empty map of an empty log, and of no rows none is older
        older = test[TIMESTAMP] < test[USER_ID].map(last) if len(test) else pd.Series([False])
        found["test_before_train"] = float(older.mean())
    return found


def _popularity(catalog: Catalog) -> dict[str, float]:
    rows = np.sort(catalog.matrix("train").getnnz(axis=0)[catalog.warm]).astype(np.float64)
    if len(rows) == 0:
        return {"gini": 0.0, "top_tenth": 0.0}
    rank = np.arange(1, len(rows) + 1)
    gini = 2 * (rank @ rows) / (len(rows) * rows.sum()) - (len(rows) + 1) / len(rows)
    top = rows[-max(1, round(len(rows) / 10)) :].sum() / rows.sum()
    return {"gini": float(gini), "top_tenth": float(top)}


def _errors(catalog: Catalog, counts: dict[str, int], coverage: dict[str, float]) -> list[str]:
    errors = []
    if counts["interactions"] == 0:
        errors.append("there are no interactions: nothing can be learned from behaviour")
    elif counts["train"] == 0:
        errors.append("there are no train rows: check the split column, or data.split")
    for name, share in coverage.items():
        if share > 0:
            continue
        if name == "image":
            column = catalog.config.image
            where = catalog.root if catalog.root is not None else "the current folder"
            errors.append(f"no item has a picture: column {column!r}, looked for in {where}")
        elif name == "text":
            errors.append(f"no item has a text: columns {', '.join(catalog.config.text)}")
        else:
            errors.append(f"no item has the attribute {name}: check its column, kind and pattern")
    return errors


def _feature_errors(
    name: str, values: np.ndarray, present: np.ndarray, catalog: Catalog
) -> list[str]:
    if values.shape[0] != catalog.num_items or present.shape != (catalog.num_items,):
        return [f"feature {name} has {len(values):,} rows for {catalog.num_items:,} items"]
    if not np.isfinite(values).all():
        return [f"feature {name} holds values that are NaN or infinite"]
    if not present.any():
        return [f"feature {name} is present in no item"]
    return []


def _warnings(catalog: Catalog, counts: dict[str, int], leakage: dict[str, float]) -> list[str]:
    warnings = []
    if counts["interactions"]:
        warnings += [
            f"there are no {split} rows: nothing can be {what}"
            for split, what in (
                ("valid", "chosen there, so cold items keep an untested scale next to warm ones"),
                ("test", "measured on test"),
            )
            if counts[split] == 0
        ]
    if leakage["pairs"]:
        warnings.append(
            f"{int(leakage['pairs']):,} user-item pairs are in more than one split: "
            "what was seen is not recommended again, so such test rows cannot be hit"
        )
    if counts["users_without_train"]:
        warnings.append(
            f"{counts['users_without_train']:,} users have no train row: "
            "they are ranked by popularity alone"
        )
    mixed = _num_mixed_cold(catalog)
    if mixed:
        warnings.append(
            f"{mixed:,} items without a train row are in valid and in test: "
            "their test rows count neither as warm nor as cold"
        )
    return warnings


def _num_mixed_cold(catalog: Catalog) -> int:
    in_split = {s: catalog.matrix(s).getnnz(axis=0) > 0 for s in ("valid", "test")}
    return int((~catalog.warm & in_split["valid"] & in_split["test"]).sum())


def _num_repeated(values: Iterable[object]) -> int:
    return int(
        pd.Series([value for value in values if value is not None], dtype=object).duplicated().sum()
    )


def _num_same_files(images: list[Path | bytes | None]) -> int:
    """Count pictures equal to an earlier one, reading only those whose length is not unique."""
    by_length: defaultdict[int, list[Path | bytes]] = defaultdict(list)
    for image in images:
        if image is not None:
            by_length[size_of(image)].append(image)
    same_length = [group for group in by_length.values() if len(group) > 1]
    return sum(_num_repeated(digest_of(image) for image in group) for group in same_length)
