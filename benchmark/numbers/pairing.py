"""How far two scores of the same samples lie apart: what both owe to the samples cancels.

A score is its estimate and the influence of each sample on it, whatever the statistic: of a mean the values, of a ratio
of sums the jackknife's pseudo-values, of a Frechet distance the influence function. Those of a difference subtract.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Difference:
    """One score less another of the same n samples.

    Attributes:
        value: The difference.
        stderr: Its standard error over samples.
        low: Lower end of its 95 % interval, of Student's t with n - 1 degrees of freedom.
        high: Upper end of it.
        detectable: The least true difference, in size, that would be told from none with a probability of 80 %.
        p: Two-sided probability of a difference as large if there were none.
        n: Number of samples.
    """

    value: float
    stderr: float
    low: float
    high: float
    detectable: float
    p: float
    n: int


def paired(value: float, first: Array, second: Array) -> Difference:
    """Return a difference of two scores with its error.

    Args:
        value: First score less second.
        first: (N,) influences of the samples on the first score, N at least 2; they need not be centred.
        second: (N,) those on the second, of the same samples in the same order.
    """
    n = len(first)
    stderr = float(np.std(first - second, ddof=1) / np.sqrt(n))
    if stderr == 0:
        return Difference(value, 0.0, value, value, 0.0, float(value == 0), n)
    within = float(special.stdtrit(n - 1, 1 - LEVEL / 2)) * stderr
    p = 2 * float(special.stdtr(n - 1, -abs(value) / stderr))
    return Difference(value, stderr, value - within, value + within, _detectable(stderr, n), p, n)


def _detectable(stderr: float, n: int) -> float:
    """Return the difference that a two-sided t test finds with the stated power: where quantiles of both tails meet."""
    return float(special.stdtrit(n - 1, 1 - LEVEL / 2) + special.stdtrit(n - 1, POWER)) * stderr
