"""How far apart the vectors of one set lie."""

import numpy as np
from scipy.spatial.distance import cdist

from benchmark.contracts.tables import Vectors, in_blocks
from benchmark.numbers.jackknife import Estimate, of_influence


def mean_distance(vectors: Vectors) -> Estimate:
    """Return the mean Euclidean distance of two different vectors of (N, D), N at least 2.

    A U-statistic of two arguments: a vector's influence is twice the mean distance to the others, less that of all.
    """
    sums = [sum(cdist(x, y).sum(axis=1) for (y,) in in_blocks(vectors)) for (x,) in in_blocks(vectors)]
    means = np.concatenate(sums) / (len(vectors) - 1)
    return of_influence(float(means.mean()), 2.0 * (means - means.mean()))
