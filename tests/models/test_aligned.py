"""Where the untrained, frozen network places users and items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmalign.config import from_dict
from mmalign.errors import ConfigError
from mmalign.graph.propagation import LAYERS, SparseOperator
from mmalign.models import Aligned, ModelConfig, TrainData
from mmalign.models.aligned import AlignedConfig

COLD, WARM = np.arange(10, 14), np.arange(10)


def fitted(data: TrainData, layer: str = "lightgcn") -> Aligned:
    """A network whose every weight, biases too, is drawn at random."""
    config = AlignedConfig(embedding_dim=8, hidden_dim=16, fused_dim=6, layer=layer)  # type: ignore[arg-type]
    model = Aligned(config).fit(data)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.copy_(torch.rand_like(weight) - 0.3)
    return model.freeze(data)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_history_places_a_user_where_the_whole_graph_does(shop: TrainData, layer: str) -> None:
    model = fitted(shop, layer)
    with torch.no_grad():
        content = model.network.content(model.item_input(shop.features, model.teacher.content))
        start = model.network.hear_neighbours(content, SparseOperator(model.similar))
        start[:10] += model.network.ids
        whole = model.network.propagate(start, SparseOperator(shop.matrix))
    np.testing.assert_allclose(
        model.user_vectors(shop.matrix), whole.users.numpy(), rtol=1e-4, atol=1e-5
    )
    alone = np.concatenate([model.user_vectors(row) for row in shop.matrix])
    np.testing.assert_allclose(alone, whole.users.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.item_vectors(), whole.items.numpy(), rtol=1e-5, atol=1e-6)


def test_interactions_that_weigh_little_are_read_as_in_training(shop: TrainData) -> None:
    light = replace(shop, matrix=shop.matrix * np.float32(0.02))
    test_a_history_places_a_user_where_the_whole_graph_does(light, "lightgcn")


def test_interactions_of_different_weight_are_read_as_in_training(shop: TrainData) -> None:
    matrix = shop.matrix.copy()
    matrix.data = np.resize(np.array([1, 2, 0.5], np.float32), matrix.nnz)
    test_a_history_places_a_user_where_the_whole_graph_does(replace(shop, matrix=matrix), "gcn")


@pytest.mark.parametrize("layer", LAYERS)
def test_vectors_have_length_one(shop: TrainData, layer: str) -> None:
    model = fitted(shop, layer)
    np.testing.assert_allclose(np.linalg.norm(model.item_vectors(), axis=1), 1, rtol=1e-5)
    some = shop.matrix[:29]
    np.testing.assert_allclose(np.linalg.norm(model.user_vectors(some), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_ids_move_warm_items_and_no_cold_one(shop: TrainData, layer: str) -> None:
    model = fitted(shop, layer)
    before = model.item_vectors().copy()
    with torch.no_grad():
        model.network.ids.copy_(torch.randn_like(model.network.ids) * 5)
    after = model.freeze(shop).item_vectors()
    np.testing.assert_array_equal(after[COLD], before[COLD])
    assert (np.abs(after[WARM] - before[WARM]).max(axis=1) > 1e-3).all()


def test_a_cold_item_is_placed_by_its_own_content_alone(shop: TrainData) -> None:
    model = fitted(shop)
    before = model.item_vectors().copy()
    other = shop.matrix[::-1].tocsr()  # the same items are warm, taken by other users
    changed = {
        name: type(x)(np.where(np.arange(14)[:, None] == 11, -x.values, x.values), x.present)
        for name, x in shop.features.items()
    }
    after = model.freeze(TrainData(sp.csr_matrix(other), changed)).item_vectors()
    still = [10, 12, 13]
    np.testing.assert_array_equal(after[still], before[still])
    assert np.abs(after[11] - before[11]).max() > 1e-3


def test_content_is_the_tower_and_the_mean_of_the_modalities_that_are_shown(
    shop: TrainData,
) -> None:
    network = (model := fitted(shop)).network
    items = model.item_input(shop.features, model.teacher.content)
    hidden = {name: torch.zeros(14, dtype=torch.bool) for name in shop.features}
    hidden["genre"][[0, 3]] = hidden["text"][[0, 1]] = hidden["image"][0] = True
    with torch.no_grad():
        found, tower = network.content(items, hidden), network.tower(items.fused)
        projected = network.project(items)
    for item in range(14):
        expected = tower[item]
        shown = [
            projected[name][item]
            for name, x in shop.features.items()
            if x.present[item] and not hidden[name][item]
        ]
        if shown:
            expected = expected + torch.stack(shown).mean(dim=0)
        torch.testing.assert_close(found[item], expected)


def test_an_item_hears_the_mean_content_of_warm_items_like_it(shop: TrainData) -> None:
    model = fitted(shop)
    similar = model.similar.toarray()
    assert not similar[:, COLD].any()
    assert not similar.diagonal().any()
    with torch.no_grad():
        content = model.network.content(model.item_input(shop.features, model.teacher.content))
        heard = model.network.hear_neighbours(content, SparseOperator(model.similar))
    for item in range(13):  # the last has no content, hence no neighbours
        weights = similar[item] / similar[item].sum()
        expected = content[item].numpy() + model.config.neighbour_weight * (
            weights @ content.numpy()
        )
        np.testing.assert_allclose(heard[item].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert not similar[13].any()


def test_without_neighbours_an_item_is_its_own_content(shop: TrainData) -> None:
    model = Aligned(AlignedConfig(embedding_dim=8, hidden_dim=16, neighbours=0)).fit(shop)
    assert model.similar.nnz == 0
    with torch.no_grad():
        content = model.network.content(model.item_input(shop.features, model.teacher.content))
        heard = model.network.hear_neighbours(content, SparseOperator(model.similar))
    np.testing.assert_array_equal(heard.numpy(), content.numpy())


def test_the_network_moves_cold_items_for_their_expected_popularity(shop: TrainData) -> None:
    model = fitted(shop)
    plain = model.user_vectors(shop.matrix) @ model.item_vectors().T
    moved = model.components(shop.matrix)["network"]
    np.testing.assert_array_equal(moved[:, WARM], plain[:, WARM])
    expected = model.teacher.content[COLD] @ model.teacher.popularity
    assert np.ptp(expected) > 0.01
    steps = 0.6 * plain[:, WARM].std(axis=1)[:, None] * expected
    np.testing.assert_allclose(moved[:, COLD], plain[:, COLD] + steps, rtol=1e-4, atol=1e-6)


def test_freezing_reads_no_dropout(shop: TrainData) -> None:
    model = fitted(shop)
    before = model.item_vectors().copy()
    model.network.train()
    np.testing.assert_array_equal(model.freeze(shop).item_vectors(), before)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "interval", "wrong", "right"),
    [
        *(
            (name, "[1, inf)", [0, -4], [1])
            for name in (
                *("embedding_dim", "hidden_dim", "fused_dim", "num_layers"),
                *("batch_size", "settle_steps"),
            )
        ),
        ("negatives", "[0, inf)", [-5], [0, 1]),
        *(
            (name, "[0, inf)", [-1.0, NAN, INF], [0.0, 3.0])
            for name in (
                *("content_weight", "alignment_weight", "distillation_weight"),
                "weight_decay",
            )
        ),
        ("learning_rate", "(0, inf)", [-1.0, 0.0, NAN, INF], [1e-9]),
        *(
            (name, "[0, 1)", [-1.0, 1.0, 1.5, NAN], [0.0, 0.99])
            for name in ("content_dropout", "modality_dropout", "cold_share")
        ),
        ("id_dropout", "[0, 1]", [-1.0, 1.1, NAN], [0.0, 1.0]),
        ("supervision", "(0, 1)", [0.0, -1.0, 1.0, NAN], [0.01, 0.99]),
        ("temperature", "[0.01, 1]", [0.0, -1.0, 1.5, NAN], [0.01, 1.0]),
    ],
)
def test_a_setting_out_of_its_range_is_named_with_the_range(
    name: str, interval: str, wrong: list[float], right: list[float]
) -> None:
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            from_dict(ModelConfig, {"aligned": {name: value}}, where="model")
        said = f"model.aligned.{name} must be in {interval} (got {value!r})"
        assert str(caught.value) == f"{said}: see the default"
    for value in right:
        assert getattr(AlignedConfig(**{name: value}), name) == value  # type: ignore[arg-type]


NUMBERS = [name for name, value in vars(AlignedConfig()).items() if type(value) in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_range(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        AlignedConfig(**{name: -1})  # type: ignore[arg-type]
