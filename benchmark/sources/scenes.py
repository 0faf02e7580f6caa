"""The bundled procedural world: endless rendered scenes with exact maps of every condition and true captions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Map, Part, Sample, Source
from benchmark.scenes.captions import tags
from benchmark.scenes.maps import CONDITIONS, exact
from benchmark.scenes.render import Render
from benchmark.scenes.splits import example
from benchmark.scenes.world import WORLD_VERSION

_TRAIN_PART = 500


@dataclass(frozen=True)
class _Exact(Mapping[str, Map]):
    """The exact maps of a render, each made when it is asked for."""

    render: Render

    def __getitem__(self, name: str) -> Map:
        if name not in CONDITIONS:
            raise KeyError(name)
        return Map(exact(self.render, name))

    def __iter__(self) -> Iterator[str]:
        return iter(CONDITIONS)

    def __len__(self) -> int:
        return len(CONDITIONS)


@dataclass(frozen=True)
class Scenes(Source):
    """Scenes of one world seed; sample i of a split is a pure function of (seed, split, i).

    Attributes:
        seed: Which world.
        val: Validation samples.
        test: Test samples.
    """

    is_drawn = True
    is_shuffled = True

    seed: int = 0
    val: int = 256
    test: int = 256

    def __post_init__(self) -> None:
        """Refuse splits without samples."""
        if self.val < 1 or self.test < 1:
            raise UserError(f"scenes needs at least one sample in each split, not val={self.val}, test={self.test}")

    def identity(self) -> dict[str, Any]:
        """Return the version of the world."""
        return {"world_version": WORLD_VERSION}

    def parts(self) -> Iterator[Part]:
        """Yield the test part, the validation part, and training parts of 500 samples without end."""
        yield from (Part(f"{split}-000000", size) for split, size in (("test", self.test), ("val", self.val)))
        yield from (Part(f"train-{i:06d}", _TRAIN_PART) for i in count())

    def read(self, part: Part, resolution: int, columns: Sequence[str] = ()) -> Iterator[Sample]:
        """Yield the samples of a part, rendered at a resolution of 32 to 512 pixels a side."""
        if not 32 <= resolution <= 512:
            raise UserError(f"scenes renders 32 to 512 pixels a side, not {resolution}")
        first = int(part.name.partition("-")[2]) * part.num_samples
        for i in range(first, first + part.num_samples):
            scene = example(self.seed, part.split, i, resolution)
            yield Sample(
                key=f"scenes-{self.seed}-{part.split}-{i:08d}",
                image=scene.render.image,
                caption=scene.caption,
                maps=_Exact(scene.render),
                tags=tags(scene.scene),
            )
