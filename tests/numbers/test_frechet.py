"""The Frechet distance against closed forms and other implementations; its influence against finite differences."""

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from torchmetrics.image.fid import _compute_fid

from benchmark.contracts import tables
from benchmark.numbers.frechet import Gaussian, frechet_distance, influence

Array = NDArray[np.float64]


def _vectors(n: int, d: int, seed: int, shift: float = 0.0) -> Array:
    """Correlated vectors with a spectrum that falls by a power law."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.normal(size=(d, d)))[0] * np.arange(1, d + 1) ** -0.7
    vectors: Array = rng.normal(size=(n, d)) @ mixing.T + shift
    return vectors


def _gaussian(mean: object, covariance: object) -> Gaussian:
    return Gaussian(np.asarray(mean, np.float64), np.asarray(covariance, np.float64), 100)


def _weighted(x: Array, weights: Array) -> Gaussian:
    weights = weights / weights.sum()
    mean = weights @ x
    return Gaussian(mean, (x - mean).T @ ((x - mean) * weights[:, None]), len(x))


@pytest.mark.parametrize(("n", "d"), [(200, 3), (500, 16), (300, 64)])
def test_fit_is_the_mean_and_the_unbiased_covariance(n: int, d: int) -> None:
    x = _vectors(n, d, 0).astype(np.float32)
    fitted = Gaussian.fit(x)
    assert fitted.n == n
    assert np.allclose(fitted.mean, x.astype(np.float64).mean(axis=0))
    assert np.allclose(fitted.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10)


def test_large_means_cost_no_digits() -> None:
    x = _vectors(400, 8, 1)
    moved = Gaussian.fit(x + 1e6)
    assert np.allclose(moved.covariance, Gaussian.fit(x).covariance, atol=1e-8)


def test_the_factor_is_a_root_of_the_covariance() -> None:
    fitted = Gaussian.fit(_vectors(50, 12, 2))
    assert np.allclose(fitted.factor @ fitted.factor.T, fitted.covariance)


def test_equal_covariances_leave_the_distance_of_the_means() -> None:
    covariance = np.cov(_vectors(300, 10, 3), rowvar=False)
    mean, shift = np.arange(10.0), np.linspace(-1, 2, 10)
    distance = frechet_distance(_gaussian(mean + shift, covariance), _gaussian(mean, covariance))
    assert distance == pytest.approx(shift @ shift, rel=1e-9)


def test_diagonal_covariances_leave_the_distance_of_the_deviations() -> None:
    a, b = np.linspace(0.1, 4, 7), np.linspace(3, 0.2, 7)
    distance = frechet_distance(_gaussian(np.zeros(7), np.diag(a)), _gaussian(np.zeros(7), np.diag(b)))
    assert distance == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-12)


def test_in_one_dimension_it_is_the_textbook_formula() -> None:
    assert frechet_distance(_gaussian([3.0], [[4.0]]), _gaussian([1.0], [[0.25]])) == pytest.approx(2**2 + 1.5**2)


@pytest.mark.parametrize(("n", "m", "d"), [(500, 400, 4), (300, 900, 32), (1000, 1000, 64)])
def test_agrees_with_the_matrix_square_root_of_scipy(n: int, m: int, d: int) -> None:
    a, b = Gaussian.fit(_vectors(n, d, 4, 0.1)), Gaussian.fit(_vectors(m, d, 5))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("d", [4, 64])
def test_agrees_with_torchmetrics_on_the_same_features(d: int) -> None:
    x, y = (torch.from_numpy(_vectors(500, d, seed, shift)) for seed, shift in ((6, 0.2), (7, 0.0)))
    theirs = _compute_fid(x.mean(dim=0), torch.cov(x.T), y.mean(dim=0), torch.cov(y.T))
    ours = frechet_distance(Gaussian.fit(x.numpy()), Gaussian.fit(y.numpy()))
    assert ours == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.parametrize(("n", "m"), [(10, 500), (10, 12), (500, 10), (2, 500)])
def test_fewer_vectors_than_dimensions_work(n: int, m: int) -> None:
    x, y = _vectors(n, 32, 8, 0.3), _vectors(m, 32, 9)
    rows = [(v - v.mean(axis=0)) / np.sqrt(len(v) - 1) for v in (x, y)]
    nuclear = np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False).sum()  # tr (A'A B'B)^(1/2) = |A B'|_*
    shift = x.mean(axis=0) - y.mean(axis=0)
    expected = shift @ shift + sum(np.square(r).sum() for r in rows) - 2 * nuclear
    assert frechet_distance(Gaussian.fit(x), Gaussian.fit(y)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [10, 200])
def test_a_set_is_at_no_distance_from_itself(n: int) -> None:
    fitted = Gaussian.fit(_vectors(n, 32, 10))
    assert 0.0 <= frechet_distance(fitted, fitted) < 1e-6


def test_the_distance_is_symmetric_and_scales_with_the_square() -> None:
    x, y = _vectors(300, 8, 11, 0.5), _vectors(200, 8, 12)
    forth = frechet_distance(Gaussian.fit(x), Gaussian.fit(y))
    assert frechet_distance(Gaussian.fit(y), Gaussian.fit(x)) == pytest.approx(forth)
    assert frechet_distance(Gaussian.fit(3 * x), Gaussian.fit(3 * y)) == pytest.approx(9 * forth)


@pytest.mark.parametrize(("n", "d", "step"), [(60, 5, 1e-5), (400, 24, 1e-5), (12, 20, 1e-3)])
def test_influence_is_the_derivative_by_the_weight_of_a_vector(n: int, d: int, step: float) -> None:
    x, reference = _vectors(n, d, 13, 0.4), Gaussian.fit(_vectors(500, d, 14))
    uniform = np.full(n, 1 / n)

    def distance(i: int, weight: float) -> float:
        return frechet_distance(_weighted(x, (1 - weight) * uniform + weight * np.eye(n)[i]), reference)

    psi = influence(x, _weighted(x, uniform), reference)
    some = range(0, n, max(n // 10, 1))
    slopes = [(distance(i, step) - distance(i, -step)) / (2 * step) for i in some]
    assert psi[list(some)] == pytest.approx(slopes, rel=1e-4, abs=1e-4 * np.abs(psi).max())


@pytest.mark.parametrize("n", [2, 10, 32])
def test_the_cheaper_form_for_few_vectors_changes_nothing(n: int) -> None:
    x, reference = _vectors(n, 32, 20, 0.3), Gaussian.fit(_vectors(200, 32, 21))
    few = Gaussian.fit(x)
    assert few.rows is not None
    full = Gaussian(few.mean, few.covariance, n)
    assert frechet_distance(few, reference) == pytest.approx(frechet_distance(full, reference), rel=2e-6)
    psi, expected = influence(x, few, reference), influence(x, full, reference)
    assert psi == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("n", [20, 33, 34, 90])
def test_leaving_a_part_out_is_fitting_the_rest(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Around n = 32 the parts are left out of few and of many vectors."""
    x, reference = _vectors(n, 32, 22, 0.3), Gaussian.fit(_vectors(200, 32, 23))
    parts = np.array_split(np.random.default_rng(0).permutation(n), 7)
    expected = [Gaussian.fit(np.delete(x, part, axis=0)) for part in parts]
    monkeypatch.setattr(tables, "BLOCK", 16)
    found = list(Gaussian.fit(x).without(x, parts))
    assert [one.n for one in found] == [one.n for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.mean == pytest.approx(other.mean, abs=1e-12)
        assert np.allclose(one.covariance, other.covariance, atol=1e-12)
        assert frechet_distance(one, reference) == pytest.approx(frechet_distance(other, reference), rel=1e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, reference = _vectors(90, 12, 24, 0.3), Gaussian.fit(_vectors(200, 12, 25))
    whole = Gaussian.fit(x)
    psi = influence(x, whole, reference)
    monkeypatch.setattr(tables, "BLOCK", 16)
    pieces = Gaussian.fit(x)
    assert np.allclose(pieces.covariance, whole.covariance, rtol=1e-12, atol=1e-14)
    assert influence(x, pieces, reference) == pytest.approx(psi, rel=1e-9)


def test_influences_cancel() -> None:
    x = _vectors(100, 6, 15)
    psi = influence(x, _weighted(x, np.ones(100)), Gaussian.fit(_vectors(300, 6, 16, 0.2)))
    assert psi.mean() == pytest.approx(0.0, abs=1e-10)


def test_influence_predicts_the_spread_of_the_distance() -> None:
    reference = Gaussian.fit(_vectors(20_000, 4, 17))
    rng = np.random.default_rng(18)
    population = _vectors(50_000, 4, 19, 0.3)
    samples = [population[rng.integers(len(population), size=400)] for _ in range(300)]
    fitted = [Gaussian.fit(x) for x in samples]
    spread = np.std([frechet_distance(g, reference) for g in fitted], ddof=1)
    errors = [influence(x, g, reference).std(ddof=1) / np.sqrt(400) for x, g in zip(samples[:50], fitted, strict=False)]
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)
