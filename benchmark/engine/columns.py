"""Maps that come in columns of the source: read, checked against their image, and transformed with it."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.images import BadImage, Transform, orientation
from benchmark.contracts.plugins import Annotator, Condition, Map, Sample, Source


def wanted_columns(annotators: Iterable[Annotator | None]) -> list[str]:
    """Return the columns that annotators copy maps from, each once."""
    return sorted({column for annotator in annotators if annotator for column in annotator.columns})


def check_columns(source: Source, name: str, annotators: Iterable[Annotator | None]) -> None:
    """Refuse columns that a source does not have.

    Raises:
        UserError: The first of them, with those there are.
    """
    wanted = wanted_columns(annotators)
    known = source.columns() if wanted else []
    for column in wanted:
        if column not in known:
            raise UserError(f'the source {name} has no column "{column}"; {did_you_mean(column, known)}')


def source_identity(source: Source, annotators: Iterable[Annotator | None]) -> dict[str, Any]:
    """Return what pins a source's samples and the columns of them that annotators copy maps from."""
    return {**source.identity(), **source.columns_identity(wanted_columns(annotators))}


def column_maps(
    sample: Sample,
    transform: Transform,
    conditions: Mapping[str, Condition],
    annotators: Mapping[str, Annotator | None],
) -> dict[str, Map]:
    """Return the maps that a sample's columns hold, by condition, with the geometric transform of its image.

    Raises:
        BadImage: A cell that shows no such map, or one that does not lie on the image.
    """
    maps = {}
    for name, annotator in annotators.items():
        if annotator is None or not annotator.columns:
            continue
        try:
            _check_upright(sample, annotator.columns)
            maps[name] = conditions[name].warp(annotator.copy(sample.columns, conditions[name]), transform)
        except BadImage as error:
            raise BadImage(f"column {', '.join(annotator.columns)}: {error}") from None
    return maps


def _check_upright(sample: Sample, columns: Iterable[str]) -> None:
    """Refuse an image that is stored rotated, with a map that is not rotated alike."""
    turned = orientation(sample.image) if isinstance(sample.image, bytes) else 1
    for column in columns:
        cell = sample.columns[column]
        if isinstance(cell, bytes) and not cell:
            raise BadImage("empty")
        if (orientation(cell) if isinstance(cell, bytes) else 1) != turned:
            raise BadImage(f"the image is stored rotated (EXIF orientation {turned}), its map otherwise")
