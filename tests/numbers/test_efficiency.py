"""Images needed, on curves whose answer is known, and its interval against a bootstrap written out."""

import numpy as np
import pytest

from benchmark.numbers.efficiency import needed


def test_a_straight_line_in_the_logarithm_by_hand() -> None:
    found = needed({100: [0.2], 1000: [0.6], 10000: [1.0]})
    assert found is not None
    assert found.images == pytest.approx(10 ** (2 + 2 * (0.9 - 0.2) / 0.8))  # 0.9 lies 7/8 of the way up two decades
    assert (found.low, found.high) == pytest.approx((found.images, found.images))  # one run a size: nothing to resample
    assert found.rising
    assert not found.at_most


def test_a_flat_curve_needs_at_most_the_smallest() -> None:
    found = needed({100: [0.5, 0.5], 1000: [0.52, 0.52], 10000: [0.51, 0.51]})
    assert found is not None
    assert (found.images, found.at_most, found.rising) == (100.0, True, False)


def test_share_is_of_the_best_not_of_the_largest() -> None:
    found = needed({100: [0.1], 1000: [1.0], 10000: [0.5]})
    assert found is not None
    assert 100 < found.images < 1000


def test_the_interval_is_a_bootstrap_of_the_runs_within_each_size() -> None:
    runs = {100: [0.2, 0.3, 0.25], 1000: [0.5, 0.6, 0.55], 10000: [0.62, 0.64, 0.63]}
    found = needed(runs)
    assert found is not None
    generator = np.random.default_rng(5)
    draws = []
    for _ in range(2000):
        low, middle, high = (np.mean(generator.choice(values, 3)) for values in runs.values())
        goal = 0.9 * max(middle, high)
        part = (goal - low) / (middle - low) if middle >= goal else 1 + (goal - middle) / (high - middle)
        draws.append(10 ** (2 + part))
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), rel=0.05)


@pytest.mark.parametrize("runs", [{100: [0.5]}, {100: [0.0], 1000: [-0.1]}])
def test_one_size_or_no_control_at_all_has_no_answer(runs: dict[int, list[float]]) -> None:
    assert needed(runs) is None
