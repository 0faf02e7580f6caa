"""Soft edges: how strong the boundary is that passes at a pixel, as HED (Xie & Tu 2015) estimates it."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.conditions._strengths import Strengths


@dataclass(frozen=True)
class Softedge(Strengths):
    """Boundary strength. Map: float32 (H, W) in [0, 1], stored in steps of 1/255; shown white on black."""

    annotator: ClassVar[str | None] = None

    @property
    def referee(self) -> str:
        """The bundled referee of the scenes world."""
        return "scenes:softedge"
