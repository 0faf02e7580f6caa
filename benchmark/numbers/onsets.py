"""When does control begin? The share of runs in which it has, over training; the others are censored at its end."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.numbers.seeds import Share, share


@dataclass(frozen=True)
class Onsets:
    """The distribution of the update at which control begins.

    Attributes:
        steps: Updates at which it began in at least one run, ascending.
        begun: Runs in which it has begun by each of them, of all.
        median: The first update by which it has in half of all runs; None if that lies beyond the end (censored).
    """

    steps: tuple[int, ...]
    begun: tuple[Share, ...]
    median: int | None


def onsets(began: Sequence[int], total: int) -> Onsets:
    """Return the distribution of the onset over runs that were watched equally long.

    Then the estimate of Kaplan and Meier (1958) is the share of all runs itself, whose Wilson interval, unlike
    Greenwood's, also stands where control has begun in all.

    Args:
        began: The update at which control began, of the runs in which it did.
        total: How many runs there are; one that diverged or never followed is censored at the end of training.
    """
    steps = tuple(sorted(set(began)))
    begun = tuple(share(sum(other <= step for other in began), total) for step in steps)
    median = next((step for step, so_far in zip(steps, begun, strict=True) if 2 * so_far.count >= total), None)
    return Onsets(steps, begun, median)
