"""Why an item stands where it does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import Feature
from mmalign.models import MODELS
from mmalign.models.graph_ease import GraphEase
from mmalign.models.neural.base import NeuralModel
from mmalign.recommender import Recommender

Make = Callable[[str], Recommender]


@pytest.mark.parametrize("name", MODELS)
def test_shares_sum_to_one_and_neighbours_are_warm(make: Make, name: str) -> None:
    recommender = make(name)
    for item in ("i00", "i13"):
        found = recommender.explain(item, k=4)
        assert found.item_id == item
        assert len(found.neighbours) <= 4
        for neighbour in found.neighbours:
            assert neighbour.item_id != item
            assert recommender.warm[recommender.item_rows([neighbour.item_id])].all()
            assert neighbour.similarity > 0
            assert sum(neighbour.shares.values()) == pytest.approx(1)
            assert all(0 <= share <= 1 for share in neighbour.shares.values())
        similarities = [n.similarity for n in found.neighbours]
        assert similarities == sorted(similarities, reverse=True)
        if found.neighbours:
            assert sum(found.shares.values()) == pytest.approx(1)
        else:
            assert not any(found.shares.values())


def test_content_models_name_their_modalities(make: Make) -> None:
    for name in MODELS:
        recommender = make(name)
        has_kernel = hasattr(recommender.model, "kernel")
        expected = {"text", "image"} if has_kernel else {"behaviour"}
        assert set(recommender.explain("i01").shares) == expected
        by_vectors = issubclass(MODELS[name], NeuralModel | GraphEase)
        assert has_kernel == (MODELS[name].uses_content and not by_vectors)


def test_by_hand(recommender: Recommender, features: dict[str, Feature]) -> None:
    """The product kernel's logarithm is the sum of the logarithms of its factors."""
    cosines = {}
    for name, x in features.items():
        rows = x.values - x.values[:12][x.present[:12]].mean(axis=0)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True) * x.present[:, None]
        cosines[name] = unit[13] @ unit[:12].T
    logs = {
        "text": np.log(np.maximum(1 + cosines["text"], 1e-3)),
        "image": np.log(1 + 0.25 * cosines["image"]),
    }
    total = logs["text"] + logs["image"]
    best = int(np.argmax(total))
    found = recommender.explain("i13", k=1).neighbours[0]
    assert found.item_id == f"i{best:02}"
    assert found.similarity == pytest.approx(float(total[best]), rel=1e-4)
    positive = {name: max(float(values[best]), 0) for name, values in logs.items()}
    assert found.shares["text"] == pytest.approx(
        positive["text"] / sum(positive.values()), rel=1e-4
    )


def test_of_items_equally_alike_the_first_is_named(recommender: Recommender) -> None:
    recommender.features = {
        name: Feature(np.ones_like(x.values), np.ones(16, bool))
        for name, x in recommender.features.items()
    }
    found = recommender.explain("i13", k=3)
    assert [n.item_id for n in found.neighbours] == ["i00", "i01", "i02"]


def test_an_absent_modality_has_no_share(recommender: Recommender) -> None:
    found = recommender.explain("i14", k=9)  # it has no image
    assert found.neighbours
    assert all(n.shares["image"] == 0 and n.shares["text"] == 1 for n in found.neighbours)


def test_among_a_users_history(recommender: Recommender, catalog: Catalog) -> None:
    log = catalog.interactions
    own = set(log[(log.user_id == "u00") & (log.split == "train")].item_id)
    found = recommender.explain("i13", "u00", k=9)
    assert found.neighbours
    assert {n.item_id for n in found.neighbours} <= own


def test_among_given_items_only_the_warm_ones(recommender: Recommender) -> None:
    every = [f"i{i:02}" for i in range(16)]
    found = recommender.explain("i13", history=every, k=99)
    assert {n.item_id for n in found.neighbours} <= set(every[:12])
    assert found == recommender.explain("i13", k=99)


def test_a_user_without_train_rows_names_nothing(recommender: Recommender) -> None:
    assert recommender.explain("i13", "u23").neighbours == ()


def test_without_stored_content_by_behaviour(recommender: Recommender) -> None:
    recommender.features = {}
    assert set(recommender.explain("i13").shares) == {"behaviour"}


def test_wrong_arguments(recommender: Recommender) -> None:
    with pytest.raises(DataError, match="unknown item ids"):
        recommender.explain("i99")
    with pytest.raises(DataError, match=r"unknown user ids .got 'u99'"):
        recommender.explain("i13", "u99")
    with pytest.raises(ConfigError, match="k must be at least 1"):
        recommender.explain("i13", k=0)
