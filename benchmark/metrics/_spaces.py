"""What metrics of the image vectors of one named space share."""

from dataclasses import dataclass

from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, Vectors, label, same_keys


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

    def distance(
        self,
        name: str,
        *,
        value: float,
        estimate: float,
        stderr: float,
        sizes: tuple[int, int],
        estimator: str,
        unranked: str | None = None,
    ) -> Score:
        """Return the score `<name>-<space>` of a distance of so many generated to so many reference images."""
        return Score.of(
            f"{name}-{label(self.space)}",
            value=value,
            estimate=estimate,
            stderr=stderr,
            n=sizes[0],
            higher_is_better=False,
            definition={"estimator": estimator, "num_reference": sizes[1]},
            unranked=unranked,
        )
