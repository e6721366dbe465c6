from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from mmalign.encoders.image import ImageEncoder, average_views

CPU = torch.device("cpu")


class Moments(torch.nn.Module):
    """Mean and deviation of each channel: easy to work out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3))], dim=1)


def pixels(image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.resize((8, 8)), np.float32)).permute(2, 0, 1)


def encoder(**options) -> ImageEncoder:
    return ImageEncoder(Moments(), pixels, CPU, fingerprint="f", **options)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_rows_keep_their_order_whatever_the_batch_size(pictures, batch_size):
    from mmalign.pictures import open_image

    got = encoder(batch_size=batch_size).encode(pictures)
    expected = [Moments()(pixels(open_image(path))[None])[0].numpy() for path in pictures]
    assert got.present.all()
    np.testing.assert_allclose(got.values, expected, rtol=1e-5)


def test_broken_pictures_fail_alone(pictures, tmp_path):
    whole = pictures[0].read_bytes()
    values = [pictures[1], whole[:80], tmp_path / "gone.png", b"no picture", pictures[2], whole]
    encoded = encoder(batch_size=2).encode(values)
    assert encoded.present.tolist() == [True, False, False, False, True, True]
    assert list(encoded.problems) == [1, 2, 3]
    assert "file not found" in encoded.problems[2]
    assert not encoded.values[[1, 2, 3]].any()
    np.testing.assert_allclose(
        encoded.values[[0, 4, 5]],
        encoder().encode([pictures[1], pictures[2], pictures[0]]).values,
        rtol=1e-5,
    )


def test_all_broken_and_none_at_all():
    assert not encoder().encode([b"", b"x"]).present.any()
    assert encoder().encode([]).values.shape == (0, 6)


def test_batches_are_full_and_decoding_runs_in_other_threads(pictures):
    seen = set()

    def transform(image) -> torch.Tensor:
        seen.add(threading.current_thread().name)
        return pixels(image)

    tower = Moments()
    ImageEncoder(tower, transform, CPU, fingerprint="f", batch_size=4).encode(pictures)
    assert tower.batches == [1, 4, 4, 3]  # the first measures the dimension
    assert any(name.startswith("mmalign-decode") for name in seen)


def test_a_bug_in_the_transform_is_not_taken_for_a_broken_picture(pictures):
    def transform(image) -> torch.Tensor:
        if image.size == (64, 64):  # the probe
            return pixels(image)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ImageEncoder(Moments(), transform, CPU, fingerprint="f").encode(pictures)


def test_views_without_margins_are_the_middle_of_both_sides():
    """Of 20 rows the middle 17 from the second on, of 40 columns the middle 34 from the fourth."""
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(40.0), indexing="ij")
    views = []
    average_views(lambda x: views.append(x) or x.flatten(1), torch.stack([rows, columns])[None], 4)
    down = 1 + ((torch.arange(20) + 0.5) * 17 / 20 - 0.5).clip(0, 16)
    across = 3 + ((torch.arange(40) + 0.5) * 34 / 40 - 0.5).clip(0, 33)
    torch.testing.assert_close(views[1][0, 0], down[:, None].expand(20, 40))
    torch.testing.assert_close(views[1][0, 1], across.expand(20, 40))
    torch.testing.assert_close(views[3], views[1].flip(-1))
