"""Neighbour models by plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from mmalign.errors import ConfigError
from mmalign.models import TrainData
from mmalign.models.kernel import ContentKernel, KernelConfig
from mmalign.models.neighbours import ContentKNN, ContentKNNConfig, ItemKNN, ItemKNNConfig

EVERYTHING = np.arange(14)


@pytest.mark.parametrize("neighbours", [2, 100])
@pytest.mark.parametrize("shrinkage", [0.0, 10.0])
def test_item_knn_by_loops(shop: TrainData, neighbours: int, shrinkage: float) -> None:
    taken = [set(row.indices.tolist()) for row in shop.matrix.T.tocsr()]  # users of each item
    expected = np.zeros((30, 14))
    for item in range(14):
        cosine = {}
        for other in range(14):
            together = len(taken[item] & taken[other])
            if other != item and together:
                norm = np.sqrt(len(taken[item])) * np.sqrt(len(taken[other]))
                cosine[other] = together / (norm + shrinkage)
        best = sorted(cosine, key=lambda other: (-np.float32(cosine[other]), other))[:neighbours]
        for user, row in enumerate(shop.matrix):
            expected[user, item] = sum(cosine[o] for o in best if o in set(row.indices.tolist()))
    model = ItemKNN(ItemKNNConfig(neighbours, shrinkage)).fit(shop)
    np.testing.assert_allclose(model.score(shop.matrix, EVERYTHING), expected, atol=1e-5)


def test_item_knn_reads_who_took_it_and_not_how_often(shop: TrainData) -> None:
    often = shop.matrix * 7
    one, other = (ItemKNN(ItemKNNConfig()).fit(TrainData(m, {})) for m in (shop.matrix, often))
    np.testing.assert_array_equal(one.weights.toarray(), other.weights.toarray())
    np.testing.assert_array_equal(often.data, np.full(often.nnz, 7))


def content_weights_by_loops(data: TrainData, neighbours: int) -> NDArray[np.float64]:
    """Row i: the normalised cosines of i's nearest warm items."""
    z = ContentKernel(KernelConfig()).fit(data.features, data.warm).transform(data.features)
    weights = np.zeros((14, 14))
    for item in range(13):
        cosine = {
            other: float(z[item] @ z[other] / np.linalg.norm(z[item]) / np.linalg.norm(z[other]))
            for other in range(10)
            if other != item
        }
        for other in sorted(cosine, key=lambda o: -cosine[o])[:neighbours]:
            weights[item, other] = max(cosine[other], 0)
    sums = weights.sum(axis=1)
    for item, other in np.argwhere(weights):
        weights[item, other] /= np.sqrt(sums[item]) * np.sqrt(sums[other])
    return weights


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_content_knn_by_loops(shop: TrainData, hops: int) -> None:
    step = content_weights_by_loops(shop, 3)
    expected = np.zeros((30, 14))
    for user, row in enumerate(shop.matrix):
        for item in range(14):
            paths = {item: 1.0}  # walk back from the item, a hop at a time
            for _ in range(hops):
                reached: dict[int, float] = {}
                for at, weight in paths.items():
                    for other in range(14):
                        reached[other] = reached.get(other, 0) + weight * step[at, other]
                paths = reached
                expected[user, item] += sum(paths[o] for o in row.indices.tolist())
    model = ContentKNN(ContentKNNConfig(neighbours=3, hops=hops)).fit(shop)
    np.testing.assert_allclose(model.score(shop.matrix, EVERYTHING), expected, atol=1e-5)


def test_more_hops_reach_further(shop: TrainData) -> None:
    near, far = (
        (ContentKNN(ContentKNNConfig(1, hops)).fit(shop).score(shop.matrix, EVERYTHING) > 0).mean()
        for hops in (1, 3)
    )
    assert far > near > 0


def test_an_item_without_content_is_nobodys_neighbour(shop: TrainData) -> None:
    model = ContentKNN(ContentKNNConfig()).fit(shop)
    assert model.weights[:, [13]].nnz == 0
    assert model.weights[[13]].nnz == 0
    assert (model.score(shop.matrix, np.array([13])) == 0).all()


def test_no_cold_item_is_a_neighbour(shop: TrainData) -> None:
    assert ContentKNN(ContentKNNConfig()).fit(shop).weights[10:].nnz == 0


def test_equal_cosines_go_to_the_lower_row() -> None:
    """Item 3 was taken with each of the others once."""
    matrix = sp.csr_matrix(np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]], np.float32))
    model = ItemKNN(ItemKNNConfig(neighbours=2, shrinkage=0)).fit(TrainData(matrix, {}))
    assert model.weights.toarray()[:, 3].nonzero()[0].tolist() == [0, 1]


def test_impossible_settings() -> None:
    for config in (ItemKNNConfig, ContentKNNConfig):
        with pytest.raises(ConfigError, match="neighbours"):
            config(neighbours=0)
    with pytest.raises(ConfigError, match="hops must be at least 1"):
        ContentKNNConfig(hops=0)
    with pytest.raises(ConfigError, match="shrinkage"):
        ItemKNNConfig(shrinkage=-1.0)


def test_damaged_weights_are_refused(shop: TrainData) -> None:
    model = ItemKNN(ItemKNNConfig()).fit(shop)
    arrays = model.arrays()
    wild = arrays | {"weights.indices": arrays["weights.indices"] + 10**6}
    with pytest.raises(ValueError, match="indices"):
        ItemKNN(ItemKNNConfig()).load_arrays(wild)
