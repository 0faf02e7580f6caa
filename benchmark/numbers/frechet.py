"""The Frechet distance between Gaussians fitted to two sets of vectors (Heusel et al. 2017, equation 6).

FD = |m_g - m_r|^2 + tr S_g + tr S_r - 2 tr (S_r S_g)^(1/2), covariances with n - 1. The root trace comes from one
symmetric eigendecomposition with the reference's factor, which is real by construction, unlike a matrix square root.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmark.contracts.tables import Vectors, in_blocks

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
    def fit(cls, vectors: Vectors) -> "Gaussian":
        """Return the Gaussian of (N, D) vectors, N at least 2, in memory for D x D numbers whatever N is."""
        n, dimension = vectors.shape
        centre = sum((x.sum(axis=0) for (x,) in in_blocks(vectors)), np.zeros(dimension)) / n
        scatter = _scatter((x - centre for (x,) in in_blocks(vectors)), dimension)
        rows = (np.asarray(vectors[:], np.float64) - centre) / np.sqrt(n - 1) if n <= dimension else None
        return cls(centre, scatter / (n - 1), n, rows)

    def without(self, vectors: Vectors, parts: Sequence[NDArray[np.int64]]) -> Iterator["Gaussian"]:
        """Yield the Gaussian of all vectors but those at some places, for each part of the places.

        Args:
            vectors: (N, D), those that self was fitted to.
            parts: Places (P,) each, P at most N - 2.
        """
        for part in parts:
            kept, dimension = self.n - len(part), len(self.mean)
            if kept <= dimension:
                yield Gaussian.fit(np.delete(vectors[:], part, axis=0))
                continue
            away, gone = np.zeros(dimension), np.zeros((dimension, dimension))
            for x in _chosen(vectors, part):
                y = x - self.mean
                away += y.sum(axis=0)
                gone += y.T @ y
            scatter = (self.n - 1) * self.covariance - gone - np.outer(away, away) / kept
            yield Gaussian(self.mean - away / kept, scatter / (kept - 1), kept)

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


def _scatter(blocks: Iterator[Array], dimension: int) -> Array:
    """Return the sum over blocks (B, D) of their products (D, D)."""
    return sum((x.T @ x for x in blocks), np.zeros((dimension, dimension)))


def _chosen(vectors: Vectors, places: NDArray[np.int64]) -> Iterator[Array]:
    """Yield the vectors at some places, in double precision, block by block."""
    ordered, start = np.sort(places), 0
    for (x,) in in_blocks(vectors):
        first, last = np.searchsorted(ordered, (start, start + len(x)))
        yield x[ordered[first:last] - start]
        start += len(x)


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


def influence(vectors: Vectors, generated: Gaussian, reference: Gaussian) -> Array:
    """Return each generated vector's influence (N,) on the distance to a fixed reference.

    psi_i = 2 y_i.(m_g - m_r) + y_i^T (I - T) y_i - tr((I - T) S_g), y_i = x_i - m_g, where T is the optimal transport
    matrix L (L^T S_g L)^(-1/2) L^T; sd(psi) / sqrt(n) is the distance's standard error.
    """
    factor = reference.factor
    values, basis = _spectrum(generated, factor)
    half = factor @ (basis * values**-0.25)
    rest = np.eye(len(factor)) - half @ half.T
    shift, usual = generated.mean - reference.mean, float((rest * generated.covariance).sum())
    centred = (x - generated.mean for (x,) in in_blocks(vectors))
    return np.concatenate([2.0 * y @ shift + ((y @ rest) * y).sum(axis=1) - usual for y in centred])
