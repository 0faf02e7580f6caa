"""How many images are needed: the size of a dataset from which more of it hardly helps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.numbers.seeds import iqm, resampled

SHARE = 0.9


@dataclass(frozen=True)
class Needed:
    """Images needed to reach a share of the best over the sizes tried.

    Attributes:
        images: Where the curve of interquartile means over runs, straight between sizes in the logarithm, reaches it.
        low: Lower end of the 95 % interval over runs.
        high: Upper end.
        at_most: The smallest size tried reaches it already, so fewer may do.
        rising: The largest size tried is the best, so that more images might be better still and more be needed.
    """

    images: float
    low: float
    high: float
    at_most: bool
    rising: bool


def needed(runs: Mapping[int, Sequence[float]], share: float = SHARE) -> Needed | None:
    """Return how many images reach a share of the best, or None of fewer than two sizes or where nothing lies above 0.

    The interval is a percentile bootstrap of the runs within each size (stratified), with a generator of its own. With
    three runs a size it covers less than it says: for a mean of three, 75 %.

    Args:
        runs: One score a run, more is better and 0 is nothing, for every size; each size with at least one run.
        share: Of the best.
    """
    sizes = np.asarray(sorted(runs))
    centres = np.asarray([iqm(np.asarray(runs[size], float)) for size in sizes])
    if len(sizes) < 2 or centres.max() <= 0:
        return None
    generator = np.random.default_rng(0)
    drawn = np.stack([iqm(resampled(np.asarray(runs[size], float), generator)) for size in sizes])
    draws = [_crossing(sizes, column, share) for column in drawn.T if column.max() > 0]
    low, high = np.quantile(draws, (0.025, 0.975))
    images = _crossing(sizes, centres, share)
    return Needed(images, float(low), float(high), images <= sizes[0], int(centres.argmax()) == len(sizes) - 1)


def _crossing(sizes: NDArray[np.int64], centres: NDArray[np.float64], share: float) -> float:
    """Return where the curve first reaches a share of its best, at the earliest the smallest size."""
    goal = share * centres.max()
    first = int(np.argmax(centres >= goal))
    if first == 0:
        return float(sizes[0])
    before, after = centres[first - 1], centres[first]
    part = (goal - before) / (after - before)
    low, high = np.log(sizes[first - 1]), np.log(sizes[first])
    return float(np.exp(low + part * (high - low)))
