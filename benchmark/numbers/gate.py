"""Did a few new runs come out as the reference runs did? Tests whose false alarms are bounded together.

The gate turns the usual question round, as MLPerf's reference convergence points do for speed: a difference that is not
significant proves nothing, so a mean passes only where it is shown to lie within a margin (two one-sided tests).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FALSE_ALARM = 0.005  # of the whole family of checks, if nothing changed
_SHOWN = 0.05  # of each one-sided test of equivalence
_DRAWS = 400_000


@dataclass(frozen=True)
class Check:
    """One thing compared.

    Attributes:
        name: What was compared.
        moved: Whether it did not come out as in the reference runs.
        text: The numbers, in words.
        sees: The smallest change it would see four times in five, in words.
    """

    name: str
    moved: bool
    text: str
    sees: str


def check_mean(name: str, reference: Sequence[float], new: Sequence[float], alarm: float) -> Check:
    """Return whether the new mean is shown to lie within a margin of the reference mean (TOST, Schuirmann 1987).

    The margin is so many standard deviations of the reference that runs of the same truth, normally spread, miss it
    with the given probability.

    Args:
        name: What the values are.
        reference: Of at least two runs.
        new: Of at least two runs.
        alarm: Probability of a false alarm.
    """
    margin = _margin(len(reference), len(new), alarm) * float(np.std(reference, ddof=1))
    away = float(np.mean(new) - np.mean(reference))
    reach = float(_reach(np.asarray(reference, float), np.asarray(new, float)))
    stderr = float(np.std(reference, ddof=1)) * np.sqrt(1 / len(reference) + 1 / len(new))
    sees = margin - reach + stats.norm.ppf(0.8) * stderr
    text = f"{np.mean(new):.4f} against {np.mean(reference):.4f}: {away:+.4f} +- {reach:.4f}, margin {margin:.4f}"
    # Turned round, so that a number that is none has moved.
    return Check(name, not abs(away) + reach <= margin, text, f"a change of {max(sees, 0.0):.3g}")


def check_spread(name: str, reference: Sequence[float], new: Sequence[float], alarm: float) -> Check:
    """Return whether new runs lie farther apart than reference runs do (one-sided F test of their variances)."""
    mine, theirs = float(np.var(new, ddof=1)), float(np.var(reference, ddof=1))
    ratio = mine / theirs if theirs else float(np.inf if mine else 1.0)
    degrees = len(new) - 1, len(reference) - 1
    limit = float(stats.f.isf(alarm, *degrees))
    seen = np.sqrt(limit / stats.f.isf(0.8, *degrees))
    text = f"standard deviation {np.sqrt(ratio):.2f} of the reference's, limit {np.sqrt(limit):.2f}"
    return Check(f"{name}, spread", not ratio <= limit, text, f"{seen:.1f} times the deviation")


def check_failures(reference: Sequence[bool], new: Sequence[bool], alarm: float) -> Check:
    """Return whether more of the new runs failed than of the reference runs (one-sided Fisher test)."""

    def p(failed: int) -> float:
        table = [[failed, len(new) - failed], [sum(reference), len(reference) - sum(reference)]]
        return float(stats.fisher_exact(table, alternative="greater").pvalue)

    seen = next((k for k in range(len(new) + 1) if p(k) < alarm), None)
    text = f"{sum(new)} of {len(new)} failed, {sum(reference)} of {len(reference)} in the reference"
    sees = "nothing: too few runs" if seen is None else f"{seen} of {len(new)} failing"
    return Check("failures", p(sum(new)) < alarm, text, sees)


def check_onset(reference: Sequence[int | None], new: Sequence[int | None], last: int, alarm: float) -> Check:
    """Return whether control began at other updates than in the reference runs (log-rank test; None is censored).

    Args:
        reference: The update at which control began in each run, None if it had not by the last.
        new: The same of the new runs.
        last: The last update.
        alarm: Probability of a false alarm.
    """
    both = _censored(reference, last), _censored(new, last)
    same = {*reference, *new} == {reference[0]}
    p = 1.0 if same else float(stats.logrank(*both).pvalue)
    began = ", ".join("never" if step is None else str(step) for step in new)
    known = sorted(last + 1 if step is None else step for step in reference)
    text = f"{began}; the reference's median is {known[len(known) // 2]} (p = {p:.2g})"
    return Check("onset of control", p < alarm, text, "most runs beginning at another probe")


def _censored(steps: Sequence[int | None], last: int) -> stats.CensoredData:
    began = [step for step in steps if step is not None]
    return stats.CensoredData(uncensored=began, right=[last] * (len(steps) - len(began)))


def _reach(reference: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the one-sided bounds of the difference of means reach beyond it, over the last axis."""
    m, n = reference.shape[-1], new.shape[-1]
    pooled = ((m - 1) * reference.var(-1, ddof=1) + (n - 1) * new.var(-1, ddof=1)) / (m + n - 2)
    reach: NDArray[np.float64] = stats.t.isf(_SHOWN, m + n - 2) * np.sqrt(pooled * (1 / m + 1 / n))
    return reach


@cache
def _margin(reference_runs: int, new_runs: int, alarm: float) -> float:
    """Return the margin in standard deviations of the reference that equal truths miss with the given probability."""
    generator = np.random.default_rng(0)
    reference = generator.standard_normal((_DRAWS, reference_runs))
    new = generator.standard_normal((_DRAWS, new_runs))
    away = np.abs(new.mean(-1) - reference.mean(-1))
    return float(np.quantile((away + _reach(reference, new)) / reference.std(-1, ddof=1), 1 - alarm))
