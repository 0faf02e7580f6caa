"""Maps that a column of the source already holds, used as they are: the build copies them, nothing is annotated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Annotator, Cell, Condition, Images, Map


@dataclass(frozen=True)
class Column(Annotator):
    """A column of the source, as in ``column:control_seg``.

    Attributes:
        column: Name of the column, or the extension of the member of a tar.
        first_label: Where the column holds label numbers, the number of the first class; lower ones, and 255, mean
            unlabelled. ADE20K's own label maps begin with 1.
    """

    column: str
    first_label: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def copy(self, cells: Mapping[str, Cell], condition: Condition) -> Map:
        """Return the map that the column's cell shows, of whatever condition it is taken for."""
        return condition.parse(cells[self.column], self.first_label)

    @property
    def condition(self) -> str:
        """No condition of its own."""
        self._refuse()

    def annotate(self, images: Images) -> list[Map]:
        """Refuse: a column says nothing about other images."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(
            f"column:{self.column} copies maps from a source and reads no image; it is for --annotator of build alone"
        )
