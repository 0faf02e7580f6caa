"""Reading figures off the referee's maps: synthetic maps whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.scenes.figure import KEYPOINTS
from benchmark.scenes.palette import PERSON, SEG_CLASSES
from benchmark.scenes.reading import figures, mean_iou

_PERSON = SEG_CLASSES.index(PERSON)
Heat = NDArray[np.float32]


def _regions(*columns: int) -> NDArray[np.int64]:
    """Upright regions six pixels wide of the class person, on the floor."""
    seg = np.ones((64, 64), np.int64)
    for column in columns:
        seg[20:50, column - 3 : column + 3] = _PERSON
    return seg


def _bump(x: float, y: float, height: float = 0.9) -> Heat:
    """A Gaussian of one pixel around (x, y), pixel centres at halves."""
    centres = np.arange(64) + 0.5
    squared = (centres[None, :] - x) ** 2 + (centres[:, None] - y) ** 2
    return np.asarray(height * np.exp(-squared / 2), dtype=np.float32)


def _heat(*points: tuple[int, float, float]) -> Heat:
    heat = np.zeros((len(KEYPOINTS), 64, 64), np.float32)
    for joint, x, y in points:
        heat[joint] = np.maximum(heat[joint], _bump(x, y))
    return heat


@pytest.mark.parametrize(("x", "y"), [(30.5, 30.5), (30.8, 30.3), (31.1, 29.6)])
def test_a_joint_is_found_between_pixels(x: float, y: float) -> None:
    (figure,) = figures(_regions(30), _heat((0, x, y)))
    assert figure[0, 2] == 2
    assert figure[0, :2] == pytest.approx([x, y], abs=0.3)
    assert (figure[1:] == 0).all()


def test_each_region_keeps_its_own_joints() -> None:
    found = figures(_regions(15, 45), _heat((4, 14.5, 30.5), (4, 46.5, 40.5), (7, 45.5, 22.5)))
    assert len(found) == 2
    left, right = sorted(found, key=lambda figure: figure[4, 0])
    assert left[4] == pytest.approx([14.5, 30.5, 2], abs=0.3)
    assert right[4] == pytest.approx([46.5, 40.5, 2], abs=0.3)
    assert left[7, 2] == 0
    assert right[7, 2] == 2


def test_a_joint_far_from_every_figure_belongs_to_none() -> None:
    (figure,) = figures(_regions(20), _heat((4, 50.5, 30.5)))
    assert (figure == 0).all()


def test_without_a_person_there_is_no_figure() -> None:
    assert figures(_regions(), _heat((0, 30.5, 30.5))).shape == (0, 18, 3)


def test_a_speck_is_no_figure() -> None:
    seg = np.ones((64, 64), np.int64)
    seg[10:13, 10:13] = _PERSON
    assert figures(seg, _heat((0, 11.5, 11.5))).shape == (0, 18, 3)


def test_mean_iou_by_hand() -> None:
    truth, found = np.array([0, 0, 1, 1], np.uint8), np.array([0, 1, 1, 1])
    assert mean_iou(truth, found, 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
