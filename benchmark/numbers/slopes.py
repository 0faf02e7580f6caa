"""How fast does a score fall as more of the data is dirty? A least-squares line for each seed, and their spread."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmark.numbers.seeds import Spread, spread


def slope(runs: Mapping[float, Mapping[Any, float]]) -> Spread | None:
    """Return the slope of a score against a rate over the seeds that have a run at every rate; None without one.

    The runs of a seed share the draw of their data and their noise, so each seed has a line of its own; the interval is
    over seeds.

    Args:
        runs: A score by seed, for every rate; at least two rates.
    """
    rates = sorted(runs)
    seeds = set.intersection(*(set(runs[rate]) for rate in rates))
    if not seeds:
        return None
    away = np.asarray(rates) - np.mean(rates)
    scores = np.asarray([[runs[rate][seed] for rate in rates] for seed in sorted(seeds)])
    return spread((scores @ away / (away @ away)).tolist())
