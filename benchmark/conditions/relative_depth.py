"""Relative depth: inverse depth of unknown scale and shift, as most depth networks give it; near is bright."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.images import Transform, decode_grey16, encode_png
from benchmark.conditions._inverse_depth import shown
from benchmark.conditions._pictures import any_grey_levels
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm
from benchmark.numbers.inverse_depth import aligned_rmse, stretched

_LEVELS = 65535
_ROW = ("images", "aligned_rmse", "rmse")


@dataclass(frozen=True)
class RelativeDepth(Condition):
    """Inverse depth over the greatest of its image. Map: float32 (H, W) in [0, 1], stored in steps of 1/65535.

    Metres belong to `depth`: of a map without a scale no score of metres means anything.
    """

    annotator: ClassVar[str | None] = None
    headline: ClassVar[str] = "aligned_rmse"
    errors: ClassVar[frozenset[str]] = frozenset({"aligned_rmse", "rmse"})

    @property
    def referee(self) -> str:
        """The bundled referee of the scenes world."""
        return "scenes:relative_depth"

    @property
    def form(self) -> MapForm:
        """Inverse depth."""
        polarity = "a large value is near; shown stretched, near white and far black"
        return MapForm("float32", ("H", "W"), 0, 1, polarity, ("inverse depth",), "nearest")

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the inverse depth of a grey picture of 8 or 16 bits, near is bright: millimetres belong to `depth`.

        Raises:
            BadImage: Colours.
        """
        levels = any_grey_levels(cell)
        return Map((levels / np.iinfo(levels.dtype).max).astype(np.float32))

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the map resized and cropped by nearest neighbour: no depth that nothing has."""
        return Map(transform.apply(map_.array, cv2.INTER_NEAREST_EXACT))

    def encode(self, map_: Map) -> bytes:
        """Return a 16-bit grey PNG."""
        return encode_png(np.rint(map_.array.astype(np.float64) * _LEVELS).astype(np.uint16))

    def decode(self, data: bytes) -> Map:
        """Return the inverse depth of a 16-bit PNG."""
        return Map((decode_grey16(data) / _LEVELS).astype(np.float32))

    def render(self, map_: Map, size: int) -> Images:
        """Return it stretched to the full range: the nearest point white, the farthest black."""
        return shown(map_.array, size)

    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return (images, RMSE after scale and shift by least squares, RMSE of both stretched to [0, 1])."""
        a, b = stretched(reference.array), stretched(predicted.array)
        return np.array([1.0, aligned_rmse(reference.array, predicted.array), np.sqrt(np.square(a - b).mean())])

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return means over images."""
        return {name: totals[..., i] / totals[..., 0] for i, name in enumerate(_ROW) if i}
