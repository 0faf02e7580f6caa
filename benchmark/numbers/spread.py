"""How far apart the vectors of one set lie."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
_BLOCK = 1024


class Spread(NamedTuple):
    """A mean distance of pairs, and the influence (N,) of each vector on it."""

    value: float
    influence: Array


def mean_distance(vectors: NDArray[np.float32] | Array) -> Spread:
    """Return the mean Euclidean distance of two different vectors of (N, D), N at least 2.

    A U-statistic of two arguments: a vector's influence is twice the mean distance to the others, less that of all.
    """
    x = np.asarray(vectors, np.float64)
    sums = np.concatenate([cdist(x[i : i + _BLOCK], x).sum(axis=1) for i in range(0, len(x), _BLOCK)])
    means = sums / (len(x) - 1)
    return Spread(float(means.mean()), 2.0 * (means - means.mean()))
