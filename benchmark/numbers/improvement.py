"""How often a run of one recipe beats a run of another: the probability of improvement (Agarwal et al., 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.numbers.seeds import resampled_counts


@dataclass(frozen=True)
class Improvement:
    """The probability that a run of one side beats one of the other, half of the ties included.

    Attributes:
        value: From 0 to 1; 0.5 where neither is better.
        low: Lower end of the 95 % interval over runs.
        high: Upper end.
        p: Two-sided probability of as much if neither were better (Mann and Whitney, 1947; exact without ties).
    """

    value: float
    low: float
    high: float
    p: float


def improvement(mine: Sequence[float], other: Sequence[float]) -> Improvement:
    """Return the probability that a run of mine beats one of the other's; each side has at least two runs.

    The interval is a percentile bootstrap that draws the runs of each side apart (stratified), with a generator of its
    own. Where all runs of one side beat all of the other it has no width, however few they are: p is read beside it.
    """
    from scipy import stats  # takes half a second to load, and most boards compare nothing

    x, y = np.asarray(mine, float), np.asarray(other, float)
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    generator = np.random.default_rng(0)
    mine_drawn, other_drawn = (resampled_counts(len(side), generator) for side in (x, y))
    draws = ((mine_drawn @ wins) * other_drawn).sum(axis=1) / wins.size
    low, high = np.quantile(draws, (0.025, 0.975))
    tied = len(np.unique([*x, *y])) == 1  # the test divides by a spread of ranks that is then 0
    p = 1.0 if tied else float(stats.mannwhitneyu(x, y).pvalue)
    return Improvement(float(wins.mean()), float(low), float(high), p)
