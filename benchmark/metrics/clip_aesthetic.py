"""CLIP aesthetic score (Schuhmann et al., arXiv 2210.08402), the third column of the ControlNet paper's Table 3."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, same_keys
from benchmark.numbers import jackknife


@dataclass(frozen=True)
class ClipAesthetic(Metric):
    """Mean aesthetic score of the generated images.

    `head` is the predictor's file, by default where LAION's code keeps it; `clip` the CLIP it was trained on, by
    default OpenAI's ViT-L/14. The paper does not say which predictor it used.
    """

    head: str | None = None
    clip: str | None = None

    unasked: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The aesthetic scores of the images."""
        head, clip = f":{self.head}" if self.head else "", f",clip={self.clip}" if self.clip else ""
        return (f"aesthetic{head}{clip}",)

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the mean over images; that of the real images is in its definition."""
        same_keys(generated, reference)
        (column,) = self.needs
        mine, real = (np.asarray(table.columns[column][:], np.float64)[:, 0] for table in (generated, reference))
        definition = {"estimator": "mean of the predictor's scores", "real_images": float(real.mean())}
        return [jackknife.mean(mine).score("clip_aesthetic", True, definition)]
