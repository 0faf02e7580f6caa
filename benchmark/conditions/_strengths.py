"""What conditions of strength share: eight-bit storage, brightness, SSIM and absolute error."""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.images import Transform, decode_ids, encode_png
from benchmark.conditions._pictures import grey_levels, refuse_bright
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm
from benchmark.numbers.structure import ms_ssim, scales, ssim

_ROW = ("images", "ssim", "absolute_error")


class Strengths(Condition):
    """How strong a mark is. Map: float32 (H, W) in [0, 1], stored in steps of 1/255; shown white on black."""

    headline: ClassVar[str] = "ssim"
    errors: ClassVar[frozenset[str]] = frozenset({"absolute_error"})

    @property
    def form(self) -> MapForm:
        """Strength."""
        return MapForm("float32", ("H", "W"), 0, 1, "strong is white, nothing black", ("strength",), "area")

    def turned(self, maps: Sequence[Map]) -> str | None:
        """Return what is wrong where the mean is bright: the ground is not black."""
        mean = float(np.mean([map_.array.mean() for map_ in maps]))
        return f"are {mean:.0%} bright: marks must be white on black" if mean > 0.5 else None

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the strengths of a grey picture, bright on black.

        Raises:
            BadImage: Colours, 16 bits, or more white than black.
        """
        levels = grey_levels(cell)
        refuse_bright(levels)
        return Map(levels.astype(np.float32) / 255)

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the map resized by area and cropped."""
        return Map(transform.apply(_bytes(map_), cv2.INTER_AREA).astype(np.float32) / 255)

    def encode(self, map_: Map) -> bytes:
        """Return an eight-bit grey PNG."""
        return encode_png(_bytes(map_))

    def decode(self, data: bytes) -> Map:
        """Return the strengths of a grey PNG."""
        return Map(decode_ids(data).astype(np.float32) / 255)

    def render(self, map_: Map, size: int) -> Images:
        """Return strength as brightness."""
        grey = _bytes(map_)
        scaled = cv2.resize(grey, (size, size), interpolation=cv2.INTER_LINEAR) if grey.shape[0] != size else grey
        return np.repeat(scaled[:, :, None], 3, axis=2)

    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return (images, SSIM, mean absolute error, MS-SSIM, its number of scales); the last two 0 below 44 pixels."""
        a, b = reference.array.astype(np.float64), predicted.array.astype(np.float64)
        count = scales(min(a.shape))
        return np.array([1.0, ssim(a, b), np.abs(a - b).mean(), ms_ssim(a, b, count) if count else 0.0, count])

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return means over images; MS-SSIM of fewer than its five scales is named after how many."""
        means = {name: totals[..., i] / totals[..., 0] for i, name in enumerate(_ROW) if i}
        count = round(float(totals[..., 4].max() / totals[..., 0].max()))
        if count:
            means["ms_ssim" if count == 5 else f"ms_ssim_{count}scales"] = totals[..., 3] / totals[..., 0]
        return means


def _bytes(map_: Map) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(255 * map_.array).astype(np.uint8)
    return levels
