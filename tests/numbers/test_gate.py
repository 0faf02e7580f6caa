"""The gate's checks: how often they raise a false alarm, what they see, and their tests by hand."""

import numpy as np
import pytest

from benchmark.numbers.gate import check_failures, check_mean, check_onset, check_spread

ALARM = 0.02


def alarms(shift: float, scale: float = 1.0, reference_runs: int = 10) -> tuple[float, float]:
    """Return how often mean and spread moved over many gates of four new runs."""
    generator = np.random.default_rng(1)
    means, spreads = [], []
    for _ in range(1500):
        reference = generator.normal(0.4, 0.02, reference_runs).tolist()
        new = generator.normal(0.4 + shift * 0.02, 0.02 * scale, 4).tolist()
        means.append(check_mean("control", reference, new, ALARM).moved)
        spreads.append(check_spread("control", reference, new, ALARM).moved)
    return float(np.mean(means)), float(np.mean(spreads))


def test_false_alarms_are_as_rare_as_promised() -> None:
    mean, spread = alarms(0.0)
    assert mean == pytest.approx(ALARM, abs=0.011)
    assert spread == pytest.approx(ALARM, abs=0.011)


def test_large_changes_are_seen() -> None:
    assert alarms(6.0)[0] > 0.95
    assert alarms(0.0, scale=12.0)[1] > 0.9


def test_the_change_it_claims_to_see_is_seen_four_times_in_five() -> None:
    reference = np.random.default_rng(2).normal(0.4, 0.02, 30)
    reference = (0.4 + 0.02 * (reference - reference.mean()) / reference.std(ddof=1)).tolist()
    sees = float(check_mean("control", reference, [0.4, 0.42, 0.38, 0.4], ALARM).sees.split()[-1])
    generator = np.random.default_rng(3)
    draws = (generator.normal(0.4 + sees, 0.02, 4).tolist() for _ in range(1000))
    seen = [check_mean("control", reference, new, ALARM).moved for new in draws]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.12)


def test_a_number_that_is_none_has_moved() -> None:
    """As normalised control where what the autoencoder lets through is no more than the floor."""
    reference = [0.4, 0.41, 0.39, 0.42]
    for new in ([float("nan")] * 4, [0.4, 0.41, 0.39, float("nan")]):
        assert check_mean("control", reference, new, ALARM).moved
        assert check_spread("control", reference, new, ALARM).moved


def test_failures_by_hand() -> None:
    check = check_failures([False] * 10, [True, True, True, False], 0.02)
    assert check.moved  # C(4, 3) / C(14, 3) = 4 / 364 = 0.011
    assert check.sees == "3 of 4 failing"
    assert not check_failures([False] * 10, [True, True, False, False], 0.02).moved  # C(4, 2) / C(14, 2) = 0.066


def test_onsets_that_agree_and_that_do_not() -> None:
    reference: list[int | None] = [100, 100, 50, 100, 100, 150, 100, 100, 100, 50]
    assert not check_onset(reference, [100, 100, 100, 50], 150, 0.001).moved
    assert check_onset(reference, [None, None, None, None], 150, 0.001).moved
    assert not check_onset([100] * 10, [100] * 4, 150, 0.001).moved
