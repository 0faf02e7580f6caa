"""Canny edges (Canny 1986) of the image."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.conditions._masks import Masks


@dataclass(frozen=True)
class Canny(Masks):
    """Edges between two hysteresis thresholds on the gradient (0 to 255), as `cv2.Canny` defines them.

    Map: bool (H, W), True on an edge. The thresholds 100 and 200 are those of the ControlNet authors' code.
    """

    low: int = 100
    high: int = 200

    annotator: ClassVar[str | None] = "canny"

    @property
    def referee(self) -> str:
        """The same detector at the same thresholds."""
        return f"canny,low={self.low},high={self.high}"
