"""What is measured on a picture to judge whether it belongs in a dataset: likeness, sharpness, colour, JPEG loss."""

import io
import warnings
from functools import reduce
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_HASH_SIDE, _REDUCED_SIDE = 8, 32

# Table K.1 of ITU-T T.81: the luminance quantisation of quality 50 in libjpeg, row by row.
_LUMINANCE_50 = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
# libjpeg scales it by s percent, where s is 5000 / q below 50, else 200 - 2 q (jcparam.c).
_QUALITIES = np.arange(1, 101)
_SCALES = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_TABLES = np.clip((_SCALES[:, None] * _LUMINANCE_50 + 50) // 100, 1, 255)


class Header(NamedTuple):
    """What an encoded picture says of itself, its pixels undecoded.

    Attributes:
        mode: Pillow's name of the pixel layout, as in RGB, L, CMYK or I;16.
        shorter_side: In pixels.
        jpeg_quality: On libjpeg's scale from 1 to 100, or None where it is no JPEG.
    """

    mode: str
    shorter_side: int
    jpeg_quality: int | None


def read_header(data: bytes) -> Header:
    """Return the header of an encoded picture that is known to decode."""
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore", UserWarning)  # of EXIF data that is damaged: the picture is not
        tables = getattr(image, "quantization", None)
        return Header(image.mode, min(image.size), jpeg_quality(tables[0]) if tables else None)


def jpeg_quality(luminance: list[int]) -> int:
    """Return libjpeg's quality, 1 to 100, whose luminance table comes nearest to one of 64 steps, row by row."""
    return int(_QUALITIES[np.abs(_TABLES - np.array(luminance)).sum(axis=1).argmin()])


def grey_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luminance, uint8 (H, W), of uint8 (H, W, 3) RGB."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def perceptual_hash(grey: NDArray[np.uint8]) -> int:
    """Return 64 bits in which pictures that look alike differ little, of luminance uint8 (H, W).

    The 8 x 8 lowest frequencies of the cosine transform of the picture at 32 x 32 pixels, each above their median or
    not (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). Pictures without any
    detail are all alike.
    """
    small = cv2.resize(grey, (_REDUCED_SIDE, _REDUCED_SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].round(6)  # so that rounding errors of a flat picture are no detail
    bits = (low > np.median(low)).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian of luminance uint8 (H, W): low where nothing is in focus."""
    values = cv2.Laplacian(grey, cv2.CV_16S)  # whole numbers, whose sums are exact
    mean = cv2.sumElems(values)[0] / values.size
    return float(cv2.norm(values, cv2.NORM_L2SQR) / values.size - mean * mean)


def colourfulness(image: NDArray[np.uint8]) -> float:
    """Return by how many of 255 levels the channels of uint8 (H, W, 3) differ, at all but the 1 % strongest pixels."""
    channels = cv2.split(image)
    spread = cv2.subtract(reduce(cv2.max, channels), reduce(cv2.min, channels))
    up_to = cv2.calcHist([spread], [0], None, [256], [0, 256]).ravel().cumsum()
    place = 0.99 * (spread.size - 1)  # of the percentile between two pixels in their order, as NumPy has it
    below, above = np.searchsorted(up_to, [int(place), int(place) + 1], side="right")
    return float(below + (above - below) * (place - int(place)))
