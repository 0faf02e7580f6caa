"""The Frechet distance between Gaussians fitted to two sets of vectors (Heusel et al. 2017, equation 6).

FD = |m_g - m_r|^2 + tr S_g + tr S_r - 2 tr (S_r S_g)^(1/2), covariances with n - 1. The root trace comes from one
symmetric eigendecomposition with the reference's factor, which is real by construction, unlike a matrix square root.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of n vectors, float64.

    Attributes:
        rows: (n, D) with rows^T rows equal to the covariance, kept where n is at most D: the cheaper form then.
    """

    mean: Array
    covariance: Array
    n: int
    rows: Array | None = None

    @classmethod
    def fit(cls, vectors: NDArray[np.float32] | Array) -> "Gaussian":
        """Return the Gaussian of (N, D) vectors, N at least 2."""
        x = np.asarray(vectors, dtype=np.float64)
        centre = x.mean(axis=0)
        covariance = (x - centre).T @ (x - centre) / (len(x) - 1)
        rows = (x - centre) / np.sqrt(len(x) - 1) if len(x) <= x.shape[1] else None
        return cls(centre, covariance, len(x), rows)

    @cached_property
    def factor(self) -> Array:
        """L with L L^T equal to the covariance."""
        if self.n > len(self.covariance):
            try:
                return np.asarray(np.linalg.cholesky(self.covariance))  # a tenth of the time of what follows
            except np.linalg.LinAlgError:  # a feature that is constant, or a sum of others
                pass
        values, vectors = np.linalg.eigh(self.covariance)
        factor: Array = vectors * np.sqrt(np.maximum(values, 0.0))
        return factor


def frechet_distance(generated: Gaussian, reference: Gaussian) -> float:
    """Return the Frechet distance; never negative."""
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(_middle(generated, reference.factor)), 0.0))
    shift = generated.mean - reference.mean
    traces = np.trace(generated.covariance) + np.trace(reference.covariance)
    return max(float(shift @ shift + traces - 2.0 * roots.sum()), 0.0)


def _middle(generated: Gaussian, factor: Array) -> Array:
    """Return L^T S L, or the smaller matrix B B^T, B = rows L, of the same eigenvalues but for zeros."""
    if generated.rows is None:
        return np.asarray(factor.T @ generated.covariance @ factor)
    projected = generated.rows @ factor
    return np.asarray(projected @ projected.T)


def _spectrum(generated: Gaussian, factor: Array) -> tuple[Array, Array]:
    """Return the eigenvalues (k,) of L^T S L that are not zero, and their vectors (D, k)."""
    values, basis = np.linalg.eigh(_middle(generated, factor))
    kept = values > 1e-10 * values.max()
    values, basis = values[kept], basis[:, kept]
    if generated.rows is not None:
        basis = (generated.rows @ factor).T @ basis / np.sqrt(values)
    return values, basis


def influence(vectors: NDArray[np.float32] | Array, generated: Gaussian, reference: Gaussian) -> Array:
    """Return each generated vector's influence (N,) on the distance to a fixed reference.

    psi_i = 2 y_i.(m_g - m_r) + y_i^T (I - T) y_i - tr((I - T) S_g), y_i = x_i - m_g, where T is the optimal transport
    matrix L (L^T S_g L)^(-1/2) L^T; sd(psi) / sqrt(n) is the distance's standard error.
    """
    factor = reference.factor
    values, basis = _spectrum(generated, factor)
    half = factor @ (basis * values**-0.25)
    rest = np.eye(len(factor)) - half @ half.T
    y = np.asarray(vectors, dtype=np.float64) - generated.mean
    quadratic = np.einsum("ij,jk,ik->i", y, rest, y, optimize=True)
    result: Array = 2.0 * y @ (generated.mean - reference.mean) + quadratic - float((rest * generated.covariance).sum())
    return result
