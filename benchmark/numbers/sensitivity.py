"""How wide is the region in which a setting works? Where control stays near its best while one dial is turned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.numbers.efficiency import SHARE
from benchmark.numbers.seeds import iqm, resampled

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """The values of a dial, around its best, at which control is at least a share of the best.

    Attributes:
        start: Its lower end.
        end: Its upper end.
        width: `end` / `start` of a dial turned by factors, else `end` - `start`.
        low: Lower end of the 95 % interval of the width over runs.
        high: Upper end.
        open_below: The lowest value tried still lies in it, so that it may reach further down.
        open_above: The highest does.
    """

    start: float
    end: float
    width: float
    low: float
    high: float
    open_below: bool
    open_above: bool


def region(runs: Mapping[float, Sequence[float]], factors: bool, share: float = SHARE) -> Region | None:
    """Return the region of a dial, or None of fewer than three values or where nothing lies above 0.

    The curve of interquartile means over runs is straight between values, in the logarithm where the dial is turned by
    factors. The interval is a percentile bootstrap of the runs at each value (stratified), with a generator of its own.

    Args:
        runs: One score a run, more is better and 0 is nothing, for every value of the dial; each with at least one run.
        factors: Whether the dial is turned by factors, as a learning rate is; its values are then above 0.
        share: Of the best.
    """
    values = sorted(runs)
    centres = np.asarray([iqm(np.asarray(runs[value], float)) for value in values])
    if len(values) < 3 or centres.max() <= 0:
        return None
    places = np.log(values) if factors else np.asarray(values, float)
    generator = np.random.default_rng(0)
    drawn = np.stack([iqm(resampled(np.asarray(runs[value], float), generator)) for value in values])
    widths = [end - start for start, end in (_ends(places, c, share) for c in drawn.T if c.max() > 0)]
    start, end = _ends(places, centres, share)
    shown = np.exp if factors else np.asarray
    low, high = shown(np.quantile(widths, (0.025, 0.975)))
    first, last, width = (float(shown(place)) for place in (start, end, end - start))
    return Region(first, last, width, float(low), float(high), bool(start == places[0]), bool(end == places[-1]))


def _ends(places: Array, centres: Array, share: float) -> tuple[float, float]:
    """Return where the curve first falls below a share of its best, to the left of its best and to the right."""
    best, goal = int(centres.argmax()), share * centres.max()
    left = _crossing(places[best::-1], centres[best::-1], goal)
    return left, _crossing(places[best:], centres[best:], goal)


def _crossing(places: Array, centres: Array, goal: float) -> float:
    """Return where a curve that begins at or above the goal first falls below it, its last place if it does not."""
    below = np.flatnonzero(centres < goal)
    if not len(below):
        return float(places[-1])
    before, after = below[0] - 1, below[0]
    part = (centres[before] - goal) / (centres[before] - centres[after])
    return float(places[before] + part * (places[after] - places[before]))
