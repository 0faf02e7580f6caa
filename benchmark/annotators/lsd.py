"""Straight lines of OpenCV's line segment detector (von Gioi et al. 2012): an algorithm without weights."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.contracts.plugins import Annotator, Images, Map
from benchmark.scenes.drawing import draw_segments
from benchmark.scenes.maps import ON


@dataclass(frozen=True)
class Lsd(Annotator):
    """Segments on the grey image, drawn one pixel wide; textures give many short ones.

    Attributes:
        length: Share of the image's shorter side that a segment must reach.
    """

    length: float = 0.1

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "lines"

    def annotate(self, images: Images) -> list[Map]:
        """Return one bool (H, W) map for each image: True on a line."""
        return [Map(draw_segments(self._segments(image), len(image)) >= 255 * ON) for image in images]

    def _segments(self, image: Images) -> NDArray[np.float32]:
        """Return segments (L, 4) in pixels from the image's corner; OpenCV counts from the centre of the first."""
        found, *_ = cv2.createLineSegmentDetector().detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        segments = np.zeros((0, 4), np.float32) if found is None else found.reshape(-1, 4)
        lengths = np.linalg.norm(segments[:, :2] - segments[:, 2:], axis=1)
        long_enough: NDArray[np.float32] = segments[lengths >= self.length * min(image.shape[:2])]
        return long_enough + np.float32(0.5)
