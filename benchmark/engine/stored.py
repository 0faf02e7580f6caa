"""Encoded images in any order, read when they are asked for: as a list, but for the memory."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

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


@dataclass
class Packed:
    """Byte strings one after another in a file without a name, which ends with the process: quick in any order.

    Attributes:
        file: Descriptor of the file; it is closed when nothing asks any more.
        ends: Where each ends, (N,).
    """

    file: int
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, items: Iterable[bytes], folder: Path) -> "Packed":
        """Return items, copied to a file in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        packed = cls(descriptor, np.zeros(0, np.int64))
        weakref.finalize(packed, os.close, descriptor)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            sizes = [file.write(item) for item in items]
        packed.ends = np.cumsum(sizes, dtype=np.int64)
        return packed

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ends)

    def __getitem__(self, at: int) -> bytes:
        """Return one of them."""
        start = int(self.ends[at - 1]) if at else 0
        return os.pread(self.file, int(self.ends[at]) - start, start)
