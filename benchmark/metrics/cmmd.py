"""CMMD: distance of mean CLIP vectors under a Gaussian kernel (Jayasumana et al., arXiv 2401.09603).

With sigma = 10 on unit vectors it is a distance of means to one part in a hundred, nearly blind to spread: never the
only metric. The published numbers are in the space of CLIP ViT-L/14 at 336 pixels; the space is part of the name here.
"""

from dataclasses import dataclass

import numpy as np

from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.metrics._spaces import OneSpace, distance
from benchmark.numbers.kernels import Array, discrepancy, gaussian

_SIGMA, _SCALE = 10.0, 1000.0


@dataclass(frozen=True)
class Cmmd(OneSpace):
    """1,000 times the squared maximum mean discrepancy of unit vectors; `value` is the published, biased estimate."""

    space: str = "clip"

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the distance `cmmd-<space>`, its estimate unbiased."""
        x, y = self.vectors(generated, reference)
        found = discrepancy(x, y, _kernel)
        return [
            distance(
                self.named("cmmd"),
                value=_SCALE * found.biased,
                estimate=_SCALE * found.unbiased,
                stderr=_SCALE * found.stderr,
                influence=_SCALE * found.influence,
                sizes=(len(x), len(y)),
                estimator="1000 MMD^2, Gaussian kernel of sigma 10",
            )
        ]


def _kernel(x: Array, y: Array) -> Array:
    """Return the Gaussian kernel of the unit vectors of every pair."""
    return gaussian(_SIGMA)(*(vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (x, y)))
