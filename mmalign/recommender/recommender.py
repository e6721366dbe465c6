"""The artefact: a fitted model with its ids, seen items and content, ready to recommend."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.data.catalog import Catalog
from mmalign.data.ids import find_rows
from mmalign.errors import ConfigError, nearest
from mmalign.experiment import ExperimentConfig
from mmalign.interfaces import ITEM_ID, USER_ID, BoolArray, Features, FloatArray, IntArray
from mmalign.models import Model, modalities_of
from mmalign.models.calibration import Calibration, standardise
from mmalign.progress import advancing
from mmalign.ranking import ranked_lists, top_k
from mmalign.recommender import artefact
from mmalign.recommender.additions import known_features, new_items, stacked
from mmalign.recommender.blanks import LAST, blank_items, warn_of_blanks, warn_of_strangers
from mmalign.recommender.candidates import Filter, choose
from mmalign.recommender.explanation import Explanation, explain
from mmalign.recommender.histories import as_ids, as_row, pick, says_nothing, union
from mmalign.recommender.row_order import CatalogOrder

__all__ = ["Recommender"]

BLOCK = 512


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
        seen: Split to ``[U, I]`` interactions: ``train``, and ``valid`` where there is one.
        features: Content of the items, for explanations; may be empty.
        encoders: Modality to the fingerprint of the encoder that made its feature.
        attributes: State of the fitted attribute encoder.
        measured: Metrics to show in the model card, slice to metric to value; NaN where the model
            has no order of its own.
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
        self.seen = {split: sp.csr_matrix(matrix) for split, matrix in seen.items()}
        self.features = dict(features)
        self.encoders = dict(encoders or {})
        self.attributes = dict(attributes or {})
        self.measured = {
            name: {metric: float(value) for metric, value in values.items()}
            for name, values in (measured or {}).items()
        }

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
    def from_pretrained(
        cls, path: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> Self:
        """Load an artefact from a folder, or from the Hugging Face hub by its repository id.

        Raises:
            ArtefactError: It is incomplete, damaged, of another format, or holds a pickle; or the
                hub does not give it.
        """
        return cls(**artefact.load(path, revision=revision, token=token))

    def save_pretrained(self, path: str | Path) -> None:
        """Write the artefact; an interrupted save leaves what was there before.

        Raises:
            DataError: The folder cannot be written.
        """
        artefact.save(self, Path(path))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the artefact, users' histories too, and return the address of the commit."""
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

    @property
    def serves_cold(self) -> bool:
        """Whether scores of items without a train row mean anything."""
        return self.model.serves_cold

    def score(self, history: sp.csr_matrix, items: IntArray) -> FloatArray:
        """Calibrated scores, see :class:`mmalign.interfaces.Recommends`.

        Somebody whose history says nothing, such as an empty one, is scored by popularity.
        """
        return self._scores(history)[0][:, items]

    def recommend(
        self,
        users: str | Iterable[str] = "all",
        k: int = 20,
        *,
        candidates: str = "all",
        exclude_seen: Sequence[str] = ("train", "valid"),
        filter: Filter | Sequence[Filter] | None = None,
        progress: bool = False,
    ) -> pd.DataFrame:
        """Rank items for users.

        Args:
            users: ``all``, or ids. A user who is not known or has no train rows gets popular
                items, and a warning says so.
            k: Length of the lists; shorter where there are fewer candidates.
            candidates: ``warm``, ``cold`` (every item without a train row) or ``all``.
            exclude_seen: Splits whose items are left out for the user.
            filter: A condition on the items' columns and attributes such as ``price < 20``, or a
                function from the items' frame to a mask; or several, all of which must hold.
            progress: Whether to draw a bar on standard error.

        Returns:
            Columns ``user_id, item_id, rank, score``; rank from 1.

        Raises:
            ConfigError: An unknown slice or split, a bad condition, or k no number from 1.
            DataError: The filter's column is not there, or its mask does not fit.
        """
        if isinstance(users, str) and users == "all":
            ids, rows = self.user_ids, np.arange(len(self.user_ids))
        else:
            ids = np.array(as_ids(users, "users"), dtype=object)
            rows = pd.Index(self.user_ids).get_indexer(ids).astype(np.int64)
        if isinstance(exclude_seen, str) or not isinstance(exclude_seen, Iterable):
            raise ConfigError(
                "exclude_seen must be a list of splits", got=exclude_seen, fix="pass ['train']"
            )
        seen = [self._split(name) for name in exclude_seen]
        columns = choose(self.items, self.warm, candidates, filter, self.config.data.attributes)
        lists: list[pd.DataFrame] = []
        strangers: list[str] = []
        shown = []
        with advancing("ranking", len(rows), progress) as advance:
            for start in range(0, max(len(rows), 1), BLOCK):
                part = rows[start : start + BLOCK]
                scores, unknown = self._scores(pick(self.seen["train"], part))
                taken = union([pick(matrix, part) for matrix in seen])[:, columns] if seen else None
                found = top_k(scores[:, columns], _at_most(k, len(columns)), taken)
                owners = ids[start : start + BLOCK]
                strangers += owners[unknown].tolist()
                shown.append(columns[np.unique(found[0][found[0] >= 0])])
                lists.append(
                    ranked_lists(*found, owners, self.item_ids[columns], (USER_ID, ITEM_ID))
                )
                advance(len(part))
        warn_of_strangers(strangers)
        self._warn_of_blanks(np.concatenate(shown), "their order among themselves says nothing")
        return pd.concat(lists, ignore_index=True)

    def fold_in(
        self,
        history: Iterable[str],
        k: int = 20,
        *,
        weights: Iterable[float] | None = None,
        candidates: str = "all",
        filter: Filter | Sequence[Filter] | None = None,
    ) -> pd.DataFrame:
        """Rank items for somebody unseen in training, by the items they took.

        Args:
            history: Ids of the items; of none, popular items are recommended and a warning says
                so.
            k: Length of the list.
            weights: One per item, as in the log: ratings, or how often it was taken; 1 by default.
            candidates: As in :meth:`recommend`.
            filter: As in :meth:`recommend`.

        Returns:
            Columns ``item_id, rank, score``; the history itself is left out.

        Raises:
            ConfigError: There is not one weight above 0 per item.
            DataError: The history names an unknown item.
        """
        rows = self.item_rows(as_ids(history, "history"))
        taken = as_row(rows, weights, len(self.items))
        columns = choose(self.items, self.warm, candidates, filter, self.config.data.attributes)
        scores, unknown = self._scores(taken)
        if unknown[0]:
            warnings.warn("the history says nothing: popular items are recommended", stacklevel=2)
        found = top_k(scores[:, columns], _at_most(k, len(columns)), taken[:, columns])
        shown = columns[found[0][found[0] >= 0]]
        self._warn_of_blanks(shown, "their order among themselves says nothing")
        frame = ranked_lists(*found, [""], self.item_ids[columns], (USER_ID, ITEM_ID))
        return frame.drop(columns=USER_ID)

    def add_items(self, items: pd.DataFrame, features: Features) -> None:
        """Take new items in by content alone; nothing is trained and nobody's scores change.

        Args:
            items: ``item_id`` and any columns.
            features: Content of these items, made by the encoders the model was fitted with. One
                that the model does not know is left out, one that is not named is absent.

        Raises:
            DataError: An id is missing or there already, or a feature does not fit; the
                recommender stays as it was.
        """
        items = new_items(items, self.item_ids)
        content = known_features(features, self.features)
        grown = pd.concat([self.items, items], ignore_index=True)
        self.model.add_items(content, len(items))
        self.features = {
            n: stacked(x, content.get(n), len(items)) for n, x in self.features.items()
        }
        self.items = grown
        self.seen = {
            split: sp.csr_matrix((m.data, m.indices, m.indptr), (m.shape[0], len(self.items)))
            for split, m in self.seen.items()
        }

    def audience(self, items: Iterable[str], k: int = 100) -> pd.DataFrame:
        """Find, for each item, the users to show it to.

        Left out are users who have it already, and those without a train row, of whom nothing is
        known. Of an item that nobody took and that has no content the model knows nothing: a
        warning says so.

        Returns:
            Columns ``item_id, user_id, rank, score``.

        Raises:
            ConfigError: k is below 1.
            DataError: An item is unknown.
        """
        ids = as_ids(items, "items")
        columns = self.item_rows(ids)
        blocks = []
        for start in range(0, len(self.user_ids), BLOCK):
            scores, unknown = self._scores(self.seen["train"][start : start + BLOCK], alike=True)
            scores[unknown] = -np.inf
            blocks.append(scores[:, columns])
        self._warn_of_blanks(columns, "everybody is as good an audience for them")
        taken = union(list(self.seen.values()))[:, columns].T.tocsr()
        scores = np.ascontiguousarray(np.concatenate(blocks).T)
        found = top_k(scores, _at_most(k, len(self.user_ids)), taken)
        return ranked_lists(*found, ids, self.user_ids, (ITEM_ID, USER_ID))

    def similar_items(self, item: str, k: int = 20) -> pd.DataFrame:
        """Find the items whose vectors are closest to an item's, by cosine.

        An item whose vector is zero, such as a cold one to a model of co-interactions, is like no
        other.

        Returns:
            Columns ``item_id, rank, score``.

        Raises:
            ConfigError: k is below 1.
            DataError: The item is unknown.
        """
        row = self.item_rows([item])[0]
        vectors = self.model.item_vectors()
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vectors[row])
        comparable = lengths > 0
        comparable[row] = False
        cosine = np.full(len(vectors), -np.inf, np.float32)
        cosine[comparable] = vectors[comparable] @ vectors[row] / lengths[comparable]
        found = top_k(cosine[None], _at_most(k, len(cosine)))
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

        Raises:
            ConfigError: k is below 1.
            DataError: The item, the user or an item of the history is unknown.
        """
        if _at_most(k, k) < 1:
            raise ConfigError("k must be at least 1", got=k, fix="pass k >= 1")
        row, rows = int(self.item_rows([item])[0]), self.item_rows(as_ids(history, "history"))
        among = self.warm.copy()
        if user is not None:
            of_user = find_rows(pd.Index(self.user_ids), [user], "user")
            rows = np.concatenate([rows, self.seen["train"][of_user].indices])
        if user is not None or len(rows):
            among &= np.isin(np.arange(len(self.items)), rows)
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

    def _scores(self, history: sp.csr_matrix, alike: bool = False) -> tuple[FloatArray, BoolArray]:
        """Scores ``[B, I]``, for comparing users if ``alike``, and who got popularity, ``[B]``."""
        scores = self._calibrated(history, None if alike else history.getnnz(axis=1))
        strangers = says_nothing(history, scores, self.warm)
        if strangers.any():
            scores[strangers] = self._popularity()
        return scores, strangers

    def _calibrated(self, history: sp.csr_matrix, taken: IntArray | None = None) -> FloatArray:
        scores = self.calibration.apply(self.model.components(history), self.warm, taken)
        blank = self._blank()
        if blank.any() and (self.model.uses_content or not self.serves_cold):
            scores[:, blank] = LAST
        return scores

    def _blank(self) -> BoolArray:
        return blank_items(self.model, self.features, modalities_of(self.config.model))

    def _popularity(self) -> FloatArray:
        """``[I]``: what somebody with the history of all users together would be shown."""
        everybody = sp.csr_matrix(self.seen["train"].sum(axis=0), dtype=np.float32)
        counts = self.seen["train"].getnnz(axis=0).astype(np.float32)[None]
        known = standardise(np.log1p(counts), self.warm)
        popular: FloatArray = self._calibrated(everybody)[0]
        popular[self.warm] = known[0, self.warm]
        return popular

    def _warn_of_blanks(self, rows: IntArray, consequence: str) -> None:
        warn_of_blanks(self.item_ids[np.unique(rows[self._blank()[rows]])], consequence)

    def _split(self, name: str) -> sp.csr_matrix:
        if name not in self.seen:
            raise ConfigError(
                f"exclude_seen cannot name {name!r}", fix=nearest(str(name), self.seen)
            )
        return self.seen[name]


def _at_most(k: int, available: int) -> int:
    """A list is never longer than what there is; k below 1 is left for ``top_k`` to refuse."""
    if not isinstance(k, int | np.integer):
        raise ConfigError("k must be a whole number", got=k, fix="pass k=20")
    return min(int(k), max(available, 1))
