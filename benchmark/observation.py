"""What is seen in images: condition maps read back, vectors of encoders, distances to training images, and scores.

Images are looked at piece by piece, and what is kept of them is a row each: any number of them takes the same memory.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.base.files import canonical_json, sha256
from benchmark.contracts.plugins import Annotator, Condition, Encoder, Images, Map, Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, Vectors, in_blocks
from benchmark.engine.vectors import KeptVectors, VectorWriter, open_vectors
from benchmark.numbers import controlnetpp, jackknife

if TYPE_CHECKING:
    from benchmark.engine.imagesets import Reference

Batches = Callable[[], Iterator[Images]]
Array = NDArray[np.float64]
PIECE = 64  # samples: what encoders and referees take at once, so that the bits of an image depend on no setting
_SCORED = ("run", "no_control")


@dataclass(frozen=True)
class Evidence:
    """The images behind a record of some of its samples, in their order, uint8 (B, R, R, 3).

    Attributes:
        rows: Which samples.
        generated: One set or several: so many images of each sample.
        real: The pictures the samples are.
        vae: Those after the autoencoder's round trip.
        no_control: Without control, as many sets as there are.
    """

    rows: slice
    generated: Sequence[Images]
    real: Images
    vae: Images
    no_control: Sequence[Images]


@cache
def encoder(spec: str) -> Encoder:
    """Return the encoder a specification describes, made once."""
    return registry.make(Encoder, spec)


def pieces(count: int) -> Iterator[slice]:
    """Yield the slices of so many samples that are looked at together."""
    return (slice(start, min(start + PIECE, count)) for start in range(0, count, PIECE))


@dataclass
class ReadBack:
    """Has a referee read maps in images, and compares them with those of the samples, piece by piece.

    Attributes:
        condition: What is followed.
        referee: Reads it.
        reference: The samples.
        step: How many samples away the map lies that the anchor `shuffled` takes.
        controlnetpp: Whether rows of the scores of ControlNet++ are wanted too.
    """

    condition: Condition
    referee: Annotator
    reference: "Reference"
    step: int = 1
    controlnetpp: bool = False
    _found: dict[Any, list[Array]] = field(default_factory=lambda: defaultdict(list))

    def see(self, evidence: Evidence) -> None:
        """Read and compare a piece."""
        keys, places = self.reference.keys[evidence.rows], range(evidence.rows.start, evidence.rows.stop)
        count, truth = len(self.reference.keys), self._truth(places)
        away = self._truth([(i + self.step) % count for i in places])
        sets = {"run": evidence.generated, "no_control": evidence.no_control}
        sets |= {"real": [evidence.real], "vae": [evidence.vae]}
        read = {name: [self.referee.annotate_samples(images, keys) for images in each] for name, each in sets.items()}
        for name, maps in read.items():
            self._found[name].append(_compared(self.condition, truth, maps))
        self._found["shuffled"].append(_compared(self.condition, away, read["run"]))
        if self.controlnetpp:
            for name, reading in product(_SCORED, controlnetpp.READINGS):
                drawn = [[map_.array for map_ in maps] for maps in read[name]]
                rows = controlnetpp.rows(self.referee.condition, reading, [map_.array for map_ in truth], drawn)
                self._found[name, reading].append(rows)

    def _truth(self, places: Iterable[int]) -> list[Map]:
        return [self.condition.decode(self.reference.maps[i]) for i in places]

    @property
    def rows(self) -> dict[str, Array]:
        """Additive comparison rows (N, K) of the run and each anchor; shuffled takes the map `step` samples away.

        Several images of a sample add up to one row: they are not independent.
        """
        return {name: np.concatenate(self._found[name]) for name in (*_SCORED, "real", "vae", "shuffled")}

    def controlnetpp_scores(self, name: str, sets: int) -> list[Score]:
        """Return the scores of ControlNet++ of so many sets of a name, as coded and mended, over prompts."""
        side = min(self._truth([0])[0].array.shape)
        rule, scores = controlnetpp.rule(self.referee.condition, side), []
        for reading in controlnetpp.READINGS:
            estimate = jackknife.additive(
                np.concatenate(self._found[name, reading]), lambda total: total[..., 0] / total[..., 1]
            )
            definition = {"faults": rule.faults if reading == "compat" else "mended", "sets": sets}
            scores.append(estimate.score(f"controlnetpp_{reading}.{rule.name}", rule.higher_is_better, definition))
        return scores


def _compared(condition: Condition, truth: list[Map], sets: list[list[Map]]) -> Array:
    rows = [[condition.compare(a, b) for a, b in zip(truth, maps, strict=True)] for maps in sets]
    total: Array = np.array(rows, dtype=np.float64).sum(axis=0)
    return total


@dataclass
class Encoded:
    """Encodes sets of images in every space that metrics ask for, piece by piece, or finds their vectors in a cache.

    Attributes:
        spaces: Encoders, as on the command line.
        contents: A hash of the images of each set: the real ones, those generated, those without control.
        cache: Folder of the cache; its files are named by encoder and images, so that none can be mistaken.
    """

    spaces: Sequence[str]
    contents: Sequence[str]
    cache: Path

    def __post_init__(self) -> None:
        """Open what is there, and begin what is not."""
        self._kept: dict[tuple[str, str], KeptVectors | VectorWriter] = {}
        for space, content in product(self.spaces, dict.fromkeys(self.contents)):
            path = self._path(space, content)
            self._kept[space, content] = open_vectors(path) or VectorWriter(path)

    def _path(self, space: str, content: str) -> Path:
        folder = self.cache / "vectors" / sha256(canonical_json(encoder(space).identity()))[:12]
        return folder / f"{content[:24]}.safetensors"

    def see(self, evidence: Evidence) -> None:
        """Encode a piece, where it is not known."""
        sets = [evidence.real, *evidence.generated, *evidence.no_control]
        found = dict(zip(self.contents, sets, strict=True))
        for (space, content), kept in self._kept.items():
            if isinstance(kept, VectorWriter):
                kept.add(encoder(space).encode(found[content]))

    def vectors(self, space: str) -> list[KeptVectors]:
        """Return the vectors of each set, when all pieces were seen."""
        for content in self.contents:
            kept = self._kept[space, content]
            if isinstance(kept, VectorWriter):
                self._kept[space, content] = kept.keep()
        return [kept for content in self.contents if isinstance(kept := self._kept[space, content], KeptVectors)]

    def texts(self, space: str, captions: Sequence[str]) -> KeptVectors:
        """Return the vectors of captions."""
        path = self._path(space, sha256(canonical_json(captions)))
        if (kept := open_vectors(path)) is not None:
            return kept
        with closing(VectorWriter(path)) as writer:
            for rows in pieces(len(captions)):
                writer.add(encoder(space).encode_texts(captions[rows]))
            return writer.keep()

    def close(self) -> None:
        """Let go of the vectors of images that were not all seen."""
        for kept in self._kept.values():
            if isinstance(kept, VectorWriter):
                kept.close()


def score_images(
    metrics: Mapping[str, Metric], reference: "Reference", encoded: Encoded, count: int, trained_on: Batches | None
) -> tuple[list[Score], list[Score]]:
    """Return the scores of the generated images, and of those without control, against the real pictures.

    Args:
        metrics: By the words that made them.
        reference: The samples; their captions are the texts.
        encoded: The sets of images, all seen.
        count: How many sets were generated.
        trained_on: Yields the training images in batches, where a metric needs them.

    Raises:
        UserError: Two scores have one name.
    """
    columns = {need for metric in metrics.values() for need in metric.needs}
    real, *others = _tables(columns, reference, encoded, trained_on)
    scored = [[score for metric in metrics.values() for score in metric.score(one, real)] for one in others]
    if repeated := [name for name, times in Counter(score.name for score in scored[0]).items() if times > 1]:
        raise UserError(
            f"two metrics give a score named {repeated[0]}; score them one by one, into records of their own"
        )
    return averaged(scored[:count]), averaged(scored[count:])


def _tables(columns: set[str], reference: "Reference", encoded: Encoded, trained_on: Batches | None) -> list[Table]:
    """Return a table of each set of images, with the columns metrics ask for."""
    columns_of: list[dict[str, Vectors]] = [{} for _ in encoded.contents]
    for space in encoded.spaces:
        vectors = encoded.vectors(space)
        found: dict[str, Sequence[Vectors]] = {space: vectors}
        if f"{space}_text" in columns:
            found[f"{space}_text"] = [encoded.texts(space, reference.captions)] * len(vectors)
        if f"{space}_nearest" in columns:
            found[f"{space}_nearest"] = _nearest(encoder(space), vectors, trained_on)
        for name, each in found.items():
            for one, column in zip(columns_of, each, strict=True):
                one[name] = column
    return [Table(reference.keys, one) for one in columns_of]


def _nearest(space: Encoder, sets: Sequence[Vectors], trained_on: Batches | None) -> list[Vectors]:
    """Return (N, 2) for each set: the distance to the nearest training image, and how many of these there are."""
    from scipy.spatial.distance import cdist

    assert trained_on is not None
    best, count = [np.full(len(vectors), np.inf) for vectors in sets], 0
    for images in trained_on():
        pool = space.encode(images)
        count += len(pool)
        for old, vectors in zip(best, sets, strict=True):
            np.minimum(old, np.concatenate([cdist(x, pool).min(axis=1) for (x,) in in_blocks(vectors)]), out=old)
    return [np.stack([distance, np.full(len(distance), float(count))], axis=1) for distance in best]


def averaged(sets: list[list[Score]]) -> list[Score]:
    """Return the mean score of sets of images of the same samples, its error that of n samples, not of their images.

    Images of one sample are not independent: what they pull together is one observation.
    """
    if len(sets) == 1:
        return sets[0]
    return [_mean(scores) for scores in zip(*sets, strict=True)]


def _mean(scores: tuple[Score, ...]) -> Score:
    first = scores[0]
    pulls = np.mean([score.influence for score in scores], axis=0)
    return Score.of(
        first.name,
        value=float(np.mean([score.value for score in scores])),
        estimate=float(np.mean([score.estimate for score in scores])),
        stderr=float(np.std(pulls, ddof=1) / np.sqrt(first.n)),
        n=first.n,
        higher_is_better=first.higher_is_better,
        definition={**first.definition, "sets": len(scores)},
        unranked=first.unranked,
        influence=pulls.tolist(),
    )
