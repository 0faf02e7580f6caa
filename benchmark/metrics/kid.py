"""Kernel distance in a named feature space, unbiased at every n: it leads where a Frechet distance has too few images.

Binkowski et al., arXiv 1801.01401, over the full sample in place of random subsets.
"""

from dataclasses import dataclass

from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.metrics._spaces import OneSpace, distance
from benchmark.numbers.kernels import discrepancy, polynomial


@dataclass(frozen=True)
class Kid(OneSpace):
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3; it may be slightly negative."""

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the unbiased distance `kid-<space>`."""
        x, y = self.vectors(generated, reference)
        found = discrepancy(x, y, polynomial)
        return [
            distance(
                self.named("kid"),
                value=found.unbiased,
                estimate=found.unbiased,
                stderr=found.stderr,
                influence=found.influence,
                sizes=(len(x), len(y)),
                estimator="unbiased, full sample, kernel (x.y / D + 1)^3",
            )
        ]
