"""Several runs together: the t interval by hand and by scipy, and where control begins to stay."""

import numpy as np
import pytest
from scipy import stats

from benchmark.numbers.seeds import onset, share, spread


def test_three_runs_by_hand() -> None:
    together = spread([0.5, 0.7, 0.6])
    assert together.values == (0.7, 0.6, 0.5)
    assert together.worst == 0.5
    assert together.iqm == pytest.approx(0.6)
    assert together.high == pytest.approx(0.6 + 4.302653 * 0.1 / np.sqrt(3))  # t with 2 degrees of freedom


def test_the_interval_of_few_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=4).tolist()
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    together = spread(values)
    assert (together.low, together.high) == pytest.approx((low, high))


def test_the_interval_of_eight_is_scipys_for_a_trimmed_mean() -> None:
    values = np.random.default_rng(0).normal(size=8)
    together = spread(values.tolist())
    assert together.iqm == pytest.approx(stats.trim_mean(values, 0.25))
    expected = stats.mstats.trimmed_mean_ci(values, limits=(0.25, 0.25), alpha=0.05)
    assert (together.low, together.high) == pytest.approx(tuple(expected))


def test_ten_runs_lose_two_at_either_end_by_hand() -> None:
    values = np.random.default_rng(0).normal(size=10)
    ordered = np.sort(values)
    winsorised = np.clip(values, ordered[2], ordered[7])
    half = stats.t.ppf(0.975, 5) * winsorised.std(ddof=1) / (0.6 * np.sqrt(10))  # Wilcox, 2012, section 4.3, h = 6
    together = spread(values.tolist())
    assert together.iqm == pytest.approx(ordered[2:8].mean())
    assert (together.low, together.high) == pytest.approx((together.iqm - half, together.iqm + half))
    assert together.worst == ordered[0]


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_the_interval_covers(runs: int) -> None:
    generator = np.random.default_rng(runs)
    held = [
        s.low <= 0 <= s.high
        for s in (spread(generator.normal(size=runs).tolist()) for _ in range(600))
        if s.low and s.high
    ]
    assert 0.92 <= np.mean(held) <= 0.98


def test_the_interval_of_a_share_is_wilsons_by_scipy() -> None:
    for total in (1, 2, 9, 29, 400):
        for count in {0, 1, total // 3, total - 1, total}:
            found, expected = share(count, total), stats.binomtest(count, total).proportion_ci(method="wilson")
            assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_run_has_no_interval() -> None:
    together = spread([0.4])
    assert (together.iqm, together.low, together.high, together.worst) == (0.4, None, None, 0.4)


@pytest.mark.parametrize(
    ("values", "began"),
    [
        ([0.0, 0.1, 0.3, 0.4], 200),
        ([0.0, 0.3, 0.1, 0.4], 300),
        ([0.0, 0.1, 0.2, 0.24], None),
        ([0.3, 0.3, 0.3, 0.3], 0),
        ([0.0, 0.3, 0.4, 0.1], None),
    ],
)
def test_onset_is_where_control_begins_to_stay(values: list[float], began: int | None) -> None:
    curve: list[dict[str, object]] = [{"step": 50, "loss": 1.0}]
    curve += [{"step": 100 * i, "probe": {"miou.normalised": value}} for i, value in enumerate(values)]
    assert onset(curve, "miou") == began


def test_a_run_without_a_probe_has_no_onset() -> None:
    assert onset([{"step": 10, "loss": 1.0}], "miou") is None
