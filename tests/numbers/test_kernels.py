"""Maximum mean discrepancies: blocks change nothing, and intervals cover."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics.pairwise import polynomial_kernel

from benchmark.contracts import tables
from benchmark.numbers import kernels
from benchmark.numbers.kernels import discrepancy, gaussian, polynomial


def draws(n: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, 8)) + shift
    return vectors.astype(np.float32)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draws(70, 0, 0.2), draws(45, 1)
    whole = discrepancy(x, y, polynomial)
    monkeypatch.setattr(tables, "BLOCK", 16)
    parts = discrepancy(x, y, polynomial)
    assert (parts.biased, parts.unbiased, parts.stderr) == pytest.approx((whole.biased, whole.unbiased, whole.stderr))


def test_the_kernel_of_kid_is_that_of_scikit_learn() -> None:
    x, y = draws(20, 0).astype(np.float64), draws(30, 1).astype(np.float64)
    np.testing.assert_allclose(polynomial(x, y), polynomial_kernel(x, y, degree=3, gamma=1 / 8, coef0=1), rtol=1e-10)


@pytest.mark.parametrize("kernel", [polynomial, gaussian(2.0)], ids=["polynomial", "gaussian"])
def test_a_set_has_no_biased_distance_to_itself_and_a_negative_unbiased_one(kernel: kernels.Kernel) -> None:
    x = draws(50, 0)
    found = discrepancy(x, x, kernel)
    assert found.biased == pytest.approx(0.0, abs=1e-12)
    assert found.unbiased < 0


@pytest.mark.parametrize("kernel", [polynomial, gaussian(2.0)], ids=["polynomial", "gaussian"])
def test_intervals_cover_the_distance_to_a_fixed_reference(kernel: kernels.Kernel) -> None:
    """300 sets of 60 vectors; the truth is the mean over many more, since the estimate is unbiased."""
    reference = draws(100, 0)
    truth = np.mean([discrepancy(draws(400, seed, 0.5), reference, kernel).unbiased for seed in range(1000, 1100)])
    found = [discrepancy(draws(60, seed, 0.5), reference, kernel) for seed in range(1, 301)]
    covered = np.mean([abs(one.unbiased - truth) <= 1.96 * one.stderr for one in found])
    assert 0.90 <= covered <= 0.985
