"""Kernel distance in a named feature space, unbiased at every n: it leads where a Frechet distance has too few images.

Binkowski et al., arXiv 1801.01401, over the full sample in place of random subsets.
"""

from dataclasses import dataclass

from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, same_keys
from benchmark.numbers.kernels import discrepancy, polynomial


@dataclass(frozen=True)
class Kid(Metric):
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3; it may be slightly negative."""

    space: str = "scenes"

    @property
    def needs(self) -> tuple[str, ...]:
        """Image vectors of the space."""
        return (self.space,)

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the unbiased distance `kid-<space>`."""
        same_keys(generated, reference)
        found = discrepancy(generated.columns[self.space], reference.columns[self.space], polynomial)
        return [
            Score.of(
                f"kid-{self.space}",
                value=found.unbiased,
                estimate=found.unbiased,
                stderr=found.stderr,
                n=len(generated.keys),
                higher_is_better=False,
                definition={
                    "estimator": "unbiased, full sample, kernel (x.y / D + 1)^3",
                    "num_reference": len(reference.keys),
                },
            )
        ]
