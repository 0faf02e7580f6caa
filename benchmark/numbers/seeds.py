"""What trainings that differ in their seeds alone say together; never mixed with the error of one evaluation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

ONSET = 0.25
_TRIMMED_FROM = 5
_DRAWS = 2000


@dataclass(frozen=True)
class Spread:
    """The interquartile mean over training runs with its 95 % interval (None for one run), and the runs, best first."""

    iqm: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The worst run."""
        return self.values[-1]


def spread(values: Sequence[float]) -> Spread:
    """Return interquartile mean and interval over runs: with few, a percentile bootstrap covers far too little.

    Of five runs or more a quarter, rounded down, is left out at either end, and the interval is that of Tukey and
    McLaughlin (1963) for a trimmed mean; of fewer none can be spared: mean and t interval.

    Args:
        values: One score a run, more is better; at least one.
    """
    ordered = tuple(sorted(map(float, values), reverse=True))
    n, cut = len(ordered), _cut(len(ordered))
    centre = float(iqm(np.asarray(ordered)))
    if n == 1:
        return Spread(centre, None, None, ordered)
    winsorised = np.clip(ordered, ordered[n - cut - 1], ordered[cut])
    stderr = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / n) * math.sqrt(n))
    half = float(special.stdtrit(n - 2 * cut - 1, 0.975)) * stderr
    return Spread(centre, centre - half, centre + half, ordered)


def iqm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the interquartile mean over the last axis; of fewer than five values the mean."""
    n = values.shape[-1]
    means: NDArray[np.float64] = np.sort(values, axis=-1)[..., _cut(n) : n - _cut(n)].mean(axis=-1)
    return means


def _cut(n: int) -> int:
    return n // 4 if n >= _TRIMMED_FROM else 0


def resampled(values: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Return so many bootstrap samples (2000, N) of N runs: drawn with replacement."""
    return values[generator.integers(0, len(values), (_DRAWS, len(values)))]


def resampled_counts(runs: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each of N runs is in each of so many bootstrap samples (2000, N)."""
    picks = resampled(np.arange(runs), generator) + runs * np.arange(_DRAWS)[:, None]
    return np.bincount(picks.ravel(), minlength=_DRAWS * runs).reshape(_DRAWS, runs)


@dataclass(frozen=True)
class Share:
    """How many runs of all, with the 95 % Wilson interval of the rate."""

    count: int
    total: int
    low: float
    high: float


def share(count: int, total: int) -> Share:
    """Return a share of runs, of at least one, with its interval (Wilson, 1927): none of few says little."""
    z = float(special.ndtri(0.975))
    centre = (count + z * z / 2) / (total + z * z)
    half = z * math.sqrt(count * (total - count) / total + z * z / 4) / (total + z * z)
    return Share(count, total, centre - half if count else 0.0, centre + half if count < total else 1.0)


def steepest(curve: Mapping[int, float], window: float) -> float | None:
    """Return the largest rise between two probes at most a window apart, as a share of the last probe's score.

    Control that grows evenly rises by window / updates; "sudden convergence" (the paper's section 3.4) by nearly 1.

    Args:
        curve: A score by update.
        window: In updates.

    Returns:
        None if no two probes lie within a window, or the last score is not above 0.
    """
    steps = sorted(curve)
    rises = [curve[b] - curve[a] for a in steps for b in steps if 0 < b - a <= window]
    return max(rises) / curve[steps[-1]] if rises and curve[steps[-1]] > 0 else None


def onset(curve: Sequence[dict[str, Any]], score: str, level: float = ONSET) -> int | None:
    """Return the update from which a score's normalised control stays at or above a level, None if it never does.

    Args:
        curve: Rows of a run's curve; those without a probe are passed over.
        score: As in ``miou``.
        level: 0.25 of the way from the base alone to what the autoencoder lets through, unless told.
    """
    first: int | None = None
    for row in curve:
        value = row.get("probe", {}).get(f"{score}.normalised")
        if value is None:
            continue
        if value < level:
            first = None
        elif first is None:
            first = int(row["step"])
    return first
