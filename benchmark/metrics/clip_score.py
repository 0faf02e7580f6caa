"""CLIP score: the mean cosine of image and prompt vectors, as in Hessel et al. 2021 without its factor 2.5."""

from dataclasses import dataclass

import numpy as np

from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.numbers import jackknife


@dataclass(frozen=True)
class ClipScore(Metric):
    """Mean over images of 100 cos(image, caption); negative cosines are kept."""

    space: str = "clip"

    @property
    def needs(self) -> tuple[str, ...]:
        """Image and text vectors of the space."""
        return self.space, f"{self.space}_text"

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return `clip_score`, in torchmetrics' units (100 times the cosine)."""
        image, text = (np.asarray(generated.columns[name], np.float64) for name in self.needs)
        estimate = jackknife.mean(100.0 * (image * text).sum(axis=1))
        return [
            Score.of(
                "clip_score",
                value=estimate.value,
                estimate=estimate.value,
                stderr=estimate.stderr,
                n=estimate.n,
                higher_is_better=True,
                definition={"estimator": "mean of 100 cos, unclamped"},
            )
        ]
