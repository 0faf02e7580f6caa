"""The bundled referee of the scenes world: a small network that reads every condition off a 64 x 64 image."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Annotator, Images, Map
from benchmark.scenes.maps import CONDITIONS
from benchmark.scenes.models import REFEREE_FILE, Referee, load_referee
from benchmark.scenes.palette import SEG_CLASSES
from benchmark.scenes.reading import read, read_off


@dataclass(frozen=True)
class Scenes(Annotator):
    """One condition of the referee, as in ``scenes:depth``.

    Attributes:
        kind: The condition: seg, depth, relative_depth, normal, softedge, lines, scribble or pose.
    """

    kind: str = "seg"

    world: ClassVar[str | None] = "scenes"

    def __post_init__(self) -> None:
        """Refuse a condition that the referee does not read."""
        if self.kind not in CONDITIONS:
            raise UserError(f'scenes reads no "{self.kind}"; {did_you_mean(self.kind, CONDITIONS)}')

    @property
    def condition(self) -> str:
        """The condition it makes maps of."""
        return self.kind

    @property
    def num_classes(self) -> int | None:
        """The classes of the world, where it reads them."""
        return len(SEG_CLASSES) if self.kind == "seg" else None

    @cached_property
    def _referee(self) -> Referee:
        return load_referee()

    def identity(self) -> dict[str, str]:
        """Return the hash of the referee's weights."""
        return {"weights_sha256": sha256_file(REFEREE_FILE)}

    def annotate(self, images: Images) -> list[Map]:
        """Return one map for each image of uint8 (N, 64, 64, 3)."""
        return [Map(array) for reading in read(self._referee, images) for array in read_off(reading, self.kind)]
