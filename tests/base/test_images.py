"""Images: what is decoded is what was meant, what is cropped is the middle, what is encoded comes back."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmark.base import images
from benchmark.base.images import (
    BadImage,
    Transform,
    decode_ids,
    decode_rgb,
    encode_bilevel_png,
    encode_jpeg,
    encode_paletted_png,
    encode_png,
    is_plain_jpeg,
)


def _random(*shape: int, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8)


def _smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _rotated_jpeg(pixels: NDArray[np.uint8], orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(Image.fromarray(pixels), "JPEG", exif=exif, quality=95, subsampling=0)


def test_crop_is_the_centre_of_a_wide_image() -> None:
    columns = np.tile(np.arange(40, dtype=np.uint8), (20, 1))
    cropped = Transform(20, 40, 20).apply(columns)
    assert np.array_equal(cropped, columns[:, 10:30])


def test_crop_is_the_centre_of_a_tall_image() -> None:
    image = _random(33, 16, 3)
    assert np.array_equal(Transform(33, 16, 16).apply(image), image[8:24])


def test_final_size_needs_no_resize() -> None:
    image = _random(8, 8, 3)
    transform = Transform(8, 8, 8)
    assert transform.is_identity
    assert transform.apply(image) is image
    assert not Transform(8, 9, 8).is_identity


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 311), (311, 97), (31, 40), (64, 65), (5, 200), (1, 1)])
def test_every_size_becomes_square(height: int, width: int) -> None:
    image = _random(height, width, 3)
    out = Transform(height, width, 64).apply(image)
    assert out.shape == (64, 64, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous


def test_shrinking_averages_areas() -> None:
    image = _random(32, 32, 3)
    means = image.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(Transform(32, 32, 8).apply(image) - means).max() <= 0.51


@pytest.mark.parametrize("side", [16, 40, 100, 300])
def test_nearest_keeps_ids(side: int) -> None:
    ids = np.array([3, 77, 200], dtype=np.uint8)[_random(side, side, high=3)]
    out = Transform(side, side, 64).apply(ids, cv2.INTER_NEAREST_EXACT)
    assert out.shape == (64, 64)
    assert set(np.unique(out)) <= {3, 77, 200}


@pytest.mark.parametrize("kind", [cv2.INTER_AREA, cv2.INTER_NEAREST_EXACT])
def test_an_image_and_its_map_stay_in_register(kind: int) -> None:
    disc = cv2.circle(np.zeros((160, 240), np.uint8), (97 + 40, 61), 37, 255, -1)
    small = Transform(160, 240, 32).apply(disc, kind)
    x, y = np.average(np.indices(small.shape)[::-1].reshape(2, -1), axis=1, weights=small.ravel())
    assert (x + 0.5, y + 0.5) == pytest.approx(((97 + 0.5) / 5, (61 + 0.5) / 5), abs=0.15)


def test_rgb_png_round_trip_is_exact() -> None:
    image = _random(13, 21, 3)
    assert np.array_equal(decode_rgb(encode_png(image)), image)


def test_png_of_16_bits_keeps_every_value() -> None:
    image = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    with Image.open(io.BytesIO(encode_png(image))) as picture:
        assert np.array_equal(np.asarray(picture), image)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64])
def test_bilevel_round_trip_is_exact_and_one_bit(width: int) -> None:
    mask = _random(5, width, high=2).astype(bool)
    data = encode_bilevel_png(mask)
    assert data[24:26] == b"\x01\x00"  # IHDR: bit depth 1, greyscale
    assert np.array_equal(decode_ids(data) > 0, mask)
    assert np.array_equal(decode_rgb(data)[..., 0] == 255, mask)


@pytest.mark.parametrize("count", [2, 3, 6, 16, 17, 150, 256])
def test_paletted_round_trip_keeps_ids_and_shows_colours(count: int) -> None:
    ids, colours = _random(9, 31, high=count), _random(count, 3)
    ids[0, 0] = count - 1
    data = encode_paletted_png(ids, colours)
    assert np.array_equal(decode_ids(data), ids)
    assert np.array_equal(decode_rgb(data), colours[ids])


def test_jpeg_is_close_upright_and_in_rgb_order() -> None:
    image = _smooth(48, 64)
    assert np.abs(decode_rgb(encode_jpeg(image)).astype(int) - image).max() <= 6


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (33, 17), (1, 1)])
def test_a_jpeg_is_decoded_as_pillow_does(subsampling: str, progressive: bool, size: tuple[int, int]) -> None:
    for quality in (20, 75, 100):
        options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
        data = _saved(Image.fromarray(_random(*size, 3)), "JPEG", **options)
        assert np.array_equal(decode_rgb(data), np.asarray(Image.open(io.BytesIO(data))))


def test_a_damaged_jpeg_is_what_pillow_makes_of_it() -> None:
    draws, whole = np.random.default_rng(0), _saved(Image.fromarray(_random(40, 56, 3)), "JPEG", quality=80)
    outcomes = set()
    for _ in range(300):
        data = bytearray(whole[: draws.integers(len(whole) // 2, len(whole) + 1)])
        for at in draws.integers(0, len(data), draws.integers(0, 3)):
            data[at] ^= 1 << draws.integers(8)
        try:
            expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        except Exception:  # Pillow raises many kinds for damaged data
            with pytest.raises(BadImage):
                decode_rgb(bytes(data))
            outcomes.add("refused")
            continue
        assert np.array_equal(decode_rgb(bytes(data)), expected)
        outcomes.add("decoded")
    assert outcomes == {"decoded", "refused"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    upright = _smooth(32, 48)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),  # stored a quarter turn to the left, to be turned right
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(undo[orientation](upright))
    decoded = decode_rgb(_rotated_jpeg(stored, orientation))
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 6


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]
    decoded = decode_rgb(_saved(Image.fromarray(rgba), "PNG"))
    assert decoded[0].tolist() == [[10, 20, 30], [255, 255, 255], [127, 127, 127]]


def test_a_transparent_palette_entry_is_white() -> None:
    picture = Image.frombytes("P", (2, 1), b"\x00\x01")
    picture.putpalette([200, 0, 0, 0, 100, 0])
    assert decode_rgb(_saved(picture, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [0, 100, 0]]


def test_grey_with_alpha_is_laid_on_white() -> None:
    picture = Image.merge("LA", [Image.new("L", (1, 1), 40), Image.new("L", (1, 1), 0)])
    assert decode_rgb(_saved(picture, "PNG")).tolist() == [[[255, 255, 255]]]


def test_cmyk_becomes_rgb() -> None:
    data = _saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red = decode_rgb(data)[8, 8]
    assert red[0] > 240
    assert red[1:].max() < 15


def test_grey_becomes_three_equal_channels() -> None:
    grey = _random(6, 5)
    assert np.array_equal(decode_rgb(encode_png(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_colour_of_16_bits_is_scaled() -> None:
    wide = np.repeat((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(decode_rgb(encode_png(wide))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled_not_clipped(form: str) -> None:
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    decoded = decode_rgb(_saved(Image.fromarray(wide), form))
    assert np.abs(decoded[..., 1].ravel().astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_bad(form: str) -> None:
    data = _saved(Image.fromarray(_random(64, 64, 3)), form)
    with pytest.raises(BadImage, match="unreadable"):
        decode_rgb(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty file"), (b"<html>", "unreadable"), (b"\0" * 99, "unreadable")]
)
def test_what_is_no_image_is_bad(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode_rgb(data)
    assert "\n" not in str(caught.value)


def _declared_png(side: int) -> bytes:
    """A PNG that declares side x side pixels and holds next to none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_001, 10_000, 20_000, 60_000])
def test_a_decompression_bomb_is_bad_before_it_is_unpacked(side: int) -> None:
    with pytest.raises(BadImage, match=r"more than 64000000 pixels|DecompressionBomb"):
        decode_rgb(_declared_png(side))


def test_the_pixel_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 64)
    assert decode_rgb(encode_png(_random(8, 8, 3))).shape == (8, 8, 3)
    with pytest.raises(BadImage, match="more than 64 pixels"):
        decode_rgb(encode_png(_random(8, 9, 3)))


def test_only_an_upright_rgb_jpeg_is_plain() -> None:
    colour = Image.fromarray(_random(16, 16, 3))
    assert is_plain_jpeg(_saved(colour, "JPEG"))
    assert is_plain_jpeg(_rotated_jpeg(_random(16, 16, 3), 1))
    assert not is_plain_jpeg(_rotated_jpeg(_random(16, 16, 3), 6))
    assert not is_plain_jpeg(_saved(colour, "PNG"))
    assert not is_plain_jpeg(_saved(colour.convert("L"), "JPEG"))
    assert not is_plain_jpeg(_saved(colour.convert("CMYK"), "JPEG"))
