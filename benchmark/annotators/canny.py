"""OpenCV's Canny detector on the grey image."""

from dataclasses import dataclass
from typing import ClassVar

import cv2

from benchmark.contracts.plugins import Annotator, Images, Map


@dataclass(frozen=True)
class Canny(Annotator):
    """`cv2.Canny` with two hysteresis thresholds (0 to 255), aperture 3, L1 gradient."""

    low: int = 100
    high: int = 200

    condition: ClassVar[str] = "canny"

    def annotate(self, images: Images) -> list[Map]:
        """Return one bool (H, W) edge map for each image."""
        greys = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images)
        return [Map(cv2.Canny(grey, self.low, self.high) > 0) for grey in greys]
