"""The artefact: a fitted model with its ids, seen items and content, ready to recommend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.data.catalog import Catalog, find_rows
from mmalign.data.condition import Condition
from mmalign.errors import ConfigError, DataError, nearest
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import (
    ITEM_ID,
    SLICES,
    USER_ID,
    BoolArray,
    Feature,
    Features,
    FloatArray,
    IntArray,
)
from mmalign.models import Model
from mmalign.models.calibration import Calibration, standardise
from mmalign.ranking import ranked_lists, top_k
from mmalign.recommender import artefact
from mmalign.recommender.explanation import Explanation, explain
from mmalign.recommender.row_order import CatalogOrder

__all__ = ["Recommender"]

BLOCK = 512
Filter = str | Callable[[pd.DataFrame], Any]


class Recommender:
    """Recommends to known users, to new ones by their history, and ranks items nobody touched yet.

    Scores are calibrated: the user's own standard deviations above the mean of warm items.
    Build one with :meth:`from_pretrained`, or from a fit.

    Args:
        model: Fitted.
        calibration: Chosen on valid.
        config: The experiment.
        items: ``item_id`` and the columns carried along, in the model's row order.
        user_ids: ``[U]``.
        seen: Split (train, valid) to ``[U, I]`` interactions.
        features: Content of the items, for explanations; may be empty.
        encoders: Modality to the fingerprint of the encoder that made its feature.
        attributes: State of the fitted attribute encoder.
        measured: Metrics to show in the model card, slice to metric to value.
    """

    def __init__(
        self,
        model: Model[Any],
        calibration: Calibration,
        config: ExperimentConfig,
        items: pd.DataFrame,
        user_ids: Sequence[str],
        seen: Mapping[str, sp.csr_matrix],
        features: Features,
        *,
        encoders: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        measured: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.model, self.calibration, self.config = model, calibration, config
        self.items = items.reset_index(drop=True)
        self.user_ids = np.asarray(user_ids, dtype=object)
        self.seen = dict(seen)
        self.features = dict(features)
        self.encoders = dict(encoders or {})
        self.attributes = dict(attributes or {})
        self.measured = {name: dict(values) for name, values in (measured or {}).items()}

    @classmethod
    def from_catalog(
        cls,
        model: Model[Any],
        calibration: Calibration,
        config: ExperimentConfig,
        catalog: Catalog,
        features: Features,
        **more: Any,
    ) -> Self:
        """Put a model together with the catalogue it was fitted on."""
        seen = {split: catalog.matrix(split) for split in ("train", "valid")}
        ids = catalog.user_ids.tolist()
        return cls(model, calibration, config, catalog.items, ids, seen, features, **more)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Load an artefact from a folder, or from the Hugging Face hub by its repository id.

        Raises:
            ArtefactError: It is incomplete, damaged, of another format, or holds a pickle.
        """
        return cls(**artefact.load(path))

    def save_pretrained(self, path: str | Path) -> None:
        """Write the artefact; an interrupted save leaves what was there before.

        Raises:
            DataError: The folder cannot be written.
        """
        artefact.save(self, Path(path))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the artefact to the Hugging Face hub and return the address of the commit."""
        return artefact.push(self, repo_id, private=private, token=token)

    @property
    def item_ids(self) -> NDArray[np.object_]:
        """``[I]`` ids in row order."""
        ids: NDArray[np.object_] = self.items[ITEM_ID].to_numpy(dtype=object)
        return ids

    @property
    def warm(self) -> BoolArray:
        """``[I]``: items with a train row."""
        return self.model.warm

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Calibrated scores, see :class:`mmalign.interfaces.Recommends`."""
        fused = self.calibration.apply(self.model.components(history), self.warm)
        return fused[:, items]

    def recommend(
        self,
        users: str | Iterable[str] = "all",
        k: int = 20,
        *,
        candidates: str = "all",
        exclude_seen: Sequence[str] = ("train", "valid"),
        filter: Filter | None = None,
    ) -> pd.DataFrame:
        """Rank items for users.

        Args:
            users: ``all``, or ids. A user without a history gets popular items, and a warning
                says so.
            k: Length of the lists; shorter where there are fewer candidates.
            candidates: ``warm``, ``cold`` (every item without a train row) or ``all``.
            exclude_seen: Splits whose items are left out for the user.
            filter: A condition on the items' columns such as ``price < 20``, or a function from
                the items' frame to a mask.

        Returns:
            Columns ``user_id, item_id, rank, score``; rank from 1.

        Raises:
            ConfigError: An unknown slice or split, a bad condition, or k below 1.
        """
        ids = self.user_ids if isinstance(users, str) else np.array([str(u) for u in users], object)
        rows = self._user_rows(users)
        columns = self._candidates(candidates, filter)
        lists = []
        for start in range(0, max(len(rows), 1), BLOCK):
            part = slice(start, start + BLOCK)
            scores = self._scores(self._history(rows[part], ("train",)), columns)
            seen = self._history(rows[part], exclude_seen)[:, columns] if exclude_seen else None
            found = top_k(scores, k, seen)
            lists.append(
                ranked_lists(*found, ids[part], self.item_ids[columns], (USER_ID, ITEM_ID))
            )
        return pd.concat(lists, ignore_index=True)

    def fold_in(
        self,
        history: Iterable[str],
        k: int = 20,
        *,
        candidates: str = "all",
        filter: Filter | None = None,
    ) -> pd.DataFrame:
        """Rank items for somebody unseen in training, by the items they took.

        Returns:
            Columns ``item_id, rank, score``; the history itself is left out.

        Raises:
            DataError: The history names an unknown item.
        """
        rows = self.item_rows(history)
        taken = sp.csr_matrix(
            (np.ones(len(rows), np.float32), (np.zeros(len(rows), np.int64), rows)),
            shape=(1, len(self.items)),
        )
        columns = self._candidates(candidates, filter)
        found = top_k(self._scores(taken, columns), k, taken[:, columns])
        frame = ranked_lists(*found, [""], self.item_ids[columns], (USER_ID, ITEM_ID))
        return frame.drop(columns=USER_ID)

    def add_items(self, items: pd.DataFrame, features: Features) -> None:
        """Take new items in by content alone; nothing is trained and nobody's scores change.

        Args:
            items: ``item_id`` and any columns.
            features: Content of these items, made by the encoders the model was fitted with.

        Raises:
            DataError: An id is there already, or a feature does not fit.
        """
        known = set(self.item_ids) & set(items[ITEM_ID].astype(str))
        if known:
            raise DataError(
                f"{len(known)} items are in the artefact already",
                got=min(known),
                fix="pass only new items",
            )
        features = {name: x for name, x in features.items() if name in self.features}
        if self.features and not features:
            raise DataError(
                "the new items have no content that the model knows",
                fix=f"give them one of: {', '.join(self.features)}",
            )
        self.model.add_items(features, len(items))
        self.features = {
            name: _stacked(old, features.get(name), len(items))
            for name, old in self.features.items()
        }
        self.items = pd.concat([self.items, items.assign(item_id=items[ITEM_ID].astype(str))])
        self.items = self.items.reset_index(drop=True)
        for split, matrix in self.seen.items():
            self.seen[split] = sp.csr_matrix(
                (matrix.data, matrix.indices, matrix.indptr),
                shape=(matrix.shape[0], len(self.items)),
            )

    def audience(self, items: Iterable[str], k: int = 100) -> pd.DataFrame:
        """Find, for each item, the users to show it to.

        Users who have it already are left out.

        Returns:
            Columns ``item_id, user_id, rank, score``.
        """
        ids = [str(i) for i in items]
        columns = self.item_rows(ids)
        everyone = np.arange(len(self.user_ids))
        scores = np.concatenate(
            [
                self._scores(self._history(part, ("train",)), columns)
                for part in np.array_split(everyone, max(1, -(-len(everyone) // BLOCK)))
            ]
        )
        excluded = self._history(everyone, tuple(self.seen))[:, columns].T.tocsr()
        found = top_k(np.ascontiguousarray(scores.T), k, excluded)
        return ranked_lists(*found, ids, self.user_ids, (ITEM_ID, USER_ID))

    def similar_items(self, item: str, k: int = 20) -> pd.DataFrame:
        """Find the items whose vectors are closest to an item's, by cosine.

        Returns:
            Columns ``item_id, rank, score``.
        """
        row = self.item_rows([item])[0]
        vectors = self.model.item_vectors()
        norms = np.linalg.norm(vectors, axis=1)
        cosine = vectors @ vectors[row] / np.maximum(norms * norms[row], 1e-12)
        cosine[row] = -np.inf
        found = top_k(cosine[None], min(k, len(cosine) - 1))
        frame = ranked_lists(*found, [item], self.item_ids, ("of", ITEM_ID))
        return frame.drop(columns="of")

    def explain(
        self, item: str, user: str | None = None, *, history: Iterable[str] = (), k: int = 5
    ) -> Explanation:
        """Say which warm items an item is placed by, and what each modality's share is.

        Args:
            item: The item.
            user: Only look among the warm items of this user's history.
            history: Or among these.
            k: How many to name.
        """
        among = self.warm.copy()
        rows = self.item_rows(history)
        if user is not None:
            rows = self._history(self._user_rows([user]), ("train",)).indices
        if user is not None or len(rows):
            among = np.isin(np.arange(len(self.items)), rows)
        row = int(self.item_rows([item])[0])
        return explain(self.model, self.features, self.item_ids, row, among, k)

    def for_catalog(self, catalog: Catalog) -> CatalogOrder:
        """Rank in the row order of a catalogue, as the evaluation protocol asks for."""
        return CatalogOrder(self, self.item_ids, catalog.item_ids)

    def item_rows(self, ids: Iterable[str]) -> IntArray:
        """Rows of items.

        Raises:
            DataError: An id is unknown; the error names the first and the nearest known one.
        """
        return find_rows(pd.Index(self.item_ids), ids, "item")

    def _user_rows(self, users: str | Iterable[str]) -> IntArray:
        """Rows of users, -1 for those that are not known."""
        if isinstance(users, str):
            if users != "all":
                raise ConfigError(
                    "users must be 'all' or a list of ids", got=users, fix="[id, ...]"
                )
            return np.arange(len(self.user_ids))
        index = pd.Index(self.user_ids)
        rows: IntArray = index.get_indexer([str(u) for u in users]).astype(np.int64)
        return rows

    def _history(self, rows: IntArray, splits: Sequence[str]) -> sp.csr_matrix:
        """``[B, I]`` interactions of some splits; an unknown user has none."""
        unknown = [name for name in splits if name not in self.seen]
        if unknown:
            raise ConfigError(
                f"exclude_seen cannot name {unknown[0]!r}", fix=nearest(unknown[0], self.seen)
            )
        total = sum((self.seen[name] for name in splits[1:]), self.seen[splits[0]])
        picked = sp.csr_matrix(total[np.maximum(rows, 0)])
        return sp.csr_matrix(sp.diags_array((rows >= 0).astype(np.float32)) @ picked)

    def _scores(self, history: sp.csr_matrix, columns: IntArray) -> FloatArray:
        """Calibrated scores; somebody without a history gets popularity instead."""
        scores = self.score(history, columns)
        strangers = history.getnnz(axis=1) == 0
        if strangers.any():
            warnings.warn(
                f"{int(strangers.sum())} users have no history: popular items are recommended",
                stacklevel=3,
            )
            scores[strangers] = self._popularity[columns]
        return scores

    @property
    def _popularity(self) -> FloatArray:
        """``[I]``: what somebody with the history of all users together would be shown."""
        everybody = sp.csr_matrix(self.seen["train"].sum(axis=0))
        counts = self.seen["train"].getnnz(axis=0).astype(np.float32)[None]
        predicted = self.score(everybody, np.arange(len(self.items)))
        known = standardise(np.log1p(counts), self.warm)
        return np.asarray(np.where(self.warm, known[0], predicted[0]), np.float32)

    def _candidates(self, candidates: str, filter: Filter | None) -> IntArray:
        kinds = {"warm": self.warm, "cold": ~self.warm, "all": np.ones_like(self.warm)}
        if candidates not in kinds:
            raise ConfigError(f"unknown candidates {candidates!r}", fix=nearest(candidates, SLICES))
        chosen = kinds[candidates]
        if isinstance(filter, str):
            chosen = chosen & Condition.parse(filter).mask(self.items, "items")
        elif filter is not None:
            chosen = chosen & np.asarray(filter(self.items), dtype=bool)
        return np.flatnonzero(chosen)


def _stacked(old: Feature, new: Feature | None, count: int) -> Feature:
    if new is None:
        width = old.values.shape[1]
        new = Feature(np.zeros((count, width), np.float32), np.zeros(count, dtype=bool))
    return Feature(
        np.concatenate([old.values, new.values]), np.concatenate([old.present, new.present])
    )
