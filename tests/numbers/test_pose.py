"""Keypoint hits, counted by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.numbers.pose import SEEN, keypoint_hits

Figures = NDArray[np.float32]


def figure(x: float = 0.5, seen: int = 18) -> Figures:
    """One upright figure of height 0.5, its first joints seen."""
    joints = np.zeros((1, 18, 3), np.float32)
    joints[0, :, 0], joints[0, :, 1] = x, np.linspace(0.2, 0.7, 18)
    joints[0, :, 2] = np.where(np.arange(18) < seen, SEEN, 1)
    return joints


NOBODY = np.zeros((0, 18, 3), np.float32)


def test_a_figure_finds_itself() -> None:
    assert keypoint_hits(figure(), figure()) == (18, 18)


def test_hidden_joints_of_the_reference_are_not_asked_for() -> None:
    assert keypoint_hits(figure(seen=7), figure()) == (7, 7)


def test_joints_that_are_not_seen_in_what_is_found_do_not_count() -> None:
    assert keypoint_hits(figure(), figure(seen=7)) == (7, 18)


@pytest.mark.parametrize(("shift", "hits"), [(0.0499, 18), (0.0501, 0)])
def test_the_tolerance_is_a_tenth_of_the_height(shift: float, hits: int) -> None:
    assert keypoint_hits(figure(0.5), figure(0.5 + shift)) == (hits, 18)


def test_the_unit_does_not_matter() -> None:
    scale = np.array([64, 64, 1], np.float32)
    assert keypoint_hits(figure() * scale, figure(0.54) * scale) == (18, 18)


def test_each_figure_takes_the_one_that_agrees_best() -> None:
    pair = np.concatenate([figure(0.2), figure(0.8)])
    assert keypoint_hits(pair, pair[::-1]) == (36, 36)
    assert keypoint_hits(pair, figure(0.8)) == (18, 36)


def test_nobody() -> None:
    assert keypoint_hits(NOBODY, figure()) == (0, 0)
    assert keypoint_hits(figure(), NOBODY) == (0, 18)
