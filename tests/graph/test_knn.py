from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.neighbors import NearestNeighbors

from mmalign.errors import ConfigError, DataError
from mmalign.graph.knn import combine_knn, content_knn, interaction_knn
from mmalign.interfaces import BoolArray, Feature


def everything(values: object) -> Feature:
    array = np.asarray(values, dtype=np.float32)
    return Feature(array, np.ones(len(array), dtype=bool))


def knn_by_loops(feature: Feature, k: int, sources: BoolArray | None) -> np.ndarray:
    values = feature.values.astype(np.float64)
    n = len(values)
    expected = np.zeros((n, n), dtype=np.float32)
    usable = [i for i in range(n) if feature.present[i] and values[i].any()]
    for i in usable:
        found = []
        for j in usable:
            if i == j or (sources is not None and not sources[j]):
                continue
            cosine = values[i] @ values[j] / np.linalg.norm(values[i]) / np.linalg.norm(values[j])
            if cosine > 1e-6:
                found.append((-round(float(cosine), 6), j, cosine))
        for _, j, cosine in sorted(found)[:k]:
            expected[i, j] = cosine
    return expected


# Few distinct whole numbers make ties, zero rows and opposite vectors common.
small_features = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.integers(-2, 2).map(float),
)


@settings(max_examples=150, deadline=None)
@given(
    values=small_features,
    k=st.integers(1, 14),
    block_size=st.integers(1, 14),
    seed=st.integers(0, 99),
    limited=st.booleans(),
)
def test_equals_plain_loops_for_any_block_size(
    values: np.ndarray, k: int, block_size: int, seed: int, limited: bool
) -> None:
    rng = np.random.default_rng(seed)
    feature = Feature(values, rng.random(len(values)) < 0.8)
    sources = rng.random(len(values)) < 0.6 if limited else None
    graph = content_knn(feature, k, sources, block_size)
    np.testing.assert_allclose(graph.toarray(), knn_by_loops(feature, k, sources), atol=1e-6)
    assert graph.has_sorted_indices
    assert graph.dtype == np.float32


def test_equals_scikit_learn_on_real_valued_features() -> None:
    values = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    search = NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute").fit(values)
    distance, found = search.kneighbors(values)
    expected = np.zeros((300, 300))
    np.put_along_axis(expected, found[:, 1:], 1 - distance[:, 1:], axis=1)  # 0 is the item itself
    graph = content_knn(everything(values), 5, block_size=64)
    np.testing.assert_allclose(graph.toarray(), expected, atol=1e-6)


@pytest.mark.parametrize("block_size", [1, 7, 50, 1024])
def test_duplicates_tie_to_the_lower_row(block_size: int) -> None:
    one = np.random.default_rng(0).standard_normal(33).astype(np.float32)
    values = np.tile(one, (101, 1)) * np.linspace(0.1, 9, 101, dtype=np.float32)[:, None]
    graph = content_knn(everything(values), 3, block_size=block_size)
    assert graph[0].indices.tolist() == [1, 2, 3]
    assert graph[2].indices.tolist() == [0, 1, 3]
    assert graph[100].indices.tolist() == [0, 1, 2]
    assert graph.data.max() <= 1.0


def test_absent_and_zero_items_take_no_slots() -> None:
    # Eleven zero rows once took 99.4% of the slots of an item graph, without an error.
    rng = np.random.default_rng(1)
    values = rng.standard_normal((200, 8)).astype(np.float32)
    present = np.ones(200, dtype=bool)
    values[:6] = 0.0
    present[:6] = False
    values[6:11] = 0.0  # present, but without a direction
    values[11], present[11] = np.nan, False  # never read
    graph = content_knn(Feature(values, present), 10)
    assert graph[:12].nnz == 0
    assert graph[:, :12].nnz == 0
    assert (np.diff(graph.indptr)[12:] == 10).all()


def test_only_sources_are_neighbours_but_every_item_has_some() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal((40, 4)))
    sources = np.arange(40) < 30
    graph = content_knn(everything(values), 5, sources)
    assert graph[:, 30:].nnz == 0
    assert (np.diff(graph.indptr) == 5).all()


def test_cold_items_do_not_change_the_neighbours_of_warm_ones() -> None:
    values = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    sources = np.arange(40) < 30
    together = content_knn(everything(values), 5, sources)[:30, :30]
    alone = content_knn(everything(values[:30]), 5)
    assert (together != alone).nnz == 0


def test_opposite_and_orthogonal_items_are_no_neighbours() -> None:
    graph = content_knn(everything([[1, 0], [-1, 0], [0, 1]]), 2)
    assert graph.nnz == 0


