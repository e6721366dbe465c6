"""What cold items hear of their first users, against loops over users, items and rounds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmalign.config import from_dict
from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import Feature
from mmalign.models import MODELS, Model, ModelConfig, TrainData, build_model
from mmalign.models.aligned import Aligned
from mmalign.models.item_weights import HALF_HEARD, ItemWeights

EVERYTHING, WARM, COLD = np.arange(14), np.arange(10), np.arange(10, 14)
SMALL = {"embedding_dim": 8, "hidden_dim": 16, "fused_dim": 6}
HEARING = sorted(n for n, kind in MODELS.items() if issubclass(kind, ItemWeights | Aligned))


def fitted(name: str, data: TrainData, **settings: object) -> Model:
    torch.manual_seed(3)
    given = {"name": name, name: (SMALL if name == "aligned" else {}) | settings}
    return build_model(from_dict(ModelConfig, given)).fit(data)


@pytest.fixture
def revealed() -> sp.csr_matrix:
    """Users 0, 3 and 4 took item 10, users 1 and 29 (who has no history) item 12."""
    users, items = [0, 3, 4, 1, 29], [10, 10, 10, 12, 12]
    return sp.csr_matrix((np.ones(5, np.float32), (users, items)), shape=(30, 14))


def test_the_models_that_hear() -> None:
    assert {"aligned", "collective", "ease_knn", "kernel_ridge", "l3ae", "ridge"} <= {*HEARING}


@pytest.mark.parametrize("name", HEARING)
class TestHearing:
    def test_nothing_revealed_changes_no_bit(self, name: str, shop: TrainData) -> None:
        model = fitted(name, shop)
        before = {key: array.copy() for key, array in model.arrays().items()}
        model.reveal(shop.matrix, sp.csr_matrix((30, 14), dtype=np.float32))
        for key, array in model.arrays().items():
            np.testing.assert_array_equal(array, before[key], err_msg=key)

    def test_only_items_that_hear_move(
        self, name: str, shop: TrainData, revealed: sp.csr_matrix
    ) -> None:
        model = fitted(name, shop)
        before, arrays = model.score(shop.matrix, EVERYTHING), dict(model.arrays())
        copies = {key: array.copy() for key, array in arrays.items()}
        model.reveal(shop.matrix, revealed)
        moved = np.abs(model.score(shop.matrix, EVERYTHING) - before).max(axis=0)
        assert (moved[[10, 12]] > 1e-4).all()
        assert not moved[[*WARM, 11, 13]].any()
        np.testing.assert_array_equal(model.warm, EVERYTHING < 10)
        for key, array in arrays.items():  # whoever shares the arrays keeps them as they were
            np.testing.assert_array_equal(array, copies[key], err_msg=key)

    def test_what_was_heard_is_stored(
        self, name: str, shop: TrainData, revealed: sp.csr_matrix
    ) -> None:
        model = fitted(name, shop)
        model.reveal(shop.matrix, revealed)
        loaded = fitted(name, shop).load_arrays(model.arrays())
        np.testing.assert_array_equal(
            loaded.score(shop.matrix, EVERYTHING), model.score(shop.matrix, EVERYTHING)
        )

    def test_an_item_that_was_added_hears(
        self, name: str, shop: TrainData, revealed: sp.csr_matrix
    ) -> None:
        early = {key: x.rows(np.arange(10)) for key, x in shop.features.items()}
        grown, whole = fitted(name, TrainData(shop.matrix[:, :10], early)), fitted(name, shop)
        grown.add_items({key: x.rows(COLD) for key, x in shop.features.items()}, 4)
        for model in (grown, whole):
            model.reveal(shop.matrix, revealed)
        np.testing.assert_allclose(
            grown.score(shop.matrix, EVERYTHING),
            whole.score(shop.matrix, EVERYTHING),
            rtol=1e-5,
            atol=5e-6,
        )

    def test_it_is_known_who_heard(self, name: str, shop: TrainData) -> None:
        model = fitted(name, shop)
        for item, heard in ((12, [12]), (13, [12, 13]), (12, [12, 13])):
            one = sp.csr_matrix(([1.0, 0.0], ([0, 1], [item, 11])), shape=(30, 14))
            model.reveal(shop.matrix, one)
            assert model.heard.tolist() == heard  # a weight of zero tells nothing

    def test_what_does_not_fit_is_refused(self, name: str, shop: TrainData) -> None:
        model = fitted(name, shop)
        before = model.score(shop.matrix, EVERYTHING)
        warm = sp.csr_matrix(([1.0, 1.0], ([0, 0], [9, 10])), shape=(30, 14))
        with pytest.raises(DataError, match="1 items with revealed interactions are warm"):
            model.reveal(shop.matrix, warm)
        for bad in (-1.0, np.nan, np.inf):
            one = sp.csr_matrix(([bad], ([0], [10])), shape=(30, 14))
            with pytest.raises(DataError, match="finite and not negative"):
                model.reveal(shop.matrix, one)
        for shape in ((29, 14), (30, 13)):
            with pytest.raises(DataError, match="a column for each of 14 items"):
                model.reveal(shop.matrix, sp.csr_matrix(shape, dtype=np.float32))
        np.testing.assert_array_equal(model.score(shop.matrix, EVERYTHING), before)


@pytest.mark.parametrize("name", sorted({*MODELS} - {*HEARING}))
def test_the_others_say_that_they_do_not(
    name: str, shop: TrainData, revealed: sp.csr_matrix
) -> None:
    model = build_model(ModelConfig(name))
    model.warm = shop.warm
    with pytest.raises(ConfigError, match="learns of a cold item by a refit only"):
        model.reveal(shop.matrix, revealed)


def test_content_moves_to_the_tastes_of_who_took_it(
    shop: TrainData, revealed: sp.csr_matrix
) -> None:
    model = fitted("ridge", shop)
    assert isinstance(model, ItemWeights)
    expected, dense = model.content.astype(np.float64), shop.matrix.toarray()[:, :10]
    for item, users in {10: (0, 3, 4), 12: (1, 29)}.items():
        shift = np.zeros(expected.shape[1])
        for user in users:
            taste = sum(dense[user, j] * model.to_content[j] for j in range(10))
            length = np.sqrt((taste**2).sum())
            shift += taste / length if length > 0 else 0
        expected[item] += shift / (len(users) + HALF_HEARD)
    model.reveal(shop.matrix, revealed)
    np.testing.assert_allclose(model.content, expected, atol=1e-6)


def test_the_network_hears_along_the_revealed_edges(
    shop: TrainData, revealed: sp.csr_matrix
) -> None:
    model = fitted("aligned", shop, layer="lightgcn", num_layers=2)
    assert isinstance(model, Aligned)
    layers, dense = model.layers.astype(np.float64), shop.matrix.toarray()
    degree = dense.sum(axis=0)
    expected, rounds = {}, {}
    for item, users in {10: (0, 3, 4), 12: (1, 29)}.items():
        states = [layers[0, item]]
        for stored in layers:
            state = np.zeros(8)
            for user in users:
                taken = np.flatnonzero(dense[user])
                for other in taken:  # user 29 took nothing and has nothing to say
                    message = stored[other] / np.sqrt(len(taken) * degree[other])
                    state += message / np.sqrt(len(taken) * len(users))
            states.append(state)
        placed = np.sum(states, axis=0)
        expected[item], rounds[item] = placed / np.linalg.norm(placed), states[:-1]
    model.reveal(shop.matrix, revealed)
    for item, vector in expected.items():
        np.testing.assert_allclose(model.vectors[item], vector, atol=1e-5)
        np.testing.assert_allclose(model.layers[:, item], rounds[item], atol=1e-5)
    np.testing.assert_array_equal(model.degree[COLD], [3, 0, 2, 0])


def test_the_teacher_hears_too(shop: TrainData, revealed: sp.csr_matrix) -> None:
    model, alone = fitted("aligned", shop), fitted("collective", shop)
    for one in (model, alone):
        one.reveal(shop.matrix, revealed)
    np.testing.assert_array_equal(
        model.components(shop.matrix)["teacher"], alone.score(shop.matrix, EVERYTHING)
    )


@pytest.mark.parametrize("layer", ["gcn", "gat", "sage"])
def test_every_layer_hears(layer: str, shop: TrainData, revealed: sp.csr_matrix) -> None:
    model = fitted("aligned", shop, layer=layer)
    before = model.item_vectors().copy()
    model.reveal(shop.matrix, revealed)
    moved = np.abs(model.item_vectors() - before).max(axis=1)
    assert (moved[[10, 12]] > 0).all()
    assert not moved[[*WARM, 11, 13]].any()
    assert np.isfinite(model.score(shop.matrix, EVERYTHING)).all()


@pytest.mark.parametrize("name", ["collective", "aligned"])
def test_an_item_rises_for_those_like_its_users(name: str) -> None:
    """Two tastes; two cold items whose content says nothing, each taken by one of the camps."""
    rng = np.random.default_rng(0)
    camp = np.arange(80) % 2
    taken = rng.random((80, 22)) < np.where(camp[:, None] == np.arange(22) % 2, 0.6, 0.1)
    taken[:, 20:] = False
    values = rng.normal(0, 0.5, (22, 4)).astype(np.float32)
    values[:20, 0] += np.where(np.arange(20) % 2, 1, -1)
    values[20:] = values[:20].mean(axis=0)
    content = {"text": Feature(values, np.ones(22, dtype=bool))}
    matrix = sp.csr_matrix(taken, dtype=np.float32)
    model = fitted(name, TrainData(matrix, content))
    revealed = sp.csr_matrix(
        (np.ones(8, np.float32), (np.arange(8), 20 + camp[:8])), shape=matrix.shape
    )
    model.reveal(matrix, revealed)
    scores = model.score(matrix[8:], np.array([20, 21]))
    prefers = scores[:, 1] > scores[:, 0]
    assert (prefers == (camp[8:] == 1)).mean() > 0.9
