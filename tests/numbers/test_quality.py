"""Measures of one picture against closed forms and other implementations."""

import io
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmark.base.images import decode_rgb
from benchmark.numbers.quality import colourfulness, grey_of, perceptual_hash, read_header, sharpness


def pictures(photos: Path) -> list[NDArray[np.uint8]]:
    """The middle 160 pixels of every photograph."""
    images = (decode_rgb(path.read_bytes()) for path in sorted(photos.rglob("*.*")))
    return [np.ascontiguousarray(image[20:180, 20:180]) for image in images]


def encoded(image: NDArray[np.uint8], format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format_, **options)
    return buffer.getvalue()


def bits_apart(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def hash_of(image: NDArray[np.uint8]) -> int:
    return perceptual_hash(grey_of(image))


def test_the_hash_is_that_of_another_cosine_transform(photos: Path) -> None:
    for image in pictures(photos):
        grey = grey_of(image)
        small = grey.reshape(32, 5, 32, 5).mean(axis=(1, 3)).round()  # whole blocks: the area's mean
        low = scipy.fft.dctn(small, norm="ortho")[:8, :8].flatten()
        expected = sum(1 << (63 - i) for i, value in enumerate(low) if value > np.median(low))
        assert bits_apart(perceptual_hash(grey), expected) <= 2  # a half is rounded up by one, to even by the other


def test_the_hash_is_exactly_that_of_another_cosine_transform_where_nothing_is_resized(photos: Path) -> None:
    for image in pictures(photos):
        grey = np.ascontiguousarray(grey_of(image)[:32, :32])
        low = scipy.fft.dctn(grey.astype(float), norm="ortho")[:8, :8].round(6).flatten()
        expected = sum(1 << (63 - i) for i, value in enumerate(low) if value > np.median(low))
        assert perceptual_hash(grey) == expected


def test_the_hash_survives_jpeg_and_resizing_and_tells_pictures_apart(photos: Path) -> None:
    images = [image for image in pictures(photos) if grey_of(image).std() > 12]  # others show hardly anything
    assert len(images) > 15
    hashes = [hash_of(image) for image in images]
    for image, value in zip(images, hashes, strict=True):
        again = decode_rgb(encoded(image, "JPEG", quality=60))
        smaller = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.LANCZOS))
        assert bits_apart(hash_of(again), value) <= 4
        assert bits_apart(hash_of(smaller), value) <= 4
    apart = [bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 10


def test_pictures_without_detail_are_alike() -> None:
    values = {hash_of(np.full((64, 64, 3), level, np.uint8)) for level in (1, 90, 255)}
    assert len(values) == 1


def test_sharpness_is_the_variance_of_the_laplacian(photos: Path) -> None:
    kernel = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    for image in pictures(photos):
        grey = grey_of(image)
        expected = ndimage.convolve(grey.astype(float), np.array(kernel, float), mode="mirror").var()
        assert sharpness(grey) == pytest.approx(expected, rel=1e-9)
        assert sharpness(ndimage.gaussian_filter(grey, 3)) < 0.3 * expected + 1


def test_colour_is_the_difference_of_channels() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (50, 50, 1), np.uint8).repeat(3, axis=2)
    assert colourfulness(grey) == 0
    tinted = grey.copy()
    tinted[:10, :, 0] = 200
    tinted[:10, :, 1] = 50
    tinted[:10, :, 2] = 90
    assert colourfulness(tinted) == 150
    speck = grey.copy()
    speck[0, :20] = (255, 0, 0)  # 0.8 % of the pixels
    assert colourfulness(speck) == 0


def test_a_grey_photograph_stored_as_colour_jpeg_is_grey() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8).repeat(3, axis=2)
    assert colourfulness(decode_rgb(encoded(grey, "JPEG", quality=30))) <= 2


@pytest.mark.parametrize("quality", [1, 5, 10, 25, 30, 49, 50, 51, 75, 90, 95, 100])
def test_the_quality_of_a_jpeg_is_the_one_it_was_written_with(quality: int, photos: Path) -> None:
    header = read_header(encoded(pictures(photos)[0], "JPEG", quality=quality))
    assert header == ("RGB", 160, quality)


def test_every_quality_is_told_from_every_other(photos: Path) -> None:
    image = pictures(photos)[0][:16, :16]
    found = [read_header(encoded(image, "JPEG", quality=q)).jpeg_quality for q in range(5, 101)]
    assert found == list(range(5, 101))


def test_other_formats_have_no_jpeg_quality(photos: Path) -> None:
    image = pictures(photos)[0]
    assert read_header(encoded(image, "PNG")) == ("RGB", 160, None)
    assert read_header(encoded(image[:, :, 0], "PNG")).mode == "L"
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "JPEG", quality=80)
    assert read_header(cmyk.getvalue()).mode == "CMYK"
