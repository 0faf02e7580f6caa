"""What trainings that differ in their seeds alone say together; never mixed with the error of one evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

ONSET = 0.25


@dataclass(frozen=True)
class Spread:
    """The mean over training runs with its 95 % t interval (None for one run), and the runs' own values, best first."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    @property
    def worst(self) -> float:
        """The worst run."""
        return self.values[-1]


def spread(values: Sequence[float]) -> Spread:
    """Return mean and t interval over runs: with few, a percentile bootstrap covers far too little.

    Args:
        values: One score a run, more is better; at least one.
    """
    ordered = tuple(sorted(values, reverse=True))
    mean, n = float(np.mean(ordered)), len(ordered)
    if n == 1:
        return Spread(mean, None, None, ordered)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(ordered, ddof=1) / np.sqrt(n))
    return Spread(mean, mean - half, mean + half, ordered)


@dataclass(frozen=True)
class Share:
    """How many runs of all, with the 95 % Wilson interval of the rate."""

    count: int
    total: int
    low: float
    high: float


def share(count: int, total: int) -> Share:
    """Return a share of runs, of at least one, with its Wilson interval: none of few says little."""
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return Share(count, total, float(interval.low), float(interval.high))


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
