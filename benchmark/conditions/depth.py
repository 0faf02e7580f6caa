"""Depth: metres along the optical axis, shown as inverse depth like MiDaS (Ranftl et al. 2022), near is bright."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.images import BadImage, Transform, decode_grey16, encode_png
from benchmark.conditions._inverse_depth import shown
from benchmark.conditions._pictures import any_grey_levels
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm
from benchmark.numbers.inverse_depth import aligned_rmse

_STEP = 0.001  # metres of one level in the stored PNG: up to 65.535 m
MAX_METRES = 65.535
_ROW = ("images", "absrel", "rmse", "aligned_rmse", "delta_1.25")


@dataclass(frozen=True)
class Depth(Condition):
    """Depth of every pixel. Map: float32 (H, W), metres, stored in millimetres."""

    annotator: ClassVar[str | None] = None
    headline: ClassVar[str] = "absrel"
    errors: ClassVar[frozenset[str]] = frozenset({"absrel", "rmse", "aligned_rmse"})

    @property
    def referee(self) -> str:
        """The bundled referee of the scenes world."""
        return "scenes:depth"

    @property
    def form(self) -> MapForm:
        """Metres."""
        polarity = "a large value is far; shown as inverse depth, near white and far black"
        return MapForm("float32", ("H", "W"), 0, MAX_METRES, polarity, ("inverse depth",), "nearest")

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the depth that a picture of 16 bits, in millimetres, shows.

        Raises:
            BadImage: Colours, grey of 8 bits, which has no scale, or pixels of 0 mm, which stand for no depth.
        """
        levels = any_grey_levels(cell)
        if levels.dtype == np.uint8:
            raise BadImage(
                "a picture of 8 bits, where 16 bits of millimetres are meant; --cond relative_depth has no scale"
            )
        if not levels.all():
            raise BadImage(f"{int((levels == 0).sum())} pixels of 0 mm, which is no depth")
        return Map((levels * _STEP).astype(np.float32))

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the map resized and cropped by nearest neighbour: no depth that nothing has."""
        return Map(transform.apply(map_.array, cv2.INTER_NEAREST_EXACT))

    def encode(self, map_: Map) -> bytes:
        """Return a 16-bit grey PNG of millimetres.

        Raises:
            ValueError: A depth is below a millimetre, which would be stored as none, not finite or beyond 65.535 m.
        """
        levels = np.rint(map_.array / _STEP)
        if not (np.isfinite(levels).all() and levels.min() >= 1 and levels.max() <= 65535):
            raise ValueError("a depth map holds values outside 0.001 to 65.535 m")
        return encode_png(levels.astype(np.uint16))

    def decode(self, data: bytes) -> Map:
        """Return the metres of a 16-bit PNG."""
        return Map((decode_grey16(data) * _STEP).astype(np.float32))

    def render(self, map_: Map, size: int) -> Images:
        """Return inverse depth stretched to the full range: the nearest point white, the farthest black."""
        return shown(1.0 / np.maximum(map_.array, _STEP), size)

    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return (images, AbsRel, RMSE in metres, RMSE of aligned inverse depth on [0, 1], share within 1.25).

        Aligned: the predicted inverse depth is scaled and shifted to the reference's by least squares.
        """
        d, p = reference.array.astype(np.float64), np.maximum(predicted.array.astype(np.float64), _STEP)
        ratio = np.maximum(d / p, p / d)
        return np.array(
            [
                1.0,
                (np.abs(p - d) / d).mean(),
                np.sqrt(((p - d) ** 2).mean()),
                aligned_rmse(1.0 / d, 1.0 / p),
                (ratio < 1.25).mean(),
            ]
        )

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return means over images."""
        return {name: totals[..., i] / totals[..., 0] for i, name in enumerate(_ROW) if i}
