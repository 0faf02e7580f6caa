"""Runs of several tasks together: performance profiles and interquartile means (after Agarwal et al., 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.numbers.seeds import Spread, iqm, resampled

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """Shares (L,) of runs above each of L levels, with the ends of the pointwise 95 % band over runs."""

    levels: Array
    shares: Array
    low: Array
    high: Array


def profile(tasks: Sequence[Sequence[float]], levels: Array) -> Profile:
    """Return the share of runs above each level, the mean over tasks, so that each task counts the same.

    The band is a percentile bootstrap that draws the runs of each task apart (stratified), with a generator of its own.

    Args:
        tasks: One score a run, for every task; at least one task, and each with at least one run.
        levels: Ascending (L,).
    """
    generator = np.random.default_rng(0)
    passed = [np.searchsorted(levels, task) for task in tasks]  # (N,): how many levels lie below each run
    shares = np.mean([_shares(task, len(levels)) for task in passed], axis=0)
    draws = np.mean([_shares(resampled(task, generator), len(levels)) for task in passed], axis=0)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return Profile(levels, shares, low, high)


def _shares(passed: NDArray[np.int64], levels: int) -> Array:
    """Return which share of runs (..., N) is above each of L levels (..., L), from how many levels each has passed."""
    sets = passed.reshape(-1, passed.shape[-1])
    bins = sets + (levels + 1) * np.arange(len(sets))[:, None]
    counts = np.bincount(bins.ravel(), minlength=len(sets) * (levels + 1)).reshape(*passed.shape[:-1], levels + 1)
    shares: Array = counts[..., :0:-1].cumsum(axis=-1)[..., ::-1] / passed.shape[-1]
    return shares


def over_tasks(tasks: Sequence[Sequence[float]]) -> Spread:
    """Return the mean over tasks of the interquartile means of their runs, its interval, and all runs, best first.

    The interval is a percentile bootstrap as in `profile`; it covers 87 % of the time with five tasks of three runs.

    Args:
        tasks: One score a run, for every task; at least one task, and each with at least one run.
    """
    generator = np.random.default_rng(0)
    runs = [np.asarray(task, float) for task in tasks]
    draws = np.mean([iqm(resampled(values, generator)) for values in runs], axis=0)
    low, high = np.quantile(draws, (0.025, 0.975))
    every = np.concatenate(runs).tolist()
    return Spread(mean_over_tasks(runs), float(low), float(high), tuple(sorted(every, reverse=True)))


def mean_over_tasks(tasks: Sequence[Sequence[float] | Array]) -> float:
    """Return the mean over tasks of the interquartile means of their runs: each task counts the same."""
    return float(np.mean([iqm(np.asarray(task, float)) for task in tasks]))
