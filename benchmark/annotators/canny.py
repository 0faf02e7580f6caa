"""OpenCV's Canny detector on the colour image, as the ControlNet authors use it."""

from dataclasses import dataclass

import cv2

from benchmark.contracts.plugins import Annotator, Images, Map


@dataclass(frozen=True)
class Canny(Annotator):
    """`cv2.Canny` with two hysteresis thresholds (0 to 255), aperture 3, L1 norm, the strongest channel's gradient."""

    low: int = 100
    high: int = 200

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "canny"

    def annotate(self, images: Images) -> list[Map]:
        """Return one bool (H, W) edge map for each image."""
        return [Map(cv2.Canny(image, self.low, self.high) > 0) for image in images]
