"""The kernel by hand, and its features against its own definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmalign.errors import ConfigError, DataError
from mmalign.interfaces import Feature, Features
from mmalign.models import TrainData
from mmalign.models.kernel import ContentKernel, KernelConfig

WEIGHTS = {"text": 1.0, "image": 0.25, "genre": 0.5}


def unit_by_hand(features: Features, warm: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Centred on the warm items that have it, scaled to length one, zero where absent."""
    units = {}
    for name, x in features.items():
        values = x.values.astype(np.float64)
        mean = np.mean([values[i] for i in range(len(warm)) if warm[i] and x.present[i]], axis=0)
        units[name] = np.array(
            [
                (v - mean) / np.linalg.norm(v - mean) if there else np.zeros_like(v)
                for v, there in zip(values, x.present, strict=True)
            ]
        )
    return units


def gram_by_hand(
    units: dict[str, NDArray[np.float64]], kind: str, weights: dict[str, float] = WEIGHTS
) -> NDArray[np.float64]:
    count = len(next(iter(units.values())))
    gram = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            cosines = {name: weights[name] * float(u[i] @ u[j]) for name, u in units.items()}
            product = np.prod([1 + c for c in cosines.values()])
            gram[i, j] = product if kind == "product" else sum(cosines.values())
    return gram


