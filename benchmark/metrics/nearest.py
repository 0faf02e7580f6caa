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
        found, real = (np.asarray(table.columns[column][:], np.float64)[:, 0] for table in (generated, reference))
        if real.mean() == 0:
            raise UserError(
                f"nearest-{label(self.space)}: all real images were trained on, so nothing says how far unseen ones lie"
            )
        ratio = float(found.mean() / real.mean())
        pulls = (found - ratio * real) / real.mean()  # of a ratio of means over the same samples
        return [
            Score.of(
                f"nearest-{label(self.space)}",
                value=ratio,
                estimate=ratio,
                stderr=float(np.std(pulls, ddof=1) / np.sqrt(len(pulls))),
                influence=pulls.tolist(),
                n=len(pulls),
                higher_is_better=True,
                definition={
                    "estimator": "mean distance to the nearest training image, over that of real images",
                    "num_training_images": int(reference.columns[column][:1][0, 1]),
                },
            )
        ]
