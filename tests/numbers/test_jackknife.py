"""Jackknife: exact where theory is exact, equal to brute force elsewhere, and free of bias of order 1/n."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.numbers import jackknife
from benchmark.numbers.jackknife import BLOCKS

Array = NDArray[np.float64]


def _draws(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).gamma(2.0, size=shape)


def _ratio(total: Array) -> Array:
    quotient: Array = total[..., 0] / total[..., 1]
    return quotient


def test_mean_has_the_textbook_error() -> None:
    estimate = jackknife.mean(np.array([1.0, 2.0, 3.0, 6.0]))
    assert estimate.value == estimate.corrected == 3.0
    assert estimate.stderr == pytest.approx(np.sqrt(14 / 3 / 4))
    assert estimate.n == 4


def test_additive_jackknife_of_a_mean_is_the_error_of_the_mean() -> None:
    values = _draws(37)
    rows = np.stack([values, np.ones(37)], axis=1)
    found, expected = jackknife.additive(rows, _ratio), jackknife.mean(values)
    assert (found.value, found.corrected, found.stderr) == pytest.approx(
        (expected.value, expected.value, expected.stderr)
    )
    assert found.n == 37


def test_additive_jackknife_of_a_ratio_is_brute_force() -> None:
    rows = _draws(25, 2)
    left_out = np.array([_ratio(np.delete(rows, i, axis=0).sum(axis=0)) for i in range(25)])
    whole = float(_ratio(rows.sum(axis=0)))
    found = jackknife.additive(rows, _ratio)
    assert found.value == pytest.approx(whole)
    assert found.corrected == pytest.approx(25 * whole - 24 * left_out.mean())
    assert found.stderr == pytest.approx(np.sqrt(24 * left_out.var()))
    assert found.influence == pytest.approx(24 * (left_out.mean() - left_out))


def test_additive_jackknife_of_a_ratio_predicts_its_spread() -> None:
    samples = [_draws(60, 2, seed=i) for i in range(500)]
    spread = np.std([_ratio(rows.sum(axis=0)) for rows in samples], ddof=1)
    errors = [jackknife.additive(rows, _ratio).stderr for rows in samples]
    assert np.mean(errors) == pytest.approx(spread, rel=0.08)


def test_order_of_rows_does_not_matter() -> None:
    rows = _draws(30, 2)
    a, b = jackknife.additive(rows, _ratio), jackknife.additive(rows[::-1], _ratio)
    assert (a.value, a.corrected, a.stderr) == pytest.approx((b.value, b.corrected, b.stderr))


def _blocks(
    x: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], Any], order: NDArray[np.int64]
) -> jackknife.Estimate:
    left_out = [float(statistic(np.delete(x, part))) for part in jackknife.parts(order)]
    return jackknife.blocks(len(x), float(statistic(x)), left_out)


def test_single_blocks_are_the_delete_one_jackknife() -> None:
    x = _draws(BLOCKS)
    found = _blocks(x, np.mean, np.arange(BLOCKS)[::-1])
    assert found.stderr == pytest.approx(jackknife.mean(x).stderr)
    assert found.n == BLOCKS


def test_single_blocks_turn_the_biased_variance_into_the_unbiased_one() -> None:
    x = _draws(BLOCKS)
    found = _blocks(x, np.var, np.arange(BLOCKS))
    assert found.value == pytest.approx(x.var())
    assert found.corrected == pytest.approx(x.var(ddof=1))


@pytest.mark.parametrize("n", [60, 67])
def test_blocks_remove_the_bias_of_order_one_over_n(n: int) -> None:
    order, samples = np.random.default_rng(1).permutation(n), np.random.default_rng(2).normal(size=(400, n))
    found = [_blocks(x, np.var, order) for x in samples]
    unbiased = samples.var(axis=1, ddof=1)
    assert np.mean([e.value for e in found] - unbiased) == pytest.approx(-1 / n, rel=0.05)
    assert abs(np.mean([e.corrected for e in found] - unbiased)) < 0.1 / n


@pytest.mark.parametrize("n", [BLOCKS, 47, 100])
def test_every_observation_is_left_out_once(n: int) -> None:
    parts = jackknife.parts(np.random.default_rng(0).permutation(n))
    assert len(parts) == BLOCKS
    assert sorted(np.concatenate(parts)) == list(range(n))
    estimate = jackknife.blocks(n, 1.0, [1.0] * BLOCKS)
    assert (estimate.value, estimate.corrected, estimate.stderr, estimate.n) == (1.0, 1.0, 0.0, n)
