"""Standard errors of statistics of N images: one jackknife for additive rows, blocks for everything else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.contracts.records import Score

Array = NDArray[np.float64]
BLOCKS = 20


@dataclass(frozen=True)
class Estimate:
    """A statistic of n observations: as computed, with its bias of order 1/n removed, and its standard error.

    Attributes:
        influence: (G,) of each observation, or of each block of them: its standard deviation over sqrt(G) is `stderr`.
    """

    value: float
    corrected: float
    stderr: float
    n: int
    influence: Array

    def score(self, name: str, higher_is_better: bool, definition: dict[str, Any]) -> Score:
        """Return the statistic, as computed, as a score under a name."""
        return Score.of(
            name,
            value=self.value,
            estimate=self.value,
            stderr=self.stderr,
            n=self.n,
            higher_is_better=higher_is_better,
            definition=definition,
            influence=self.influence.tolist(),
        )


def of_influence(value: float, influence: Array) -> Estimate:
    """Return a statistic with the standard error that the influence (N,) of its observations gives it, N at least 2."""
    n = len(influence)
    return Estimate(value, value, float(influence.std(ddof=1) / np.sqrt(n)), n, influence)


def ratio(of: Estimate, to: Estimate) -> Estimate:
    """Return the ratio of two statistics of the same observations by the delta method; the second must not be 0.

    What an observation adds to one it largely adds to the other.
    """
    value = of.value / to.value
    return of_influence(value, of.influence / to.value - value * to.influence / to.value)


def mean(values: Array) -> Estimate:
    """Return the mean of (N,) values with sd / sqrt(N); N must be at least 2."""
    n = len(values)
    value = float(values.mean())
    return Estimate(value, value, float(values.std(ddof=1) / np.sqrt(n)), n, values - value)


def additive(rows: Array, statistic: Callable[[Array], Array]) -> Estimate:
    """Return the delete-one jackknife of a statistic of summed rows.

    Args:
        rows: (N, K), one row an image; N at least 2.
        statistic: Maps sums (..., K) to values (...).
    """
    n, total = len(rows), rows.sum(axis=0)
    return _combine(float(statistic(total)), statistic(total - rows), n)


def parts(order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return BLOCKS blocks of a seeded order of n observations; of fewer, each is a block of its own."""
    return np.array_split(order, min(BLOCKS, len(order)))


def blocks(n: int, value: float, left_out: Sequence[float]) -> Estimate:
    """Return the delete-a-block jackknife of a statistic of n observations.

    Args:
        n: Number of observations.
        value: The statistic of all.
        left_out: That of all but each of the `parts`.
    """
    return replace(_combine(value, np.array(left_out), len(left_out)), n=n)


def _combine(value: float, left_out: Array, groups: int) -> Estimate:
    centre = float(left_out.mean())
    variance = (groups - 1) / groups * float(np.square(left_out - centre).sum())
    pulls = (groups - 1) * (centre - left_out)
    return Estimate(value, groups * value - (groups - 1) * centre, float(np.sqrt(variance)), groups, pulls)
