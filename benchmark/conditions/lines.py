"""Straight lines, as M-LSD (Gu et al. 2022) finds them: edges of boxes, rooms and furniture."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.conditions._masks import Masks


@dataclass(frozen=True)
class Lines(Masks):
    """Straight edges drawn one pixel wide. Map: bool (H, W), True on a line."""

    annotator: ClassVar[str | None] = None

    @property
    def referee(self) -> str:
        """The bundled referee of the scenes world."""
        return "scenes:lines"
