"""Surface normals in camera space: x right, y up, z towards the viewer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.images import BadImage, Transform, decode_levels, decode_rgb, encode_png
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm

_LENGTH_TOLERANCE = 0.02  # a step of 1/127.5 in three channels, and room
_LENGTH_STEP = 3**0.5 / 255  # what rounding three channels to 8 bits does to the length at most
_ROW = ("images", "mean_degrees", "within_11.25_degrees", "within_30_degrees")


@dataclass(frozen=True)
class Normal(Condition):
    """Normals. Map: float32 (H, W, 3), of length 1 to a step of 1/127.5: stored and shown as RGB = 127.5 (n + 1)."""

    annotator: ClassVar[str | None] = None
    headline: ClassVar[str] = "mean_degrees"
    errors: ClassVar[frozenset[str]] = frozenset({"mean_degrees"})

    @property
    def referee(self) -> str:
        """The bundled referee of the scenes world."""
        return "scenes:normal"

    @property
    def form(self) -> MapForm:
        """Unit vectors."""
        polarity = "bright red faces right, bright green up, bright blue the viewer"
        return MapForm("float32", ("H", "W", 3), -1, 1, polarity, ("x right", "y up", "z to the viewer"), "nearest")

    def check(self, map_: Map, side: int) -> str | None:
        """Return in what a map differs from the form, as where a normal is not of length 1."""
        fault = super().check(map_, side)
        if fault is None and np.abs(np.linalg.norm(map_.array, axis=-1) - 1).max() > _LENGTH_TOLERANCE:
            return "holds normals that are not of length 1"
        return fault

    def turned(self, maps: Sequence[Map]) -> str | None:
        """Return what is wrong where surfaces do not face the viewer, whom they could not be seen by."""
        facing = float(np.mean([map_.array[..., 2].mean() for map_ in maps]))
        reason = "face away from the viewer: channels must be x right, y up, z towards the viewer, as red, green, blue"
        return reason if facing <= 0 else None

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the normals of a picture in the colours of this condition.

        Raises:
            BadImage: No picture in RGB, or colours that are no directions of length 1.
        """
        levels = decode_levels(cell) if isinstance(cell, bytes) else cell
        if levels.ndim != 3:
            raise BadImage("grey levels or labels, where a picture of normals in RGB is meant")
        normals = levels.astype(np.float32) / 127.5 - 1.0
        wrong = int((np.abs(np.linalg.norm(normals, axis=-1) - 1) > _LENGTH_STEP).sum())
        if wrong:
            raise BadImage(f"{wrong} pixels whose colour is no direction: the three numbers have not length 1")
        return Map(normals)

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the map resized and cropped by nearest neighbour: no direction that nothing has."""
        return Map(transform.apply(map_.array, cv2.INTER_NEAREST_EXACT))

    def encode(self, map_: Map) -> bytes:
        """Return an RGB PNG."""
        return encode_png(_colours(map_))

    def decode(self, data: bytes) -> Map:
        """Return the normals of an RGB PNG."""
        return Map(decode_rgb(data).astype(np.float32) / 127.5 - 1.0)

    def render(self, map_: Map, size: int) -> Images:
        """Return the stored colours."""
        colours = _colours(map_)
        return cv2.resize(colours, (size, size), interpolation=cv2.INTER_LINEAR) if len(colours) != size else colours

    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return (images, mean angle in degrees, share of pixels within 11.25 and within 30 degrees)."""
        a, b = (map_.array.astype(np.float64) for map_ in (reference, predicted))
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosine = (a * b).sum(axis=-1) / np.maximum(lengths, 1e-9)
        degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        return np.array([1.0, degrees.mean(), (degrees < 11.25).mean(), (degrees < 30).mean()])

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return means over images."""
        return {name: totals[..., i] / totals[..., 0] for i, name in enumerate(_ROW) if i}


def _colours(map_: Map) -> Images:
    return np.rint(127.5 * (map_.array + 1.0)).astype(np.uint8)
