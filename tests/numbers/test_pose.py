"""Keypoint hits, counted by hand; similarity against the formula of COCO, joint by joint."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.numbers.pose import SEEN, keypoint_hits, similarity
from benchmark.scenes.figure import KEYPOINTS

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


# As COCO's evaluation lists them, in its own order of 17 joints.
_COCO = {
    "nose": 0.26, "eye": 0.25, "ear": 0.35, "shoulder": 0.79, "elbow": 0.72, "wrist": 0.62, "hip": 1.07, "knee": 0.87,
    "ankle": 0.89, "neck": 0.79,
}  # fmt: skip


def drawn(seed: int) -> Figures:
    """A figure of random joints, about half of them seen."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random((1, 18, 2)), rng.integers(1, 3, (1, 18, 1))], axis=2).astype(np.float32)


def test_similarity_is_the_formula_of_coco() -> None:
    a = drawn(0)
    b = a + np.random.default_rng(1).normal(0, 0.05, a.shape).astype(np.float32) * np.array([1, 1, 0], np.float32)
    box = (a[0, :, 0].max() - a[0, :, 0].min()) * (a[0, :, 1].max() - a[0, :, 1].min())
    terms = []
    for name, (x, y, seen), (u, v, _) in zip(KEYPOINTS, a[0].astype(float), b[0].astype(float), strict=True):
        if seen == SEEN:
            variance = (2 * _COCO[name.split("_")[-1]] / 10) ** 2
            terms.append(np.exp(-((x - u) ** 2 + (y - v) ** 2) / variance / float(box) / 2))
    assert 0.1 < np.mean(terms) < 0.9
    assert similarity(a, b) == pytest.approx((np.mean(terms), 1), rel=1e-4)


def test_similarity_pairs_each_figure_with_one_other() -> None:
    a, b = drawn(2), drawn(3)
    pair = np.concatenate([a, b])
    total, figures = similarity(pair, pair[::-1])
    assert (total, figures) == pytest.approx((2.0, 2))
    assert similarity(pair, a)[0] < 1.5
    assert similarity(np.concatenate([a, a]), a) == pytest.approx((1.0, 2))


def test_similarity_does_not_depend_on_the_unit() -> None:
    a, b = drawn(4), drawn(4) + np.array([0.03, 0, 0], np.float32)
    scale = np.array([64, 64, 1], np.float32)
    assert similarity(a * scale, b * scale)[0] == pytest.approx(similarity(a, b)[0], rel=1e-4)


def test_joints_the_found_figure_does_not_show_count_as_far_away() -> None:
    whole = figure()
    whole[0, ::2, 0] += 0.1  # a figure on a line has no box
    half = whole.copy()
    half[0, 9:, 2] = 1
    assert similarity(whole, half) == pytest.approx((0.5, 1))
    assert similarity(half, whole) == pytest.approx((1.0, 1))


def test_nobody_is_like_nobody() -> None:
    assert similarity(NOBODY, figure()) == (0.0, 0)
    assert similarity(figure(), NOBODY) == (0.0, 1)
    assert similarity(figure(seen=0), figure()) == (0.0, 0)
