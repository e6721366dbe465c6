"""What every model keeps: each of them inherits the tests of :class:`ModelContract`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmalign.config import from_dict
from mmalign.errors import DataError
from mmalign.interfaces import Feature, IntArray
from mmalign.models import MODELS, Model, ModelConfig, TrainData, build_model

EVERYTHING = np.arange(14)
SMALL = {"embedding_dim": 8, "hidden_dim": 16, "fused_dim": 6}
NARROW = {"embedding_dim": 8}
MIXED = np.array([10, 0, 1, 11, 2, 3, 4, 12, 5, 6, 7, 13, 8, 9])
"""Cold items between warm ones, each kind in its order, so that networks draw the same weights."""


def weighed(data: TrainData) -> TrainData:
    """The same with weights of .5, 1 and 2, with times, and with given neighbours."""
    matrix = data.matrix.copy()
    matrix.data = np.resize(np.array([1, 2, 0.5, 1, 1], np.float32), matrix.nnz)
    times = matrix.astype(np.float64)
    times.data = 60.0 * (1 + np.random.default_rng(0).permutation(matrix.nnz))
    ring = sp.csr_matrix(np.roll(np.eye(14, dtype=np.float32), 3, axis=1))
    return TrainData(matrix, data.features, {"ring": ring} if data.features else {}, times)


def reordered(data: TrainData, order: IntArray) -> TrainData:
    assert data.times is not None
    return TrainData(
        data.matrix[:, order],
        {name: x.rows(order) for name, x in data.features.items()},
        {name: x[order][:, order] for name, x in data.neighbours.items()},
        data.times[:, order],
    )


class ModelContract:
    """Fit, rank, grow, store; a subclass names the model."""

    name: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}
    reads_new_content: ClassVar[bool] = True

    def new(self) -> Model[Any]:
        torch.manual_seed(3)  # a network starts from torch's seed
        given = {"name": self.name} | ({self.name: self.settings} if self.settings else {})
        return build_model(from_dict(ModelConfig, given))

    @pytest.fixture
    def data(self, shop: TrainData) -> TrainData:
        return shop if MODELS[self.name].uses_content else TrainData(shop.matrix, {})

    @pytest.fixture
    def model(self, data: TrainData) -> Model[Any]:
        return self.new().fit(data)

    def test_scores_are_finite_float32_of_the_right_shape(
        self, model: Model[Any], data: TrainData
    ) -> None:
        scores = model.score(data.matrix, EVERYTHING)
        assert scores.shape == (30, 14)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        parts = model.components(data.matrix)
        assert all(p.shape == (30, 14) and np.isfinite(p).all() for p in parts.values())
        vectors = model.item_vectors()
        assert len(vectors) == 14
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()
        np.testing.assert_array_equal(model.warm, EVERYTHING < 10)

    def test_candidates_are_columns_of_the_full_scores(
        self, model: Model[Any], data: TrainData
    ) -> None:
        full = model.score(data.matrix, EVERYTHING)
        for items in ([13, 2, 11, 0], [5], [10, 11, 12, 13], []):
            columns = np.array(items, dtype=np.int64)
            some = model.score(data.matrix, columns)
            np.testing.assert_allclose(some, full[:, columns], rtol=1e-5, atol=1e-6)

    def test_an_empty_history_and_no_history_at_all(self, model: Model[Any]) -> None:
        empty = model.score(sp.csr_matrix((2, 14), dtype=np.float32), EVERYTHING)
        assert np.isfinite(empty).all()
        np.testing.assert_array_equal(empty[0], empty[1])
        assert model.score(sp.csr_matrix((0, 14), dtype=np.float32), EVERYTHING).shape == (0, 14)

    def test_a_history_of_a_cold_item_is_no_accident(self, model: Model[Any]) -> None:
        history = sp.csr_matrix(([1.0], ([0], [11])), shape=(1, 14))
        assert np.isfinite(model.score(history, EVERYTHING)).all()

    def test_users_do_not_depend_on_who_else_is_asked_for(
        self, model: Model[Any], data: TrainData
    ) -> None:
        together = model.score(data.matrix, EVERYTHING)
        alone = np.concatenate([model.score(row, EVERYTHING) for row in data.matrix])
        np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)

    def test_fitting_twice_gives_the_same(self, model: Model[Any], data: TrainData) -> None:
        before = {name: array.copy() for name, array in model.arrays().items()}
        torch.manual_seed(3)
        again, other = model.fit(data).arrays(), self.new().fit(data).arrays()
        assert list(before) == list(again) == list(other)
        for name, array in before.items():
            np.testing.assert_array_equal(again[name], array)
            np.testing.assert_array_equal(other[name], array)

    def test_arrays_hold_all_that_was_learned(self, model: Model[Any], data: TrainData) -> None:
        stored = {name: np.array(array) for name, array in model.arrays().items()}
        loaded = self.new().load_arrays(stored)
        np.testing.assert_array_equal(
            loaded.score(data.matrix, EVERYTHING), model.score(data.matrix, EVERYTHING)
        )
        np.testing.assert_array_equal(loaded.item_vectors(), model.item_vectors())
        # what was loaded grows as what was fitted
        features = {name: x.rows(np.array([11, 12])) for name, x in data.features.items()}
        for one in (model, loaded):
            one.add_items(features, 2)
        history = sp.hstack([data.matrix, sp.csr_matrix((30, 2), dtype=np.float32)], "csr")
        np.testing.assert_array_equal(
            loaded.score(history, np.arange(16)), model.score(history, np.arange(16))
        )

    def test_new_items_stand_where_they_would_have_stood_as_cold_ones(
        self, model: Model[Any], data: TrainData
    ) -> None:
        early = {name: x.rows(np.arange(12)) for name, x in data.features.items()}
        grown = self.new().fit(TrainData(data.matrix[:, :12], early))
        before = grown.score(data.matrix[:, :12], np.arange(12))
        grown.add_items({name: x.rows(np.array([12])) for name, x in data.features.items()}, 1)
        grown.add_items({name: x.rows(np.array([13])) for name, x in data.features.items()}, 1)
        np.testing.assert_array_equal(grown.warm, EVERYTHING < 10)
        after = grown.score(data.matrix, EVERYTHING)
        np.testing.assert_allclose(after[:, :12], before, rtol=1e-5, atol=1e-6)
        # A block of new rows is rounded otherwise than the same rows among all.
        np.testing.assert_allclose(
            after, model.score(data.matrix, EVERYTHING), rtol=1e-5, atol=5e-6
        )

    def test_no_new_items_change_nothing(self, data: TrainData) -> None:
        model = self.new().fit(data)
        before = model.score(data.matrix, EVERYTHING)
        model.add_items({name: x.rows(np.arange(0)) for name, x in data.features.items()}, 0)
        np.testing.assert_array_equal(model.score(data.matrix, EVERYTHING), before)

    def test_a_modality_that_is_not_named_is_absent(
        self, model: Model[Any], data: TrainData
    ) -> None:
        text = {name: x.rows(np.array([12])) for name, x in data.features.items()}
        other = self.new().fit(data)
        model.add_items(text, 1)
        other.add_items({name: x for name, x in text.items() if name != "image"}, 1)
        history = sp.csr_matrix(EVERYTHING[None] < 3, shape=(1, 14), dtype=np.float32)
        history.resize((1, 15))
        np.testing.assert_array_equal(
            model.score(history, np.arange(15)), other.score(history, np.arange(15))
        )

    def test_cold_items_may_stand_between_warm_ones(self, data: TrainData) -> None:
        plain = weighed(data)
        mixed = reordered(plain, MIXED)
        one, other = self.new().fit(plain), self.new().fit(mixed)
        np.testing.assert_array_equal(other.warm, one.warm[MIXED])
        np.testing.assert_allclose(
            other.score(mixed.matrix, EVERYTHING), one.score(plain.matrix, MIXED), atol=1e-4
        )
        # Directions in content may point either way; the cosines of items are the same.
        mine, theirs = one.item_vectors()[MIXED], other.item_vectors()
        np.testing.assert_allclose(theirs @ theirs.T, mine @ mine.T, rtol=1e-4, atol=1e-4)

    def test_features_stay_as_they_are(self, data: TrainData) -> None:
        before = {n: (x.values.tobytes(), x.present.tobytes()) for n, x in data.features.items()}
        matrix = data.matrix.copy()
        self.new().fit(data).score(data.matrix, EVERYTHING)
        after = {n: (x.values.tobytes(), x.present.tobytes()) for n, x in data.features.items()}
        assert after == before
        np.testing.assert_array_equal(data.matrix.toarray(), matrix.toarray())

    def test_scores_are_the_same_from_many_threads(
        self, model: Model[Any], data: TrainData
    ) -> None:
        expected = [model.score(row, EVERYTHING) for row in data.matrix]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                found = list(pool.map(lambda row: model.score(row, EVERYTHING), data.matrix))
                np.testing.assert_array_equal(found, expected)

    def test_nothing_of_a_cold_item_reaches_a_warm_one(
        self, model: Model[Any], data: TrainData
    ) -> None:
        """Bit for bit, not nearly: no mean, landmark, offset or neighbour saw a cold item."""
        changed = {}
        for name, x in data.features.items():
            values = x.values.copy()
            values[10:] = values[10:] * 100 + 7
            values[~x.present] = 0
            changed[name] = Feature(values, x.present)
        other = self.new().fit(TrainData(data.matrix, changed))
        warm = np.arange(10)
        np.testing.assert_array_equal(
            other.score(data.matrix, warm), model.score(data.matrix, warm)
        )
        np.testing.assert_array_equal(other.item_vectors()[:10], model.item_vectors()[:10])
        mine, theirs = model.arrays(), other.arrays()
        for name, array in mine.items():
            if 14 not in array.shape and not name.startswith("weights."):  # nothing per item
                np.testing.assert_array_equal(theirs[name], array, err_msg=name)

    def test_a_refused_item_leaves_the_model_as_it_was(
        self, model: Model[Any], data: TrainData
    ) -> None:
        before = model.score(data.matrix, EVERYTHING)
        bad = {name: Feature(np.ones((1, 99), np.float32), np.ones(1, bool)) for name in ("text",)}
        nan = {"text": Feature(np.full((1, 6), np.nan, np.float32), np.ones(1, bool))}
        short = {"text": Feature(np.ones((1, 6), np.float32), np.ones(2, bool))}
        ints = {"text": Feature(np.ones((1, 6), np.float32), np.ones(1, int))}  # type: ignore[arg-type]
        refused = [nan, short, ints] + ([{}] if model.uses_content else [])
        refused += [bad] if model.uses_content and self.reads_new_content else []
        for features in refused:
            with pytest.raises(DataError):
                model.add_items(features, 1)
        np.testing.assert_array_equal(model.score(data.matrix, EVERYTHING), before)
        assert len(model.warm) == 14


class TestAligned(ModelContract):
    name = "aligned"
    settings: ClassVar[dict[str, Any]] = SMALL


class TestKernelRidge(ModelContract):
    name = "kernel_ridge"


class TestKernelRidgeOfFewLandmarks(ModelContract):
    name = "kernel_ridge"
    settings: ClassVar[dict[str, Any]] = {"kernel": {"landmarks": 6, "rank": 4}}


class TestCollective(ModelContract):
    name = "collective"


class TestRidge(ModelContract):
    name = "ridge"


class TestEase(ModelContract):
    name = "ease"


class TestItemKNN(ModelContract):
    name = "item_knn"
    settings: ClassVar[dict[str, Any]] = {"neighbours": 3}


class TestContentKNN(ModelContract):
    name = "content_knn"
    settings: ClassVar[dict[str, Any]] = {"neighbours": 3}


class TestContentKNNOfThreeHops(ModelContract):
    name = "content_knn"
    settings: ClassVar[dict[str, Any]] = {"neighbours": 3, "hops": 3}


class TestContentMean(ModelContract):
    name = "content_mean"


class TestEaseKNN(ModelContract):
    name = "ease_knn"
    settings: ClassVar[dict[str, Any]] = {"neighbours": 3}


class TestL3AE(ModelContract):
    name = "l3ae"


class TestSLIM(ModelContract):
    name = "slim"
    settings: ClassVar[dict[str, Any]] = {"l1": 0.5, "l2": 2.0}


class TestIALS(ModelContract):
    name = "ials"
    settings: ClassVar[dict[str, Any]] = NARROW | {"l2": 1.0}


class TestBPR(ModelContract):
    name = "bpr"
    settings: ClassVar[dict[str, Any]] = NARROW | {"epochs": 5}


class TestLightGCN(ModelContract):
    name = "lightgcn"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestVBPR(ModelContract):
    name = "vbpr"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestAlphaRec(ModelContract):
    name = "alpharec"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestDropoutNet(ModelContract):
    name = "dropoutnet"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestCLCRec(ModelContract):
    name = "clcrec"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestGAR(ModelContract):
    name = "gar"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestALDI(ModelContract):
    name = "aldi"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestFreedom(ModelContract):
    name = "freedom"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestBM3(ModelContract):
    name = "bm3"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestMGCN(ModelContract):
    name = "mgcn"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestPGL(ModelContract):
    name = "pgl"
    settings: ClassVar[dict[str, Any]] = NARROW


class TestGraphEase(ModelContract):
    name = "graph_ease"
    reads_new_content = False
    settings: ClassVar[dict[str, Any]] = {"neighbours": 3, "rank": 4}


class TestFused(ModelContract):
    name = "fused"
    settings: ClassVar[dict[str, Any]] = NARROW | {"closed_form": {"rank": 4}}


class TestPopularity(ModelContract):
    name = "popularity"


class TestRandom(ModelContract):
    name = "random"

    def test_cold_items_may_stand_between_warm_ones(self, data: TrainData) -> None:
        """A score is a hash of the row, whatever stands there."""
        one, other = self.new().fit(data), self.new().fit(reordered(weighed(data), MIXED))
        np.testing.assert_array_equal(other.warm, one.warm[MIXED])
        np.testing.assert_array_equal(other.item_vectors(), one.item_vectors())


def test_every_model_keeps_the_contract() -> None:
    assert {contract.name for contract in ModelContract.__subclasses__()} == set(MODELS)
