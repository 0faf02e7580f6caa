"""Diversity: how far images lie apart, whatever they should have shown; a collapsed model draws one picture."""

from dataclasses import dataclass

from benchmark.base.errors import UserError
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.metrics._spaces import OneSpace
from benchmark.numbers.jackknife import ratio
from benchmark.numbers.spread import mean_distance


@dataclass(frozen=True)
class Diversity(OneSpace):
    """Mean distance of two images in a feature space, over that of two real ones: 1 is as varied as the real images."""

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the ratio `diversity-<space>`."""
        found, real = (mean_distance(vectors) for vectors in self.vectors(generated, reference))
        if real.value == 0:
            raise UserError(
                f"{self.named('diversity')}: the reference images are all alike, so nothing can be compared to them"
            )
        definition = {"estimator": "mean distance of two images, over that of two reference images"}
        return [ratio(found, real).score(self.named("diversity"), True, definition)]
