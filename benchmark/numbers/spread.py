"""How far apart the vectors of one set lie."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from benchmark.contracts.tables import Vectors, in_blocks

Array = NDArray[np.float64]


class Spread(NamedTuple):
    """A mean distance of pairs, and the influence (N,) of each vector on it."""

    value: float
    influence: Array


def mean_distance(vectors: Vectors) -> Spread:
    """Return the mean Euclidean distance of two different vectors of (N, D), N at least 2.

    A U-statistic of two arguments: a vector's influence is twice the mean distance to the others, less that of all.
    """
    sums = [sum(cdist(x, y).sum(axis=1) for (y,) in in_blocks(vectors)) for (x,) in in_blocks(vectors)]
    means = np.concatenate(sums) / (len(vectors) - 1)
    return Spread(float(means.mean()), 2.0 * (means - means.mean()))
