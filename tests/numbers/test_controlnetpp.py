"""The scores of ControlNet++: its formulas by torchmetrics, and its faults on maps made by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.classification import BinaryF1Score
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from benchmark.base.errors import UserError
from benchmark.numbers.controlnetpp import READINGS, Maps, inverted, rows, rule

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def score(condition: str, reading: str, truth: Maps, drawn: Sequence[Maps]) -> float:
    total = rows(condition, reading, truth, drawn).sum(axis=0)
    return float(total[0] / total[1])


def edges(seed: int, count: int) -> list[Bools]:
    return list(np.random.default_rng(seed).random((count, 20, 20)) < 0.2)


def soft(seed: int, count: int, side: int = 180) -> list[Floats]:
    """Smooth strengths in [0, 1] in steps of a byte, solid lines and nothing among them."""
    rng = np.random.default_rng(seed)
    waves = np.sin(
        np.linspace(0, 9, side)[:, None] * (1 + rng.random((count, 1, 1))) + 6 * rng.random((count, 1, side))
    )
    return list(np.rint(255 * np.clip(waves, 0, 1)) / 255)


def metres(least: float) -> NDArray[np.float32]:
    """Depth whose inverse is spread evenly from `least` to 1."""
    return (1 / np.linspace(least, 1, 256 * 256)).reshape(256, 256).astype(np.float32)


@pytest.mark.parametrize(("least", "published"), [(0.1, 14.7), (0.2, 29.4), (0.3, 44.2)])
def test_a_perfect_copy_of_depth_has_an_error_as_coded_and_none_mended(least: float, published: float) -> None:
    truth = metres(least)
    assert round(score("depth", "compat", [truth], [[truth]] * 4), 1) == published
    assert score("depth", "compat", [truth], [[truth]]) == pytest.approx(255 * least / np.sqrt(3), abs=0.1)
    assert score("depth", "strict", [truth], [[truth]] * 4) == 0.0


def test_mended_depth_is_the_error_of_maps_stretched_alike() -> None:
    truth, halves = 1 / np.array([[1.0, 2.0, 3.0, 5.0]]), 1 / np.array([[2.0, 4.0, 4.0, 10.0]])
    expected = 255 * np.sqrt(np.mean(np.square(np.array([0, 1 / 4, 2 / 4, 1]) - np.array([0, 1 / 4, 1 / 4, 1]))))
    assert score("depth", "strict", [truth], [[halves]]) == pytest.approx(expected)
    flat = np.full((1, 4), 3.0)
    assert score("depth", "strict", [flat], [[flat]]) == 0.0


def test_canny_mended_is_the_f1_of_torchmetrics_over_the_images_of_a_prompt_then_the_mean() -> None:
    truth, drawn = edges(0, 3), [edges(seed, 3) for seed in (1, 2, 3, 4)]
    each = []
    for i, map_ in enumerate(truth):
        read = torch.from_numpy(np.stack([maps[i] for maps in drawn])).flatten().int()
        each.append(float(BinaryF1Score()(read, torch.from_numpy(np.stack([map_] * 4)).flatten().int())))
    assert score("canny", "strict", truth, drawn) == pytest.approx(100 * np.mean(each), rel=1e-5)


def test_canny_as_coded_scores_the_first_image_four_times() -> None:
    truth = edges(0, 3)
    drawn = [truth, *(edges(seed, 3) for seed in (2, 3, 4))]
    assert score("canny", "compat", truth, drawn) == 100.0
    assert score("canny", "strict", truth, drawn) < 60.0


def test_nothing_found_where_nothing_is_counts_as_nothing_as_coded_and_as_right_mended() -> None:
    empty = np.zeros((4, 4), bool)
    theirs = BinaryF1Score()(torch.zeros(16).int(), torch.zeros(16).int())
    assert score("canny", "compat", [empty], [[empty]]) == float(theirs) == 0.0
    assert score("canny", "strict", [empty], [[empty]]) == 100.0


def test_inversion_on_bytes_wraps_where_lines_are_solid() -> None:
    levels = torch.tensor([0, 1, 2, 100, 255], dtype=torch.uint8)
    theirs = (1 - levels).numpy()
    assert theirs.tolist() == [1, 0, 255, 157, 2]
    assert np.rint(255 * inverted((255 - levels.numpy()) / 255.0)).astype(int).tolist() == theirs.tolist()


@pytest.mark.parametrize("condition", ["softedge", "lineart"])
@pytest.mark.parametrize("reading", READINGS)
def test_strengths_are_compared_by_the_ms_ssim_of_torchmetrics(condition: str, reading: str) -> None:
    truth, drawn = soft(0, 2), [soft(seed, 2) for seed in (1, 2)]
    measure, each = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0), []
    for i, map_ in enumerate(truth):
        read = np.stack([maps[i] for maps in drawn])
        if condition == "lineart" and reading == "compat":
            dark = torch.from_numpy(np.rint(255 - 255 * read).astype(np.uint8))
            read = (1 - dark).numpy() / 255.0
        sides = torch.from_numpy(read)[:, None], torch.from_numpy(np.stack([map_] * 2))[:, None]
        each.append(float(measure(*sides)))
    assert score(condition, reading, truth, drawn) == pytest.approx(np.mean(each), rel=1e-4)


def test_a_perfect_copy_of_lines_is_one_mended_and_less_as_coded() -> None:
    truth = soft(0, 1)
    assert score("lineart", "strict", truth, [truth]) == pytest.approx(1.0)
    assert score("lineart", "compat", truth, [truth]) < 0.95


def test_what_the_protocol_does_not_score_is_refused() -> None:
    with pytest.raises(UserError, match="ControlNet\\+\\+ has no score of its own for pose"):
        rule("pose", 512)
    with pytest.raises(UserError, match="scores softedge from 176 pixels a side on, not at 64"):
        rows("softedge", "compat", soft(0, 1, 64), [soft(1, 1, 64)])
