"""Observation tables: one row per image, one named block of numbers per encoder or condition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError


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
