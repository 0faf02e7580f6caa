"""Observation tables: one row per image, one named block of numbers per encoder or condition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError

Vectors = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Observations of N images.

    Attributes:
        keys: N sample keys, sorted.
        columns: Name to array (N, ...): vectors of an encoder, or a condition's additive comparison rows.
    """

    keys: tuple[str, ...]
    columns: dict[str, NDArray[Any]]

    def __post_init__(self) -> None:
        """Refuse columns that cannot be trusted: wrong length, or not finite."""
        for name, column in self.columns.items():
            if len(column) != len(self.keys):
                raise UserError(f'column "{name}" has {len(column)} rows for {len(self.keys)} keys')
            if not np.isfinite(column).all():
                raise UserError(f'column "{name}" holds values that are not finite; the images or the model are broken')


def same_keys(a: Table, b: Table) -> None:
    """Refuse two tables that do not describe the same samples.

    Raises:
        UserError: Some key is in one table only.
    """
    missing, extra = sorted({*a.keys} - {*b.keys}), sorted({*b.keys} - {*a.keys})
    if missing or extra:
        raise UserError(f"tables describe different samples: only left {missing[:3]}, only right {extra[:3]}")


def sorted_table(keys: Sequence[str], columns: dict[str, NDArray[Any]]) -> Table:
    """Return a table with its rows in the order of the keys."""
    order = np.argsort(np.array(keys))
    return Table(tuple(keys[i] for i in order), {name: np.asarray(column)[order] for name, column in columns.items()})


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
