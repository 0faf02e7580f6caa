"""Performance profiles by counting, by scipy's distribution function, and a bootstrap written out."""

import numpy as np
import pytest
from scipy import stats

from benchmark.numbers.profiles import over_tasks, profile

LEVELS = np.linspace(0, 1, 21)


def test_tasks_count_the_same_however_many_runs_they_have() -> None:
    found = profile([[0.2, 0.4, 0.6, 0.8], [0.5]], np.asarray([0.1, 0.4, 0.7]))
    assert found.shares == pytest.approx([1, (0.5 + 1) / 2, (0.25 + 0) / 2])  # a run at the level is not above it


def test_one_task_is_scipys_survival_function() -> None:
    values = np.random.default_rng(0).uniform(size=12)
    assert profile([values.tolist()], LEVELS).shares == pytest.approx(stats.ecdf(values).sf.evaluate(LEVELS))


def test_the_band_is_the_quantiles_of_binomial_counts_of_each_task() -> None:
    """Drawn with replacement, the runs of a task above a level are binomial; the mean of tasks is their convolution."""
    generator = np.random.default_rng(2)
    tasks = [generator.uniform(0, 0.8, 5), generator.uniform(0.3, 1, 4)]
    found = profile([task.tolist() for task in tasks], LEVELS)
    for level, low, high in zip(LEVELS, found.low, found.high, strict=True):
        first, second = (stats.binom.pmf(range(len(t) + 1), len(t), (t > level).mean()) for t in tasks)
        shares = (np.arange(6)[:, None] / 5 + np.arange(5) / 4) / 2
        chance = np.outer(first, second)
        for end, level_of_end in ((low, 0.025), (high, 0.975)):
            below, upto = chance[shares < end - 1e-9].sum(), chance[shares <= end + 1e-9].sum()
            assert below - 0.012 <= level_of_end <= upto + 0.012  # of 2,000 draws, three standard errors
    assert (np.diff(found.shares) <= 0).all()


def test_the_mean_over_tasks_is_scipys_trimmed_mean_and_a_bootstrap_within_each() -> None:
    generator = np.random.default_rng(4)
    tasks = [generator.normal(centre, 0.1, runs) for centre, runs in ((0.2, 12), (0.5, 8), (0.8, 8))]
    found = over_tasks([task.tolist() for task in tasks])
    assert found.iqm == pytest.approx(np.mean([stats.trim_mean(task, 0.25) for task in tasks]))
    drawn = [stats.trim_mean(generator.choice(task, (4000, len(task))), 0.25, axis=1) for task in tasks]
    expected = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.01)
    assert found.high is not None
    assert found.high - found.iqm < 0.15  # drawn from all tasks at once, the tasks' own distance would be an error


def test_a_task_with_more_runs_does_not_weigh_more() -> None:
    """A method that is better on both tasks stays ahead, though the other has most of its runs on the easy one."""
    better, worse = over_tasks([[0.60] * 3, [0.2] * 3]), over_tasks([[0.56] * 10, [0.15] * 3])
    assert better.iqm == pytest.approx(0.4)
    assert worse.iqm == pytest.approx((0.56 + 0.15) / 2)
