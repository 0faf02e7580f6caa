"""What holds for every metric, whatever the type of vectors and the pieces in which they come."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Metric
from benchmark.contracts.records import Score
from benchmark.contracts.tables import Table, Vectors
from benchmark.engine.vectors import VectorWriter

Array = NDArray[np.float64]
WIDTH = 16
every_metric = pytest.mark.parametrize("name", registry.names(Metric))
distances = pytest.mark.parametrize("name", ["fd", "fid", "kid", "cmmd"])


def vectors(n: int, seed: int, shift: float = 0.0) -> Array:
    drawn: Array = np.random.default_rng(seed).normal(size=(n, WIDTH)) + shift
    return drawn


def columns(name: str, x: Array, dtype: DTypeLike = np.float64) -> dict[str, NDArray[np.floating]]:
    """Every column the metric needs, made of the same vectors; distances to training images are positive."""
    made = {}
    for i, need in enumerate(registry.make(Metric, name).needs):
        column = np.roll(x, i, axis=1)
        unit = column / np.linalg.norm(column, axis=1, keepdims=True)
        made[need] = (
            np.abs(x[:, :2]) + 0.1 if need.endswith("_nearest") else unit if "clip" in need else column
        ).astype(dtype)
    return made


def keys(n: int) -> tuple[str, ...]:
    return tuple(f"{i:04d}" for i in range(n))


def scored(name: str, x: Array, y: Array, dtype: DTypeLike = np.float64) -> Score:
    generated, reference = (Table(keys(len(z)), columns(name, z, dtype)) for z in (x, y))
    (score,) = registry.make(Metric, name).score(generated, reference)
    return score


@every_metric
@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_vectors_kept_in_pieces_of_any_size_give_the_same_bits(name: str, data: st.DataObject) -> None:
    x, y = vectors(60, 0, 0.2), vectors(60, 1)
    cuts = sorted(data.draw(st.sets(st.integers(1, 59), max_size=4)))
    with tempfile.TemporaryDirectory() as folder:
        kept: dict[str, Vectors] = {}
        for i, (column, made) in enumerate(columns(name, x, np.float32).items()):
            writer = VectorWriter(Path(folder) / f"{i}.safetensors")
            for piece in np.split(made.astype(np.float32), cuts):
                writer.add(piece)
            kept[column] = writer.keep()
        reference = Table(keys(60), columns(name, y, np.float32))
        (score,) = registry.make(Metric, name).score(Table(keys(60), kept), reference)
    assert score == scored(name, x, y, np.float32)


@every_metric
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_type_of_vectors_moves_a_score_by_its_rounding_alone(name: str, dtype: DTypeLike) -> None:
    x, y = (z.astype(dtype).astype(np.float64) for z in (vectors(60, 0, 0.2), vectors(60, 1)))
    kept = (
        dtype if "clip" not in name and name not in ("cmmd", "nearest") else np.float32
    )  # unit vectors are rounded anew
    narrow, wide = scored(name, x, y, kept), scored(name, x, y)
    assert narrow.value == pytest.approx(wide.value, rel=1e-4, abs=1e-6)
    assert narrow.stderr == pytest.approx(wide.stderr, rel=1e-3)


@distances
def test_a_set_has_no_distance_to_itself(name: str) -> None:
    x = vectors(80, 0)
    assert scored(name, x, x).value <= 1e-6


@distances
def test_a_constant_picture_is_far_from_a_varied_set_and_has_a_finite_error(name: str) -> None:
    y = vectors(80, 1)
    far = scored(name, np.ones_like(y), y)
    near = scored(name, vectors(80, 2), y)
    assert far.value > near.value
    assert np.isfinite(far.stderr)


@distances
def test_two_constant_pictures_are_as_far_apart_as_their_vectors(name: str) -> None:
    a, b = np.ones((40, WIDTH)), np.full((40, WIDTH), 1.0)
    b[:, 0] = 3.0
    score = scored(name, a, b)
    if name in ("fd", "fid"):
        assert score.value == pytest.approx(4.0, rel=1e-6)
    assert score.value > 0
    assert score.stderr == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["fd", "fid"])
@pytest.mark.parametrize("n", [3, 5, WIDTH, WIDTH + 1])
def test_fewer_images_than_dimensions_have_a_value_that_is_not_ranked(name: str, n: int) -> None:
    x, y = vectors(n, 0, 0.5), vectors(n, 1)
    score = scored(name, x, y)
    assert score.value > 0
    assert score.unranked == f"n = {n} is below 2 D = {2 * WIDTH}"


@pytest.mark.parametrize("name", ["fd", "fid"])
def test_two_images_have_no_jackknifed_distance(name: str) -> None:
    with pytest.raises(UserError, match="a Frechet distance needs 3 images, not 2"):
        scored(name, vectors(2, 0), vectors(2, 1))


@pytest.mark.parametrize("name", [name for name in registry.names(Metric) if not name.startswith("clip_")])
def test_unequal_counts_are_an_error(name: str) -> None:
    x, y = vectors(30, 0), vectors(30, 1)
    with pytest.raises(UserError, match="different samples"):
        scored(name, x[:-1], y)


@every_metric
def test_values_that_are_not_finite_are_an_error(name: str) -> None:
    x, y = vectors(30, 0), vectors(30, 1)
    x[3, 1] = np.nan
    with pytest.raises(UserError, match="holds values that are not finite"):
        scored(name, x, y)
