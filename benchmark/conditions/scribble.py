"""Scribbles: thick rounded strokes along the outlines of objects, made from soft edges."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.conditions._masks import Masks


@dataclass(frozen=True)
class Scribble(Masks):
    """Strokes. Map: bool (H, W), True on a stroke."""

    annotator: ClassVar[str | None] = None

    @property
    def referee(self) -> str:
        """The bundled referee of the scenes world."""
        return "scenes:scribble"
