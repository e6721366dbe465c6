"""Projections that start in closed form."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import normalize

from mmalign.data.catalog import Catalog
from mmalign.errors import ConfigError, DataError
from mmalign.experiment import ExperimentConfig
from mmalign.finetuning import FinetuneConfig, TowerConfig
from mmalign.interfaces import TowerBatch
from mmalign.trainers.finetune import finetune
from mmalign.trainers.finetuning import start as module
from mmalign.trainers.finetuning.start import shared_directions

Told = Callable[..., ExperimentConfig]
SLOW = TowerConfig(learning_rate=1e-9)


def test_all_directions_together_are_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(1, 1, (200, 7))
    texts = pictures @ rng.normal(size=(7, 5)) + rng.normal(size=(200, 5))
    unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    shared = pictures.mean(axis=0) / np.linalg.norm(pictures.mean(axis=0))
    own = pictures - np.outer(pictures @ shared, shared)
    penalty = module.PENALTY * (own**2).sum(axis=1).mean()
    expected = Ridge(alpha=penalty).fit(own, unit - unit.mean(axis=0)).predict(own)
    of_pictures, of_texts = shared_directions(torch.tensor(pictures), torch.tensor(texts))
    projected = pictures @ of_pictures.numpy().T
    scale = np.linalg.norm(expected, axis=1).mean()
    np.testing.assert_allclose(projected @ of_texts.numpy() * scale, expected, atol=1e-5)
    np.testing.assert_allclose(of_texts @ of_texts.T, np.eye(5), atol=1e-5)
    spread = (projected**2).sum(axis=0)
    assert (np.diff(spread) <= 1e-9).all()  # the best first


@pytest.fixture
def hardly_trained(towers: dict[str, Any], told: Told, tmp_path: Path) -> Any:
    """The towers after a run that hardly moves them."""

    def run(start: str, catalog: Catalog) -> dict[str, Any]:
        mine = copy.deepcopy(towers)
        config = told(epochs=1, start=start, learning_rate=1e-9)
        config = replace(config, finetune=replace(config.finetune, text=SLOW, image=SLOW))
        finetune(config, catalog, mine, folder=tmp_path / start, progress=False)
        return mine

    return run


def _share_found(towers: dict[str, Any], catalog: Catalog) -> float:
    values = {"text": catalog.texts(), "image": catalog.images()}
    rows = {
        n: tower(tower.collate(values[n], training=False).inputs) for n, tower in towers.items()
    }
    likeness = normalize(rows["image"], dim=1) @ normalize(rows["text"], dim=1).T
    return float((likeness.argmax(dim=1) == torch.arange(len(likeness))).float().mean())


def test_pairs_find_each_other_before_any_step(hardly_trained: Any, shop: Catalog) -> None:
    found = {s: _share_found(hardly_trained(s, shop), shop) for s in ("ridge", "random")}
    assert found["ridge"] > 0.3
    assert found["random"] < 0.1


def test_pictures_that_cannot_be_read_are_left_out(hardly_trained: Any, shop: Catalog) -> None:
    def with_pictures(pictures: list[bytes | None]) -> Catalog:
        items = shop.items.assign(image=pictures)
        return Catalog.from_pandas(items, shop.interactions, config=shop.config)

    some = [
        None if row % 5 == 0 else b"broken" if row % 7 == 0 else picture
        for row, picture in enumerate(shop.items["image"])
    ]
    assert _share_found(hardly_trained("ridge", with_pictures(some)), shop) > 0.2
    broken = with_pictures([f"broken {row}".encode() for row in range(shop.num_items)])
    with pytest.raises(DataError, match=r"different pictures and texts \(got '0 that"):
        hardly_trained("ridge", broken)
    alike = with_pictures([shop.items["image"][0]] * shop.num_items)
    with pytest.raises(DataError, match="image is the same for all items"):
        hardly_trained("ridge", alike)


def test_it_is_the_same_in_every_run(
    shop: Catalog,
    towers: dict[str, Any],
    told: Told,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def altered(values: Any, *, training: bool) -> TowerBatch:
        batch = towers["image"].collate(values, training=training)
        noise = torch.rand_like(batch.inputs) if training else 0
        return TowerBatch(batch.inputs + noise, batch.kept)

    found = []
    for number in range(2):
        torch.manual_seed(number)
        mine = copy.deepcopy(towers)
        monkeypatch.setattr(mine["image"], "collate", altered)
        finetune(
            told(epochs=1, start="ridge", image=TowerConfig(views=2)),
            shop,
            mine,
            folder=tmp_path / str(number),
            progress=False,
        )
        found.append(mine["image"].projection.weight)
    torch.testing.assert_close(found[0], found[1])


def test_a_tower_without_a_new_projection_is_named(
    shop: Catalog, towers: dict[str, Any], told: Told, tmp_path: Path
) -> None:
    towers["text"].starts_anew = False
    with pytest.raises(ConfigError, match="a new linear projection, and text gets none"):
        finetune(told(start="ridge"), shop, towers, folder=tmp_path, progress=False)


def test_it_is_of_pictures_and_texts() -> None:
    for wrong in ({"behaviour": 1.0}, {"image_text": 1.0, "graph": 1.0}):
        with pytest.raises(ConfigError, match="needs the objective image_text"):
            FinetuneConfig(start="ridge", objectives=wrong)
    with pytest.raises(ConfigError, match=r"no such start.*did you mean 'ridge'"):
        FinetuneConfig(start="rigde")  # type: ignore[arg-type]
