from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.tuning.augment import augment


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 99)], -1).astype(np.uint8))


def test_crops_keep_most_of_the_picture_and_its_shape():
    sizes = np.array([augment(Image.new("RGB", (200, 300)), seed).size for seed in range(300)])
    shares = sizes.prod(axis=1) / (200 * 300)
    shapes = sizes[:, 0] / sizes[:, 1] * 300 / 200
    assert 0.59 < shares.min() < 0.64
    assert 0.97 < shares.max() <= 1
    assert 0.85 < shapes.min() < 0.88
    assert 1.13 < shapes.max() < 1.18


def test_half_of_them_are_mirrored_and_none_is_upside_down():
    mirrored = 0
    for seed in range(200):
        pixels = np.asarray(augment(ramp(40, 60), seed)).astype(int)
        mirrored += pixels[:, 0, 0].mean() > pixels[:, -1, 0].mean()
        assert pixels[-1, :, 1].mean() > pixels[0, :, 1].mean()
    assert 75 < mirrored < 125


def test_the_light_changes_a_little():
    grey = Image.new("RGB", (8, 8), (120, 120, 120))
    means = [np.asarray(augment(grey, seed)).mean() for seed in range(200)]
    assert 101 <= min(means) < 107
    assert 133 < max(means) <= 139


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 3)])
def test_the_smallest_pictures(size):
    for seed in range(50):
        assert min(augment(Image.new("RGB", size), seed).size) >= 1


def test_a_seed_decides():
    one, again, other = (np.asarray(augment(ramp(40, 60), seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or not np.array_equal(one, other)
