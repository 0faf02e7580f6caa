"""Frechet distance in a named feature space, with a jackknifed bias and an influence-function error."""

from dataclasses import dataclass

import numpy as np

from benchmark.base.seeds import Stream
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table
from benchmark.metrics._spaces import OneSpace
from benchmark.numbers import jackknife
from benchmark.numbers.frechet import Gaussian, frechet_distance, influence


@dataclass(frozen=True)
class Fd(OneSpace):
    """Distance of the generated images to these reference images; `fid` is another name for another network.

    Below n = 2 D the number is printed but never ranked.
    """

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the bias-corrected distance `fd-<space>`."""
        x, y = self.vectors(generated, reference)
        fixed, (n, dimension) = Gaussian.fit(y), x.shape
        order = Stream(0, "jackknife-blocks").permutation(n)
        estimate = jackknife.blocks(n, lambda kept: frechet_distance(Gaussian.fit(x[kept]), fixed), order)
        psi = influence(x, Gaussian.fit(x), fixed)
        return [
            self.distance(
                "fd",
                value=estimate.value,
                estimate=estimate.corrected,
                stderr=float(np.std(psi, ddof=1) / np.sqrt(n)),
                sizes=(n, fixed.n),
                estimator="frechet, jackknife of 20 blocks, influence error",
                unranked=None if n >= 2 * dimension else f"n = {n} is below 2 D = {2 * dimension}",
            )
        ]
