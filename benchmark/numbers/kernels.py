"""Maximum mean discrepancy between two sets of vectors, over the full sample, with its standard error.

MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) (Gretton et al., JMLR 2012, equations 3 and 5). Kernels are
summed in blocks, so that neither random subsets nor memory for all pairs are needed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.contracts.tables import Vectors, in_blocks

Array = NDArray[np.float64]
Kernel = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Discrepancy:
    """An MMD^2: the biased estimate (never negative), the unbiased one, and the standard error of the latter.

    Attributes:
        influence: (N,) of each generated vector on the unbiased one, not centred: the error is its spread.
    """

    biased: float
    unbiased: float
    stderr: float
    influence: Array


def polynomial(x: Array, y: Array) -> Array:
    """Return (x.y / D + 1)^3 for every pair: the kernel of KID (Binkowski et al., arXiv 1801.01401)."""
    result: Array = (x @ y.T / x.shape[1] + 1.0) ** 3
    return result


def gaussian(sigma: float) -> Kernel:
    """Return the kernel exp(-|x - y|^2 / (2 sigma^2))."""

    def kernel(x: Array, y: Array) -> Array:
        squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2.0 * x @ y.T
        result: Array = np.exp(-np.maximum(squares, 0.0) / (2.0 * sigma**2))
        return result

    return kernel


def discrepancy(generated: Vectors, reference: Vectors, kernel: Kernel) -> Discrepancy:
    """Return the MMD^2 of generated (N, D) to reference (M, D) vectors, N and M at least 2.

    The error is that of the generated set to this fixed reference: sd(2 (a - b)) / sqrt(N), a and b the mean kernel of
    each generated vector with the others and with the reference.
    """
    x, y = generated, reference
    own, across, other = _row_sums(x, x, kernel), _row_sums(x, y, kernel), _row_sums(y, y, kernel)
    own_self, other_self = _self(x, kernel), _self(y, kernel)
    n, m = len(x), len(y)
    a, b, c = (own - own_self) / (n - 1), across / m, (other - other_self) / (m - 1)
    influence = 2.0 * (a - b)
    return Discrepancy(
        biased=float(own.mean() / n + other.mean() / m - 2.0 * b.mean()),
        unbiased=float(a.mean() + c.mean() - 2.0 * b.mean()),
        stderr=float(np.std(influence, ddof=1) / np.sqrt(n)),
        influence=influence,
    )


def _row_sums(x: Vectors, y: Vectors, kernel: Kernel) -> Array:
    """Return the sum of the kernel of each row of x with all rows of y."""
    return np.concatenate([sum(kernel(a, b).sum(axis=1) for (b,) in in_blocks(y)) for (a,) in in_blocks(x)])


def _self(x: Vectors, kernel: Kernel) -> Array:
    """Return the kernel of each row with itself."""
    return np.array([float(kernel(row[None], row[None])[0, 0]) for (block,) in in_blocks(x) for row in block])
