"""Counting what is drawn: synthetic readings whose answer is known, and the referee on exact renders."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.scenes.captions import tags
from benchmark.scenes.judging import Found, found_shares, objects_found
from benchmark.scenes.judging import _found as found
from benchmark.scenes.models import load_referee
from benchmark.scenes.palette import COLOURS, KINDS
from benchmark.scenes.render import FIRST_KIND
from benchmark.scenes.splits import example

RED, BLUE = (1 + list(COLOURS).index(name) for name in ("red", "blue"))
CUBE, CONE = (FIRST_KIND + KINDS.index(name) for name in ("cube", "cone"))
Picture = tuple[NDArray[np.int64], NDArray[np.int64]]


def picture(*objects: tuple[int, int, int]) -> Picture:
    """Return kinds and colours (64, 64) with a square of five pixels a side for each (kind, colour, column)."""
    kind, colour = np.ones((64, 64), np.int64), np.zeros((64, 64), np.int64)
    for k, c, column in objects:
        kind[20:25, column : column + 5], colour[20:25, column : column + 5] = k, c
    return kind, colour


def things(*names: str) -> list[dict[str, str]]:
    return [dict(zip(("colour", "kind"), name.split(), strict=True)) for name in names]


def test_what_is_named_and_there_is_found() -> None:
    seen = found(*picture((CUBE, RED, 10), (CONE, BLUE, 30)), things("red cube", "blue cone"))
    assert seen == Found(named=2, by_kind=2, by_both=2, unnamed_pixels=0, object_pixels=50)


def test_a_wrong_colour_is_found_by_kind_alone() -> None:
    assert found(*picture((CUBE, BLUE, 10)), things("red cube")) == Found(1, 1, 0, 0, 25)


def test_two_alike_need_two_regions() -> None:
    assert found(*picture((CUBE, RED, 10)), things("red cube", "red cube")) == Found(2, 1, 1, 0, 25)
    assert found(*picture((CUBE, RED, 10), (CUBE, RED, 30)), things("red cube", "red cube")) == Found(2, 2, 2, 0, 50)


def test_a_kind_that_is_not_named_counts_against_the_picture() -> None:
    assert found(*picture((CUBE, RED, 10), (CONE, RED, 30)), things("red cube")) == Found(1, 1, 1, 25, 50)


def test_a_speck_is_no_object() -> None:
    kind, colour = picture()
    kind[:3, :5], colour[:3, :5] = CUBE, RED
    assert found(kind, colour, things("red cube")) == Found(1, 0, 0, 0, 15)


def test_shares_are_by_the_number_of_named_objects() -> None:
    rows = [Found(1, 1, 1, 0, 30), Found(1, 1, 0, 10, 30), Found(2, 1, 1, 0, 40)]
    assert found_shares(rows) == {
        "kind_1": 1.0,
        "kind_and_colour_1": 0.5,
        "kind_2": 0.5,
        "kind_and_colour_2": 0.5,
        "unnamed_pixels": 0.1,
    }


@pytest.mark.parametrize("count", [1, 2])
def test_the_referee_finds_the_objects_of_renders(count: int) -> None:
    drawn = [example(0, "test", i, 64) for i in range(80)]
    drawn = [one for one in drawn if len(one.scene.things) == count]
    images = np.stack([one.render.image for one in drawn])
    shares = found_shares(objects_found(load_referee(), images, [tags(one.scene) for one in drawn]))
    assert shares[f"kind_and_colour_{count}"] >= 0.9
    assert shares["unnamed_pixels"] <= 0.05


def test_a_picture_without_objects_has_no_unnamed_pixels() -> None:
    assert found_shares([Found(1, 0, 0, 0, 0)]) == {"kind_1": 0.0, "kind_and_colour_1": 0.0, "unnamed_pixels": 0.0}
