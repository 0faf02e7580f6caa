"""FID: the Frechet distance (Heusel et al. 2017) of Inception features as clean-fid computes them, and of no others."""

from dataclasses import dataclass
from typing import ClassVar

from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, same_keys
from benchmark.metrics._spaces import frechet


@dataclass(frozen=True)
class Fid(Metric):
    """FID of the generated images to these reference images.

    `weights` is where the network lies, by default where clean-fid keeps it. A network with another `sha256` than the
    published one is loaded where its hash is given, and its distance is called after it.
    """

    weights: str | None = None
    sha256: str | None = None

    unasked: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Image vectors of Inception."""
        place = f":{self.weights}" if self.weights else ""
        return (f"inception{place}{f',sha256={self.sha256}' if self.sha256 else ''}",)

    def score(self, generated: Table, reference: Table) -> list[Score]:
        """Return the bias-corrected distance; `value` is the plug-in estimate that clean-fid prints."""
        same_keys(generated, reference)
        (column,) = self.needs
        name = f"fd-inception-{self.sha256[:8]}" if self.sha256 else "fid"
        return [frechet(name, generated.columns[column], reference.columns[column])]
