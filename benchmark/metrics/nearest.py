"""Distance to the nearest training image: what a model repeats lies nearer than images it has never seen.

Meehan et al., arXiv 2004.05675, compare the same two sets of distances.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, label, same_keys
from benchmark.numbers.jackknife import mean, ratio


@dataclass(frozen=True)
class Nearest(Metric):
    """Mean distance to the nearest training image over that of real images never trained on.

    1 is as far as unseen images lie, 0 is a copy.
    """

    space: str = "scenes"

    unasked: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Distances to the nearest training image in the space."""
        return (f"{self.space}_nearest",)

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the ratio `nearest-<space>`; its definition says among how many training images."""
        same_keys(generated, reference)
        (column,) = self.needs
        found, real = (mean(np.asarray(t.columns[column][:], np.float64)[:, 0]) for t in (generated, reference))
        if real.value == 0:
            raise UserError(
                f"nearest-{label(self.space)}: all real images were trained on, so nothing says how far unseen ones lie"
            )
        definition = {
            "estimator": "mean distance to the nearest training image, over that of real images",
            "num_training_images": int(reference.columns[column][:1][0, 1]),
        }
        return [ratio(found, real).score(f"nearest-{label(self.space)}", True, definition)]
