"""What metrics of one named space share: distances of its image vectors, and their agreement with its text vectors."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError
from benchmark.base.seeds import Stream
from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, Vectors, in_blocks, label, same_keys
from benchmark.numbers import jackknife
from benchmark.numbers.frechet import Gaussian, frechet_distance, influence


@dataclass(frozen=True)
class OneSpace(Metric):
    """A metric of image vectors; its scores are named after the space."""

    space: str = "scenes"

    @property
    def needs(self) -> tuple[str, ...]:
        """Image vectors of the space."""
        return (self.space,)

    def vectors(self, generated: Table, reference: Table) -> tuple[Vectors, Vectors]:
        """Return the generated and the reference vectors (N, D), row by row of the same samples.

        Raises:
            UserError: The tables describe different samples.
        """
        same_keys(generated, reference)
        return generated.columns[self.space], reference.columns[self.space]

    def named(self, name: str) -> str:
        """Return ``<name>-<space>``."""
        return f"{name}-{label(self.space)}"


@dataclass(frozen=True)
class Agreement(Metric):
    """Mean cosine of the vectors of an image and its caption, times `scale`; negative cosines are kept."""

    space: str = "clip"

    scale: ClassVar[float]
    name: ClassVar[str]

    @property
    def needs(self) -> tuple[str, ...]:
        """Image and text vectors of the space."""
        return self.space, f"{self.space}_text"

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the mean over images, under the metric's name, with that of a space that is not the bundled one."""
        pairs = in_blocks(*(generated.columns[name] for name in self.needs))
        cosines = np.concatenate([(image * text).sum(axis=1) for image, text in pairs])
        definition = {"estimator": f"mean of {self.scale:g} cos, unclamped"}
        name = (
            self.name if self.space == "clip" else f"{self.name}-{label(self.space)}"
        )  # the bundled one needs no name
        return [jackknife.mean(self.scale * cosines).score(name, True, definition)]


def distance(
    name: str,
    *,
    value: float,
    estimate: float,
    stderr: float,
    influence: NDArray[np.float64],
    sizes: tuple[int, int],
    estimator: str,
    unranked: str | None = None,
) -> Score:
    """Return the score of a distance of so many generated to so many reference images."""
    return Score.of(
        name,
        value=value,
        estimate=estimate,
        stderr=stderr,
        influence=influence.tolist(),
        n=sizes[0],
        higher_is_better=False,
        definition={"estimator": estimator, "num_reference": sizes[1]},
        unranked=unranked,
    )


def frechet(name: str, generated: Vectors, reference: Vectors) -> Score:
    """Return the Frechet distance of vectors (N, D) to a fixed reference, its bias removed; unranked below n = 2 D.

    Raises:
        UserError: Fewer than 3 images: without one, the others have no covariance.
    """
    if len(generated) < 3:
        raise UserError(f"a Frechet distance needs 3 images, not {len(generated)}; generate more")
    fixed, found, (n, dimension) = Gaussian.fit(reference), Gaussian.fit(generated), generated.shape
    parts = jackknife.parts(Stream(0, "jackknife-blocks").permutation(n))
    left_out = [frechet_distance(rest, fixed) for rest in found.without(generated, parts)]
    estimate = jackknife.blocks(n, frechet_distance(found, fixed), left_out)
    psi = influence(generated, found, fixed)
    return distance(
        name,
        value=estimate.value,
        estimate=estimate.corrected,
        stderr=float(np.std(psi, ddof=1) / np.sqrt(n)),
        influence=psi,
        sizes=(n, fixed.n),
        estimator="frechet, jackknife of 20 blocks, influence error",
        unranked=None if n >= 2 * dimension else f"n = {n} is below 2 D = {2 * dimension}",
    )
