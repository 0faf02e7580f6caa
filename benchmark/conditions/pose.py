"""Human pose: 18 keypoints a figure in OpenPose's COCO order, drawn as coloured limbs."""

import io
import json
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmark.base.images import BadImage, Transform, decode_levels
from benchmark.contracts.plugins import Cell, Condition, Images, Map, MapForm
from benchmark.numbers.pose import SEEN, keypoint_hits, similarity
from benchmark.scenes.figure import KEYPOINTS, LIMBS

_FIELD = "keypoints"
_STORED_SIDE = 64
_FAR = 1e6  # sides of the image that a joint outside may lie away
_ROW = ("images", "joints", "joints_found", "figures_missed_or_added")


@dataclass(frozen=True)
class Pose(Condition):
    """Figures. Map: float32 (P, 18, 3): x and y in units of the image's side, and 2 where seen, 1 hidden, 0 outside.

    Only joints that are seen are drawn. The stored PNG is that drawing, with the keypoints in its text.
    """

    annotator: ClassVar[str | None] = None
    headline: ClassVar[str] = "pck"
    errors: ClassVar[frozenset[str]] = frozenset({"figures_wrong"})

    @property
    def referee(self) -> str:
        """The bundled referee of the scenes world."""
        return "scenes:pose"

    @property
    def form(self) -> MapForm:
        """Keypoints; those outside the image may lie anywhere."""
        polarity = "limbs in colours of their own and white joints on black"
        axes = ("P", len(KEYPOINTS), 3)
        return MapForm("float32", axes, -_FAR, _FAR, polarity, ("red", "green", "blue"), "points")

    def check(self, map_: Map, side: int) -> str | None:
        """Return in what a map differs from the form, as where a joint is seen outside the image."""
        fault = super().check(map_, side)
        if fault is not None:
            return fault
        visibility = map_.array[..., 2]
        if not np.isin(visibility, (0, 1, SEEN)).all():
            return "holds visibilities other than 0 outside, 1 hidden, 2 seen"
        seen = map_.array[visibility == SEEN][:, :2]
        inside = bool(((seen >= 0) & (seen <= 1)).all())
        return None if inside else "holds seen joints outside 0 to 1: x and y are in units of the image's side"

    def parse(self, cell: Cell, first_label: int = 0) -> Map:
        """Return the keypoints that a drawing stored by this condition holds in its text.

        Raises:
            BadImage: Any other picture: joints cannot be told for certain from a drawing alone.
        """
        if isinstance(cell, bytes):
            decode_levels(cell)
            try:
                return self.decode(cell)
            except (KeyError, TypeError, ValueError, RecursionError):  # no text, or one that is no such array
                pass
        raise BadImage("a drawing of figures without keypoints in it; annotate the images instead")

    def warp(self, map_: Map, transform: Transform) -> Map:
        """Return the keypoints where scaling the shorter side and cropping the centre take them."""
        sides = np.array([transform.width, transform.height], dtype=np.float64) / min(transform.width, transform.height)
        points = map_.array.copy()
        points[..., :2] = points[..., :2] * sides - (sides - 1) / 2
        outside = ((points[..., :2] < 0) | (points[..., :2] >= 1)).any(axis=-1)
        points[..., 2] = np.where(outside, 0, points[..., 2])
        return Map(points)

    def encode(self, map_: Map) -> bytes:
        """Return the drawing as PNG with the keypoints as JSON in a text chunk."""
        text = PngInfo()
        text.add_text(_FIELD, json.dumps(map_.array.astype(np.float64).round(6).tolist()))
        buffer = io.BytesIO()
        Image.fromarray(self.render(map_, _STORED_SIDE)).save(buffer, format="PNG", compress_level=1, pnginfo=text)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Map:
        """Return the keypoints of a stored drawing."""
        with Image.open(io.BytesIO(data)) as picture:
            rows = json.loads(picture.info[_FIELD])
        return Map(np.array(rows, dtype=np.float32).reshape(-1, len(KEYPOINTS), 3))

    def render(self, map_: Map, size: int) -> Images:
        """Return the joints that are seen and the limbs between them, each limb in its own colour, on black."""
        canvas = np.zeros((size, size, 3), np.uint8)
        thick = max(1, round(size / 64))
        for figure in map_.array:
            points = [(int(x * size * 16) - 8, int(y * size * 16) - 8) for x, y, _ in figure]
            for (a, b), colour in zip(LIMBS, _COLOURS, strict=True):
                if figure[a, 2] == SEEN and figure[b, 2] == SEEN:
                    cv2.line(canvas, points[a], points[b], colour, thick, cv2.LINE_AA, shift=4)
            for point, joint in zip(points, figure, strict=True):
                if joint[2] == SEEN:
                    cv2.circle(canvas, point, thick * 8, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
        return canvas

    def compare(self, reference: Map, predicted: Map) -> NDArray[np.float64]:
        """Return (images, joints seen, those found, figures too few or too many, summed OKS, figures seen)."""
        found, joints = keypoint_hits(reference.array, predicted.array)
        seen = int((reference.array[..., 2] == SEEN).any(axis=-1).sum())
        oks, figures = similarity(reference.array, predicted.array)
        return np.array([1.0, joints, found, abs(seen - len(predicted.array)), oks, figures])

    def scores(self, totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return PCK, the share of seen joints found within a tenth of the figure's height; figures wrong; mean OKS."""
        return {
            "pck": totals[..., 2] / np.maximum(totals[..., 1], 1.0),
            "figures_wrong": totals[..., 3] / totals[..., 0],
            "oks": totals[..., 4] / np.maximum(totals[..., 5], 1.0),
        }


def _rainbow(count: int) -> list[tuple[int, int, int]]:
    """Return colours evenly around the wheel: right limbs, left limbs and head stay apart."""
    hues = np.array([[[round(179 * i / count), 255, 255]] for i in range(count)], dtype=np.uint8)
    return [(int(r), int(g), int(b)) for [[r, g, b]] in cv2.cvtColor(hues, cv2.COLOR_HSV2RGB)]


_COLOURS = _rainbow(len(LIMBS))
