"""Depth: metres along the optical axis, shown as inverse depth like MiDaS (Ranftl et al. 2022), near is bright."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.images import BadImage, Transform, decode_grey16, encode_png
from benchmark.conditions._pictures import any_grey_levels
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm

_STEP = 0.001  # metres of one level in the stored PNG: up to 65.535 m
MAX_METRES = 65.535
_OFFSET = 16  # levels added to those of a picture of 8 bits before they are taken for inverse depth
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
        """Return the depth a picture shows.

        Grey of 16 bits is millimetres. Grey of 8 bits is taken for inverse depth of unknown scale, near is bright:
        white is set to 1 m and black to 16.9 m, so that every level is kept and shown again. Of the scores of such
        maps only `aligned_rmse` means something.

        Raises:
            BadImage: Colours, or pixels of 0 mm, which stand for no depth.
        """
        levels = any_grey_levels(cell)
        if levels.dtype == np.uint8:
            return Map(((255 + _OFFSET) / (levels.astype(np.float32) + _OFFSET)).astype(np.float32))
        if not levels.all():
            raise BadImage(f"{int((levels == 0).sum())} pixels of 0 mm, which is no depth")
        return Map((levels * _STEP).astype(np.float32))

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the map resized and cropped by nearest neighbour: no depth that nothing has."""
        return Map(transform.apply(map_.array, cv2.INTER_NEAREST_EXACT))

    def encode(self, map_: Map) -> bytes:
        """Return a 16-bit grey PNG of millimetres.

        Raises:
            ValueError: A depth is negative, not finite or beyond 65.535 m.
        """
        levels = np.rint(map_.array / _STEP)
        if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= 65535):
            raise ValueError("a depth map holds values outside 0 to 65.535 m")
        return encode_png(levels.astype(np.uint16))

    def decode(self, data: bytes) -> Map:
        """Return the metres of a 16-bit PNG."""
        return Map((decode_grey16(data) * _STEP).astype(np.float32))

    def render(self, map_: Map, size: int) -> Images:
        """Return inverse depth stretched to the full range: the nearest point white, the farthest black."""
        inverse = 1.0 / np.maximum(map_.array, _STEP)
        low, high = float(inverse.min()), float(inverse.max())
        grey = np.rint(255 * (inverse - low) / max(high - low, 1e-9)).astype(np.uint8)
        scaled = cv2.resize(grey, (size, size), interpolation=cv2.INTER_LINEAR) if grey.shape[0] != size else grey
        return np.repeat(scaled[:, :, None], 3, axis=2)

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
                _aligned_rmse(d, p),
                (ratio < 1.25).mean(),
            ]
        )

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return means over images."""
        return {name: totals[..., i] / totals[..., 0] for i, name in enumerate(_ROW) if i}


def _aligned_rmse(d: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    inverse = 1.0 / d
    span = inverse.max() - inverse.min()
    truth = ((inverse - inverse.min()) / max(span, 1e-9)).ravel()
    guess = (1.0 / p).ravel()
    spread = guess.var()
    slope = ((guess - guess.mean()) * (truth - truth.mean())).mean() / spread if spread > 1e-18 else 0.0
    return float(np.sqrt(((truth.mean() + slope * (guess - guess.mean()) - truth) ** 2).mean()))
