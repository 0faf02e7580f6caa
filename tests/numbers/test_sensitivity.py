"""Regions of a dial whose ends are known by hand, against a search on a fine grid, and a bootstrap written out."""

import numpy as np
import pytest

from benchmark.numbers.sensitivity import region


def test_the_ends_lie_where_straight_lines_cross_the_goal() -> None:
    found = region({1e-4: [0.0], 1e-3: [1.0], 1e-2: [0.5]}, factors=True)
    assert found is not None
    assert found.start == pytest.approx(10**-3.1)  # 0.9 of the way up a decade
    assert found.end == pytest.approx(10**-2.8)  # a fifth of the way down to 0.5
    assert found.width == pytest.approx(10**0.3)
    assert (found.low, found.high) == pytest.approx((found.width, found.width))  # one run a value: nothing to resample
    assert not found.open_below
    assert not found.open_above


def test_a_dial_that_is_no_factor_is_measured_straight() -> None:
    found = region({0.0: [0.5], 0.5: [1.0], 0.9: [0.95]}, factors=False)
    assert found is not None
    assert (found.start, found.end, found.width) == pytest.approx((0.4, 0.9, 0.5))
    assert (found.open_below, found.open_above) == (False, True)


def test_a_second_hill_is_another_region() -> None:
    found = region({1.0: [1.0], 2.0: [0.1], 3.0: [0.95]}, factors=False)
    assert found is not None
    assert (found.start, found.open_below) == (1.0, True)
    assert found.end == pytest.approx(1 + 0.1 / 0.9)


def test_it_is_what_a_fine_grid_finds() -> None:
    generator = np.random.default_rng(3)
    values = np.logspace(-5, -1, 9)
    runs = {value: [float(np.exp(-((np.log10(value) + 3) ** 2)) + generator.normal(0, 0.01))] for value in values}
    found = region(runs, factors=True)
    assert found is not None
    fine = np.linspace(-5, -1, 400_001)
    curve = np.interp(fine, np.log10(values), [run[0] for run in runs.values()])
    near = 10 ** fine[curve >= 0.9 * max(run[0] for run in runs.values())]
    assert (found.start, found.end) == pytest.approx((near[0], near[-1]), rel=1e-4)


def test_the_interval_is_a_bootstrap_of_the_runs_at_each_value() -> None:
    runs = {0.0: [0.2, 0.3, 0.25], 1.0: [0.9, 1.0, 0.95], 2.0: [0.4, 0.5, 0.3]}
    found = region(runs, factors=False)
    assert found is not None
    generator = np.random.default_rng(5)
    draws = []
    for _ in range(4000):
        left, best, right = (np.mean(generator.choice(values, 3)) for values in runs.values())
        draws.append(0.1 * best / (best - left) + 0.1 * best / (best - right))
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), rel=0.03)


@pytest.mark.parametrize("runs", [{1.0: [0.5], 2.0: [0.4]}, {1.0: [0.0], 2.0: [-0.1], 3.0: [0.0]}])
def test_two_values_or_no_control_at_all_have_no_region(runs: dict[float, list[float]]) -> None:
    assert region(runs, factors=True) is None
