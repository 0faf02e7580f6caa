"""Line art: what a draughtsman would draw, from faint to firm (ControlNet 1.1)."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.conditions._strengths import Strengths


@dataclass(frozen=True)
class Lineart(Strengths):
    """Strength of lines. Map: float32 (H, W) in [0, 1], stored in steps of 1/255; shown white on black."""

    annotator: ClassVar[str | None] = "lineart_standard"

    @property
    def referee(self) -> str:
        """The detector that needs no weights."""
        return "lineart_standard"