@pytest.mark.parametrize("num_items", [0, 1])
def test_nothing_to_compare_gives_an_empty_graph(num_items: int) -> None:
    graph = content_knn(everything(np.ones((num_items, 3))), 4)
    assert graph.shape == (num_items, num_items)
    assert graph.nnz == 0


def test_extreme_lengths_neither_overflow_nor_vanish() -> None:
    graph = content_knn(everything([[1e-30, 0], [3e30, 4e30]]), 1)
    assert graph[0, 1] == pytest.approx(0.6)


def test_memory_stays_far_below_all_pairs() -> None:
    n = 4000
    feature = everything(np.random.default_rng(0).standard_normal((n, 4)))
    tracemalloc.start()
    content_knn(feature, 5, block_size=256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n * n * 4 / 4


def test_wrong_input_is_refused_in_one_line() -> None:
    feature = everything(np.ones((3, 2)))
    with pytest.raises(ConfigError, match="k must be at least 1"):
        content_knn(feature, 0)
    with pytest.raises(ConfigError, match="block_size must be at least 1"):
        content_knn(feature, 1, block_size=0)
    with pytest.raises(DataError, match="one bool per item"):
        content_knn(feature, 1, np.ones(2, dtype=bool))
    with pytest.raises(DataError, match="one bool per item"):
        content_knn(feature, 1, np.array([0, 1, 2]))  # type: ignore[arg-type]
    feature.values[1, 0] = np.inf
    with pytest.raises(DataError, match="item row 1"):
        content_knn(feature, 1)


def test_combining_is_a_weighted_sum_and_leaves_its_input_alone() -> None:
    text = sp.random_array((6, 6), density=0.4, rng=np.random.default_rng(0)).tocsr()
    image = sp.random_array((6, 6), density=0.4, rng=np.random.default_rng(1)).tocsr()
    before = text.toarray()
    combined = combine_knn(
        {"text": text, "image": image, "sound": text}, {"text": 0.8, "image": 0.2}
    )
    np.testing.assert_allclose(combined.toarray(), 0.8 * before + 0.2 * image.toarray(), atol=1e-6)
    np.testing.assert_array_equal(text.toarray(), before)


def test_a_weight_of_zero_leaves_no_entries() -> None:
    graphs = {"text": sp.csr_matrix(np.eye(3)), "image": sp.csr_matrix(np.eye(3)[::-1])}
    assert combine_knn(graphs, {"text": 1.0, "image": 0.0}).nnz == 3


def test_combining_refuses_wrong_input() -> None:
    graphs = {"text": sp.csr_matrix((3, 3)), "image": sp.csr_matrix((4, 4))}
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        combine_knn(graphs, {"imag": 1.0})
    with pytest.raises(ConfigError, match="no modality weights"):
        combine_knn(graphs, {})
    with pytest.raises(ConfigError, match="finite and >= 0"):
        combine_knn(graphs, {"text": -1.0})
    with pytest.raises(DataError, match="differ in shape"):
        combine_knn(graphs, {"text": 1.0, "image": 1.0})


@given(st.integers(0, 50), st.integers(1, 4))
def test_some_targets_get_the_rows_that_all_would(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    feature = Feature(rng.normal(size=(9, 3)).astype(np.float32), rng.random(9) < 0.8)
    targets, sources = rng.random(9) < 0.5, rng.random(9) < 0.6
    whole = content_knn(feature, k, sources).toarray()
    some = content_knn(feature, k, sources, targets=targets).toarray()
    np.testing.assert_array_equal(some, np.where(targets[:, None], whole, 0))


@settings(max_examples=50)
@given(
    taken=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.integers(1, 7)),
        elements=st.sampled_from([0.0, 1.0, 3.0]),
    ),
    k=st.integers(1, 4),
    shrinkage=st.sampled_from([0.0, 10.0]),
)
def test_interaction_neighbours_equal_plain_loops(taken, k, shrinkage):
    found = interaction_knn(sp.csr_matrix(taken), k, shrinkage).toarray()
    users = [set(np.flatnonzero(column)) for column in taken.T]
    for item, mine in enumerate(users):
        near = {
            other: len(mine & theirs) / (np.sqrt(len(mine) * len(theirs)) + shrinkage)
            for other, theirs in enumerate(users)
            if other != item and mine & theirs
        }
        expected = sorted(near.items(), key=lambda pair: (-round(pair[1], 9), pair[0]))[:k]
        assert {j: found[item, j] for j in np.flatnonzero(found[item])} == pytest.approx(
            dict(expected), rel=1e-6
        )


def test_a_cosine_that_may_be_the_rounding_of_zero_makes_no_neighbours() -> None:
    far, near = everything([[1, 0], [1e-8, 1]]), everything([[1, 0], [1e-6, 1]])
    assert content_knn(far, 1).nnz == 0
    assert content_knn(near, 1).nnz == 2
