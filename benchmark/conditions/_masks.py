"""What conditions of white marks on black share: one-bit storage, and F1 with and without a pixel of tolerance."""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.images import BadImage, Transform, decode_ids, encode_bilevel_png
from benchmark.conditions._pictures import grey_levels, refuse_bright
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm

_ROW = ("images", "f1", "f1_1px", "share_marked")


class Masks(Condition):
    """Marks and ground. Map: bool (H, W), True on a mark; shown white on black."""

    headline: ClassVar[str] = "f1_1px"

    @property
    def form(self) -> MapForm:
        """True on a mark."""
        return MapForm("bool", ("H", "W"), 0, 1, "a mark is white, the ground black", ("mark",), "nearest")

    def turned(self, maps: Sequence[Map]) -> str | None:
        """Return what is wrong where more than half of all pixels are marks: the ground is not black."""
        share = float(np.mean([map_.array.mean() for map_ in maps]))
        return f"mark {share:.0%} of the pixels: marks must be white on black" if share > 0.5 else None

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the marks of a picture of pure white on pure black.

        Raises:
            BadImage: Levels in between, or more white than black.
        """
        levels = grey_levels(cell)
        between = int(((levels > 0) & (levels < 255)).sum())
        if between:
            raise BadImage(f"{between} pixels between black and white; --cond softedge keeps such levels")
        refuse_bright(levels)
        return Map(levels > 0)

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the map resized and cropped without mixing pixels."""
        pixels = transform.apply(map_.array.astype(np.uint8), cv2.INTER_NEAREST_EXACT)
        return Map(pixels.astype(bool))

    def encode(self, map_: Map) -> bytes:
        """Return a one-bit PNG."""
        return encode_bilevel_png(map_.array)

    def decode(self, data: bytes) -> Map:
        """Return the mask of a one-bit PNG."""
        return Map(decode_ids(data) > 0)

    def render(self, map_: Map, size: int) -> Images:
        """Return white marks on black."""
        grey = np.where(map_.array, np.uint8(255), np.uint8(0))
        scaled = (
            cv2.resize(grey, (size, size), interpolation=cv2.INTER_NEAREST_EXACT) if grey.shape[0] != size else grey
        )
        return np.repeat(scaled[:, :, None], 3, axis=2)

    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return (images, F1, F1 with one pixel of tolerance, share of pixels marked)."""
        a, b = reference.array, predicted.array
        return np.array([1.0, _f1(a, b, a, b), _f1(a, b, _grown(a), _grown(b)), b.mean()])

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return means over images of the strict and the tolerant F1."""
        return {name: totals[..., i] / totals[..., 0] for i, name in enumerate(_ROW) if name.startswith("f1")}


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)), dtype=bool)


def _f1(
    reference: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    near_reference: NDArray[np.bool_],
    near_predicted: NDArray[np.bool_],
) -> float:
    """Harmonic mean of precision and recall; 1 when both maps are empty, 0 when one is."""
    if not reference.any() and not predicted.any():
        return 1.0
    if not reference.any() or not predicted.any():
        return 0.0
    precision = float(near_reference[predicted].mean())
    recall = float(near_predicted[reference].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
