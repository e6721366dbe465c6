from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmalign.pictures import MAX_PIXELS, BrokenImageError, open_image


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size in a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def test_paths_and_bytes_give_the_same_picture(pictures):
    for path in pictures:
        image = open_image(path)
        assert image.mode == "RGB"
        assert np.array_equal(image, open_image(path.read_bytes()))
        assert np.array_equal(image, open_image(str(path)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new("RGB", (9, 7), (10, 200, 30)).convert(mode)
    opened = open_image(encode(image, "TIFF"))
    assert (opened.mode, opened.size) == ("RGB", (9, 7))


@pytest.mark.parametrize(
    ("kind", "dtype", "white"),
    [
        ("PNG", np.uint16, 65_535),
        ("TIFF", np.uint16, 65_535),
        ("TIFF", ">u2", 65_535),
        ("TIFF", np.int32, 255),
        ("TIFF", np.int32, 65_535),
        ("TIFF", np.float32, 1),
        ("TIFF", np.float32, 255),
    ],
)
def test_grey_of_more_than_eight_bits_keeps_its_shades(kind, dtype, white):
    shades = np.arange(0, 256, 5)[None].repeat(3, axis=0)
    grey = Image.fromarray((shades * (white / 255)).astype(dtype))
    opened = np.asarray(open_image(encode(grey, kind)))
    np.testing.assert_array_equal(opened, shades[..., None].repeat(3, axis=2))


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    grey = Image.fromarray(np.array([[257, 200, 100]], np.uint16))
    opened = open_image(encode(grey))
    assert [opened.getpixel((x, 0))[0] for x in range(3)] == [1, 1, 0]  # .78 and .39 are rounded


@pytest.mark.parametrize("value", [-1.0, 70_000.0, np.nan])
def test_numbers_that_are_no_shades_are_told(value):
    grey = Image.fromarray(np.array([[0.5, value]], np.float32))
    with pytest.raises(BrokenImageError, match=r"grey from .*: save it with 8 bits"):
        open_image(encode(grey, "TIFF"))


def test_the_rotation_tag_is_applied():
    image = Image.new("RGB", (4, 2), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert open_image(encode(image, "JPEG", exif=exif)).size == (2, 4)


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    opened = open_image(encode(image))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BrokenImageError, match=r"file not found: .*gone\.png"):
        open_image(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a picture"),
        (b"these are words", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (bomb(30_000, 30_000), "too many pixels"),  # Pillow refuses this one itself
        (bomb(10_000, 10_000), "too many pixels"),  # Pillow would only warn
        (bomb(1, 5_000), "too narrow"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_bytes_say_why(data, reason):
    with pytest.raises(BrokenImageError, match=reason):
        open_image(data)


def test_a_picture_may_be_a_hundred_times_as_wide_as_high():
    assert open_image(encode(Image.new("RGB", (100, 1)))).size == (100, 1)
    with pytest.raises(BrokenImageError, match=r"too narrow \(101 x 1\)"):
        open_image(encode(Image.new("RGB", (101, 1))))


def test_a_bomb_is_not_read_when_pillows_own_check_is_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert MAX_PIXELS < 30_000**2
    with pytest.raises(BrokenImageError, match="too many pixels"):
        open_image(bomb(30_000, 30_000))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_file_cut_short_never_passes_as_whole(kind, kept):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(BrokenImageError):
        open_image(data[: int(len(data) * kept)])


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(BrokenImageError, match="cannot be decoded"):
        open_image(tmp_path)
