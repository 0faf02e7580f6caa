"""Line art without a network: how much darker a pixel is than what surrounds it, as in controlnet-aux."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.contracts.plugins import Annotator, Images, Map

_LEAST_SCALE = 16.0  # levels: a flat image must not become noise


@dataclass(frozen=True)
class LineartStandard(Annotator):
    """Dark lines and shadows; blind to edges between equal tones.

    Attributes:
        sigma: Deviation in pixels of what counts as surroundings.
        threshold: Levels below which a difference has no say in the contrast of the whole.
    """

    sigma: float = 6.0
    threshold: int = 8

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return "lineart"

    def annotate(self, images: Images) -> list[Map]:
        """Return one map for each image: float32 (H, W) in [0, 1], white lines on black."""
        return [Map(self._lines(image)) for image in images]

    def _lines(self, image: Images) -> NDArray[np.float32]:
        pixels = image.astype(np.float32)
        darker = (cv2.GaussianBlur(pixels, (0, 0), self.sigma) - pixels).min(axis=2).clip(0, 255)
        strong = darker[darker > self.threshold]
        scale = max(_LEAST_SCALE, float(np.median(strong))) if strong.size else _LEAST_SCALE
        levels = (darker / scale * 127).clip(0, 255).astype(np.uint8)
        return np.asarray(levels / np.float32(255), dtype=np.float32)
