"""Frechet distance in a named feature space, with a jackknifed bias and an influence-function error."""

from dataclasses import dataclass

from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.metrics._spaces import OneSpace, frechet


@dataclass(frozen=True)
class Fd(OneSpace):
    """Distance of the generated images to these reference images; `fid` is another name for another network.

    Below n = 2 D the number is printed but never ranked.
    """

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the bias-corrected distance `fd-<space>`."""
        return [frechet(self.named("fd"), *self.vectors(generated, reference))]
