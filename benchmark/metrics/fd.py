"""Frechet distance in a named feature space, with a jackknifed bias and an influence-function error."""

from dataclasses import dataclass

import numpy as np

from benchmark.base.seeds import Stream
from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, same_keys
from benchmark.numbers import jackknife
from benchmark.numbers.frechet import Gaussian, frechet_distance, influence


@dataclass(frozen=True)
class Fd(Metric):
    """Distance of the generated images to these reference images; `fid` is another name for another network.

    Below n = 2 D the number is printed but never ranked.
    """

    space: str = "scenes"

    @property
    def needs(self) -> tuple[str, ...]:
        """Image vectors of the space."""
        return (self.space,)

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the bias-corrected distance `fd-<space>`."""
        same_keys(generated, reference)
        x, fixed = generated.columns[self.space], Gaussian.fit(reference.columns[self.space])
        n, dimension = x.shape
        order = Stream(0, "jackknife-blocks").permutation(n)
        estimate = jackknife.blocks(n, lambda kept: frechet_distance(Gaussian.fit(x[kept]), fixed), order)
        psi = influence(x, Gaussian.fit(x), fixed)
        return [
            Score.of(
                f"fd-{self.space}",
                value=estimate.value,
                estimate=estimate.corrected,
                stderr=float(np.std(psi, ddof=1) / np.sqrt(n)),
                n=n,
                higher_is_better=False,
                definition={"estimator": "frechet, jackknife of 20 blocks, influence error", "num_reference": fixed.n},
                unranked=None if n >= 2 * dimension else f"n = {n} is below 2 D = {2 * dimension}",
            )
        ]