def centred_by_hand(gram: NDArray[np.float64], landmarks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Inner products around the landmarks' mean in the kernel's own space."""
    towards = gram[:, landmarks].mean(axis=1)
    return gram - towards[:, None] - towards[None] + gram[np.ix_(landmarks, landmarks)].mean()


@pytest.mark.parametrize("kind", ["product", "sum"])
def test_features_stand_for_the_centred_kernel(shop: TrainData, kind: str) -> None:
    kernel = ContentKernel(KernelConfig(kind=kind)).fit(shop.features, shop.warm)  # type: ignore[arg-type]
    z = kernel.transform(shop.features)
    assert z.dtype == np.float32
    expected = centred_by_hand(gram_by_hand(unit_by_hand(shop.features, shop.warm), kind), WARM)
    # exact between a landmark and anything that has content
    np.testing.assert_allclose(z[WARM] @ z[:13].T, expected[:10, :13], atol=2e-5)


WARM = np.arange(10)


def test_weights_and_modalities_are_read_from_the_config(shop: TrainData) -> None:
    weights = {"text": 0.3, "genre": 2.0}
    config = KernelConfig(weights=weights, modalities=("text", "genre"))
    z = ContentKernel(config).fit(shop.features, shop.warm).transform(shop.features)
    some = {name: shop.features[name] for name in weights}
    units = unit_by_hand(some, shop.warm)
    expected = centred_by_hand(gram_by_hand(units, "product", weights), WARM)
    np.testing.assert_allclose(z[WARM] @ z[:13].T, expected[:10, :13], atol=2e-5)


def test_fewer_landmarks_make_the_nystrom_approximation(shop: TrainData) -> None:
    kernel = ContentKernel(KernelConfig(landmarks=6)).fit(shop.features, shop.warm)
    rows = np.sort(np.random.default_rng(0).choice(WARM, 6, replace=False))
    gram = gram_by_hand(unit_by_hand(shop.features, shop.warm), "product")
    centred = centred_by_hand(gram, rows)
    across, inner = centred[:, rows], centred[np.ix_(rows, rows)]
    expected = across @ np.linalg.pinv(inner, rcond=1e-6) @ across.T
    z = kernel.transform(shop.features)
    np.testing.assert_allclose(z[:13] @ z[:13].T, expected[:13, :13], atol=1e-3)


def test_rank_keeps_the_leading_directions(shop: TrainData) -> None:
    full = ContentKernel(KernelConfig()).fit(shop.features, shop.warm).transform(shop.features)
    few = ContentKernel(KernelConfig(rank=3)).fit(shop.features, shop.warm)
    np.testing.assert_allclose(few.transform(shop.features), full[:, :3], atol=1e-6)
    energy = (full[WARM] ** 2).sum(axis=0)
    assert (np.diff(energy) <= 1e-5).all()


def test_an_absent_modality_leaves_the_other_factors(shop: TrainData) -> None:
    """The factor of an absent modality is one, whatever the other item has."""
    kernel = ContentKernel(KernelConfig()).fit(shop.features, shop.warm)
    found = kernel.similarities(
        {name: x.rows(np.array([3])) for name, x in shop.features.items()}, shop.features
    )
    np.testing.assert_array_equal(found["image"], np.zeros((1, 14)))
    units = unit_by_hand(shop.features, shop.warm)
    gram = gram_by_hand(units, "product")
    total = np.sum(list(found.values()), axis=0)
    np.testing.assert_allclose(np.exp(total[0, :13]), np.maximum(gram[3, :13], 1e-3), rtol=1e-3)


def test_an_item_without_any_modality_is_at_the_centre(shop: TrainData) -> None:
    for kind in ("product", "sum"):
        kernel = ContentKernel(KernelConfig(kind=kind)).fit(shop.features, shop.warm)  # type: ignore[arg-type]
        assert not kernel.transform(shop.features)[13].any()


def test_a_warm_item_without_content_is_no_landmark(shop: TrainData) -> None:
    features = {}
    for name, x in shop.features.items():
        present = x.present.copy()
        present[0] = False
        features[name] = Feature(np.where(present[:, None], x.values, 0), present)
    kernel = ContentKernel(KernelConfig()).fit(features, shop.warm)
    later = {name: x.rows(np.arange(1, 14)) for name, x in features.items()}
    other = ContentKernel(KernelConfig()).fit(later, shop.warm[1:])
    np.testing.assert_array_equal(kernel.transform(features)[1:], other.transform(later))


def test_equal_content_has_no_direction() -> None:
    """Rounding, as of a text encoded in two batches, is not scaled up to a direction of its own."""
    rng = np.random.default_rng(0)
    values = np.tile(rng.standard_normal(384), (12, 1)) * (1 + 1e-7 * rng.random((12, 384)))
    features = {"text": Feature(values.astype(np.float32), np.ones(12, bool))}
    kernel = ContentKernel(KernelConfig()).fit(features, np.arange(12) < 11)
    assert not kernel.unit(features)["text"].values.any()
    assert kernel.transform(features).shape == (12, 0)


def test_the_mean_of_many_rows_keeps_its_digits() -> None:
    values = np.random.default_rng(0).standard_normal((20_000, 2)).astype(np.float32) + 100
    features = {"text": Feature(values, np.ones(20_000, bool))}
    kernel = ContentKernel(KernelConfig(landmarks=5)).fit(features, np.ones(20_000, bool))
    exact = values.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(kernel.means["text"], exact, rtol=1e-7)


def test_what_is_stored_is_all_there_is(shop: TrainData) -> None:
    kernel = ContentKernel(KernelConfig()).fit(shop.features, shop.warm)
    loaded = ContentKernel(KernelConfig()).load_arrays(kernel.arrays())
    np.testing.assert_array_equal(loaded.transform(shop.features), kernel.transform(shop.features))
    assert loaded.modalities == kernel.modalities == ["genre", "image", "text"]


def test_blocks_change_nothing(shop: TrainData) -> None:
    kernel = ContentKernel(KernelConfig()).fit(shop.features, shop.warm)
    np.testing.assert_allclose(
        kernel.transform(shop.features, block_size=3),
        kernel.transform(shop.features),
        rtol=1e-5,
        atol=1e-6,
    )


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100))
def test_the_scale_of_a_modality_says_nothing(seed: int, scale: float) -> None:
    values = np.random.default_rng(seed).standard_normal((8, 3)).astype(np.float32)
    warm, there = np.arange(8) < 6, np.ones(8, bool)
    grams = []
    for x in (values, (values * scale).astype(np.float32)):
        feature = {"text": Feature(x, there)}
        z = ContentKernel(KernelConfig()).fit(feature, warm).transform(feature)
        grams.append(z @ z.T)
    np.testing.assert_allclose(grams[0], grams[1], atol=1e-3)


class TestErrors:
    def test_names_the_nearest_modality(self, shop: TrainData) -> None:
        with pytest.raises(ConfigError, match="did you mean 'image'"):
            ContentKernel(KernelConfig(modalities=("imgae",))).fit(shop.features, shop.warm)
        with pytest.raises(ConfigError, match="did you mean 'text'"):
            ContentKernel(KernelConfig(weights={"texts": 1.0})).fit(shop.features, shop.warm)

    def test_no_warm_item_with_content(self, shop: TrainData) -> None:
        with pytest.raises(DataError, match="no warm item has any content"):
            ContentKernel(KernelConfig()).fit(shop.features, np.arange(14) == 13)
        with pytest.raises(DataError, match="no warm item has any content"):
            ContentKernel(KernelConfig()).fit({}, shop.warm)

    def test_another_width(self, shop: TrainData) -> None:
        kernel = ContentKernel(KernelConfig()).fit(shop.features, shop.warm)
        wide = {"text": Feature(np.ones((1, 7), np.float32), np.ones(1, bool))}
        with pytest.raises(DataError, match="'text' must be 6 wide"):
            kernel.transform(wide)

    @pytest.mark.parametrize("wrong", [{"landmarks": 0}, {"rank": 0}, {"weights": {"text": -1.0}}])
    def test_impossible_settings(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match="kernel"):
            KernelConfig(**wrong)  # type: ignore[arg-type]
