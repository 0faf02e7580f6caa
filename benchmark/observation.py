"""What is seen in images: condition maps read back, vectors of encoders, distances to training images, and scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Annotator, Condition, Encoder, Images, Map, Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, Vectors, sorted_table, space_of
from benchmark.numbers import controlnetpp, jackknife

if TYPE_CHECKING:
    from benchmark.engine.imagesets import Reference

Batches = Callable[[], Iterator[Images]]


@dataclass(frozen=True)
class Evidence:
    """The images behind a record, all of the same samples in the same order, uint8 (N, R, R, 3).

    Attributes:
        generated: One set or several: so many images of each sample.
        real: The pictures the samples are.
        vae: Those after the autoencoder's round trip.
        no_control: Without control, as many sets as there are.
    """

    generated: Sequence[Images]
    real: Images
    vae: Images
    no_control: Sequence[Images]


@cache
def encoder(spec: str) -> Encoder:
    """Return the encoder a specification describes, made once."""
    return registry.make(Encoder, spec)


@dataclass(frozen=True)
class Readings:
    """The maps of N samples, and those read back from sets of images: of the run and of each anchor that has images."""

    truth: list[Map]
    sets: Mapping[str, list[list[Map]]]


def read_back(condition: Condition, referee: Annotator, reference: "Reference", evidence: Evidence) -> Readings:
    """Return the maps of the samples and those that a referee reads in the images."""
    sets = {"run": evidence.generated, "no_control": evidence.no_control}
    sets |= {"real": [evidence.real], "vae": [evidence.vae]}
    read = {name: [referee.annotate_samples(images, reference.keys) for images in each] for name, each in sets.items()}
    return Readings([condition.decode(data) for data in reference.maps], read)


def observe(condition: Condition, readings: Readings) -> dict[str, Any]:
    """Return additive comparison rows (N, K) for the run and each anchor; shuffled takes the map half the set away.

    Several images of a sample add up to one row: they are not independent.
    """
    truth, half = readings.truth, max(1, len(readings.truth) // 2)
    rows = {name: _compared(condition, truth, maps) for name, maps in readings.sets.items()}
    return rows | {"shuffled": _compared(condition, truth[half:] + truth[:half], readings.sets["run"])}


def _compared(condition: Condition, truth: list[Map], sets: list[list[Map]]) -> NDArray[np.float64]:
    rows = [[condition.compare(a, b) for a, b in zip(truth, maps, strict=True)] for maps in sets]
    total: NDArray[np.float64] = np.array(rows, dtype=np.float64).sum(axis=0)
    return total


def controlnetpp_scores(condition: str, readings: Readings, name: str) -> list[Score]:
    """Return the scores of ControlNet++ of the sets of a name, as coded and mended, over prompts."""
    rule, scores = controlnetpp.rule(condition, min(readings.truth[0].array.shape)), []
    for reading in controlnetpp.READINGS:
        drawn = [[map_.array for map_ in maps] for maps in readings.sets[name]]
        rows = controlnetpp.rows(condition, reading, [map_.array for map_ in readings.truth], drawn)
        estimate = jackknife.additive(rows, lambda total: total[..., 0] / total[..., 1])
        definition = {"faults": rule.faults if reading == "compat" else "mended", "sets": len(drawn)}
        scores.append(estimate.score(f"controlnetpp_{reading}.{rule.name}", rule.higher_is_better, definition))
    return scores


def score_images(
    metrics: Mapping[str, Metric], reference: "Reference", evidence: Evidence, trained_on: Batches | None
) -> tuple[list[Score], list[Score]]:
    """Return the scores of the generated images, and of those without control, against the real pictures.

    Args:
        metrics: By the words that made them.
        reference: The samples; their captions are the texts.
        evidence: The images.
        trained_on: Yields the training images in batches, where they are at hand.

    Raises:
        UserError: A metric needs training images that are not at hand.
    """
    columns = {need for metric in metrics.values() for need in metric.needs}
    sets = [evidence.real, *evidence.generated, *evidence.no_control]
    real, *others = _tables(columns, reference, sets, trained_on)
    scored = [[score for metric in metrics.values() for score in metric.score(one, real)] for one in others]
    count = len(evidence.generated)
    return averaged(scored[:count]), averaged(scored[count:])


def _tables(
    columns: set[str], reference: "Reference", sets: Sequence[Images], trained_on: Batches | None
) -> list[Table]:
    """Return a table of each set of images, with the columns metrics ask for."""
    columns_of: list[dict[str, Vectors]] = [{} for _ in sets]
    for space in sorted({space_of(column) for column in columns}):
        vectors = [encoder(space).encode(images) for images in sets]
        found = {space: vectors}
        if f"{space}_text" in columns:
            found[f"{space}_text"] = [encoder(space).encode_texts(list(reference.captions))] * len(sets)
        if f"{space}_nearest" in columns:
            found[f"{space}_nearest"] = _nearest(encoder(space), vectors, trained_on)
        for name, each in found.items():
            for one, column in zip(columns_of, each, strict=True):
                one[name] = column
    return [sorted_table(reference.keys, one) for one in columns_of]


def _nearest(space: Encoder, vectors: list[Vectors], trained_on: Batches | None) -> list[Vectors]:
    """Return (N, 2) for each set: the distance to the nearest training image, and how many of these there are."""
    from scipy.spatial.distance import cdist

    if trained_on is None:
        raise UserError("nearest needs the images a run was trained on; these were not drawn by a run of this machine")
    best, count = [np.full(len(x), np.inf) for x in vectors], 0
    for images in trained_on():
        pool = space.encode(images)
        count += len(pool)
        best = [np.minimum(old, cdist(x, pool).min(axis=1)) for old, x in zip(best, vectors, strict=True)]
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
