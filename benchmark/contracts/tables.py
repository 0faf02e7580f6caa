"""Observation tables: one row per image, one named block of numbers per encoder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError

BLOCK = 1024  # vectors that are worked on at once


class Vectors(Protocol):
    """Vectors (N, D), read in slices: an array, or a file that holds more than memory does."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return the vectors of some rows."""


def in_blocks(*sets: Vectors) -> Iterator[list[NDArray[np.float64]]]:
    """Yield the same rows of sets of vectors, in double precision, block by block."""
    for start in range(0, len(sets[0]), BLOCK):
        yield [np.asarray(vectors[start : start + BLOCK], np.float64) for vectors in sets]


@dataclass(frozen=True)
class Table:
    """Observations of N images.

    Attributes:
        keys: N sample keys, sorted.
        columns: Name to vectors (N, D).
    """

    keys: tuple[str, ...]
    columns: Mapping[str, Vectors]

    def __post_init__(self) -> None:
        """Refuse what cannot be trusted: keys out of order, columns of another length, or not finite."""
        if list(self.keys) != sorted(set(self.keys)):
            raise UserError("the keys of a table have to be sorted and each there once: rows of tables are compared")
        for name, column in self.columns.items():
            if len(column) != len(self.keys):
                raise UserError(f'column "{name}" has {len(column)} rows for {len(self.keys)} keys')
            if not all(np.isfinite(block).all() for (block,) in in_blocks(column)):
                raise UserError(f'column "{name}" holds values that are not finite; the images or the model are broken')


def same_keys(a: Table, b: Table) -> None:
    """Refuse two tables that do not describe the same samples.

    Raises:
        UserError: Some key is in one table only.
    """
    missing, extra = sorted({*a.keys} - {*b.keys}), sorted({*b.keys} - {*a.keys})
    if missing or extra:
        raise UserError(f"tables describe different samples: only left {missing[:3]}, only right {extra[:3]}")


def space_of(column: str) -> str:
    """Return the encoder, as on the command line, that a metric needs for a column."""
    return column.removesuffix("_text").removesuffix("_nearest")


def label(space: str) -> str:
    """Return a space as it is named in scores and records: of a folder or hub id, the last part alone.

    Where weights lie belongs to one machine; their hash is kept in every record.
    """
    return portable(space, space)


def portable(text: str, space: str) -> str:
    """Return a text with the folders or hub ids of a space, as in ``clip:PLACE``, cut to their last parts."""
    named, *fields = space.split(",")
    for place in filter(None, (named.partition(":")[2], *(field.partition("=")[2] for field in fields))):
        text = text.replace(place, place.rstrip("/").rpartition("/")[2])
    return text
