"""How often one side beats the other: by counting pairs, by scipy's U, and a bootstrap written out."""

import numpy as np
import pytest
from scipy import stats

from benchmark.numbers.improvement import improvement


def test_pairs_are_counted_and_ties_are_halves() -> None:
    assert improvement([3.0, 2.0], [1.0, 2.0, 2.5]).value == pytest.approx((3 + 1.5) / 6)


def test_it_is_the_u_of_mann_and_whitney() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(0.5, 1, 9), generator.normal(0, 1, 7)
    found, test = improvement(x.tolist(), y.tolist()), stats.mannwhitneyu(x, y, method="exact")
    assert found.value == pytest.approx(test.statistic / 63)
    assert found.p == pytest.approx(test.pvalue)


def test_both_sides_add_up_to_one() -> None:
    mine, other = [0.4, 0.5, 0.5], [0.45, 0.5, 0.3, 0.6]
    assert improvement(mine, other).value + improvement(other, mine).value == pytest.approx(1)


def test_the_interval_is_a_bootstrap_of_either_side() -> None:
    generator = np.random.default_rng(5)
    x, y = generator.normal(0.6, 1, 8), generator.normal(0, 1, 6)
    draws = [(generator.choice(x, 8)[:, None] > generator.choice(y, 6)).mean() for _ in range(4000)]
    found = improvement(x.tolist(), y.tolist())
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.03)
    assert improvement(x.tolist(), y.tolist()) == found  # its generator is its own


def test_three_runs_that_all_win_prove_little() -> None:
    found = improvement([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert found.p == pytest.approx(2 / 20)  # of 20 ways to deal six ranks, two are as far apart


def test_equal_runs_improve_nothing() -> None:
    found = improvement([0.5, 0.5], [0.5, 0.5, 0.5])
    assert (found.value, found.low, found.high, found.p) == (0.5, 0.5, 0.5, 1)
