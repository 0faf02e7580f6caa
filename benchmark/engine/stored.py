"""Encoded images of a built split in any order, read when they are asked for: as a list, but for the memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

from benchmark.engine.shards import Place, read_images_of_group

_group = lru_cache(maxsize=6)(read_images_of_group)  # images and maps, each where it is read and half a split away


@dataclass(frozen=True)
class Stored(Sequence[bytes]):
    """The encoded images that a column holds at some places; row groups of neighbours are read once.

    Attributes:
        places: Where they lie.
        column: Its name.
    """

    places: tuple[Place, ...]
    column: str

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.places)

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> "Stored": ...

    def __getitem__(self, at: int | slice) -> "bytes | Stored":
        """Return one, or those of a slice.

        Raises:
            UserError: A file is missing or damaged.
        """
        if isinstance(at, slice):
            return Stored(self.places[at], self.column)
        place = self.places[at]
        return _group(place.file, place.group, self.column)[place.row]
