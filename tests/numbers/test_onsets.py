"""The onset's distribution against scipy's Kaplan-Meier estimate, and its interval against Wilson's formula."""

import numpy as np
import pytest
from scipy import stats

from benchmark.numbers.onsets import onsets


@pytest.mark.parametrize("began", [[200, 300, 300], [100, 100, 400, 250], [500]])
def test_shares_are_kaplan_and_meiers(began: list[int]) -> None:
    total = 5
    found = onsets(began, total)
    data = stats.CensoredData(uncensored=began, right=[1000] * (total - len(began)))
    assert found.steps == tuple(sorted(set(began)))
    assert [s.count / s.total for s in found.begun] == pytest.approx(stats.ecdf(data).cdf.evaluate(found.steps))


def test_the_interval_is_wilsons() -> None:
    [found] = onsets([100, 100], 3).begun
    n, p, z = 3, 2 / 3, stats.norm.ppf(0.975)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (p + z**2 / (2 * n) - half) / (1 + z**2 / n), (p + z**2 / (2 * n) + half) / (1 + z**2 / n)
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("began", "total", "median"),
    [([100, 300, 200], 3, 200), ([100, 200], 4, 200), ([100], 3, None), ([], 2, None), ([100, 200], 2, 100)],
)
def test_the_median_lies_beyond_the_end_if_less_than_half_began(
    began: list[int], total: int, median: int | None
) -> None:
    assert onsets(began, total).median == median
