"""Slopes against scipy's regression of each seed, and of all runs together."""

import numpy as np
import pytest
from scipy import stats

from benchmark.numbers.slopes import slope

RATES = (0.0, 0.1, 0.5)


def runs(seeds: int) -> dict[float, dict[int, float]]:
    generator = np.random.default_rng(seeds)
    offsets = generator.normal(0, 0.3, seeds)  # of a seed, at all rates: it must not widen the interval
    return {r: {s: float(0.6 + offsets[s] - 0.4 * r + generator.normal(0, 0.01)) for s in range(seeds)} for r in RATES}


def test_it_is_scipys_line_of_each_seed_and_their_t_interval() -> None:
    made = runs(4)
    lines = [stats.linregress(RATES, [made[rate][seed] for rate in RATES]).slope for seed in range(4)]
    found = slope(made)
    assert found is not None
    assert sorted(found.values) == pytest.approx(sorted(lines))
    low, high = stats.ttest_1samp(lines, 0).confidence_interval(0.95)
    assert (found.iqm, found.low, found.high) == pytest.approx((np.mean(lines), low, high))


def test_the_mean_of_the_lines_is_the_line_through_all() -> None:
    made = runs(3)
    points = [(rate, value) for rate, row in made.items() for value in row.values()]
    found = slope(made)
    assert found is not None
    assert found.iqm == pytest.approx(stats.linregress(*zip(*points, strict=True)).slope)
    assert found.high is not None
    assert found.high - found.iqm < 0.15  # the seeds' own offsets of 0.3 are no error of a slope


def test_only_seeds_with_a_run_at_every_rate_count() -> None:
    found = slope({0.0: {0: 1.0, 1: 5.0}, 0.5: {0: 0.5}})
    assert found is not None
    assert (found.values, found.low) == ((-1.0,), None)
    assert slope({0.0: {0: 1.0}, 0.5: {1: 0.5}}) is None
