"""Every condition keeps its promises unasked; canny and seg are checked against other implementations."""

import inspect
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, jaccard_score

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.base.images import Transform, decode_rgb
from benchmark.contracts.plugins import Annotator, Condition, Images, Map
from benchmark.scenes.palette import SEG_CLASSES, SEG_COLOURS
from benchmark.scenes.splits import example

_COUNT = 4
every_condition = pytest.mark.parametrize("name", registry.names(Condition))


@cache
def _images() -> Images:
    return np.stack([example(21, "test", i, 64).render.image for i in range(_COUNT)])


@cache
def _maps(name: str) -> list[Map]:
    """Different maps of a condition: the scenes world's own truth, or what the default annotator finds."""
    annotator = registry.make(Condition, name).annotator
    if annotator is not None:
        return registry.make(Annotator, annotator).annotate(_images())
    return [Map(getattr(example(21, "test", i, 64).render, name)) for i in range(_COUNT)]


def _rows(condition: Condition, pairs: list[tuple[Map, Map]]) -> NDArray[np.float64]:
    return np.stack([condition.compare(a, b) for a, b in pairs])


def _pairs(name: str) -> list[tuple[Map, Map]]:
    maps = _maps(name)
    return [(a, b) for a in maps for b in maps]


def test_the_first_conditions_are_there() -> None:
    assert {"canny", "seg"} <= set(registry.names(Condition))


@every_condition
def test_encode_and_decode_are_exact(name: str) -> None:
    condition = registry.make(Condition, name)
    for map_ in _maps(name):
        decoded = condition.decode(condition.encode(map_))
        assert decoded.array.dtype == map_.array.dtype
        assert np.array_equal(decoded.array, map_.array)


@every_condition
def test_maps_are_stored_as_png_in_the_same_bytes_each_time(name: str) -> None:
    condition, map_ = registry.make(Condition, name), _maps(name)[0]
    data = condition.encode(map_)
    assert data.startswith(b"\x89PNG")
    assert condition.encode(condition.decode(data)) == data


@every_condition
@pytest.mark.parametrize("size", [32, 64, 128])
def test_render_gives_an_rgb_image_of_the_size(name: str, size: int) -> None:
    condition = registry.make(Condition, name)
    pictures = [condition.render(map_, size) for map_ in _maps(name)]
    for picture, map_ in zip(pictures, _maps(name), strict=True):
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(condition.render(map_, size), picture)
    assert len({picture.tobytes() for picture in pictures}) == _COUNT


@every_condition
def test_doubling_the_size_repeats_pixels(name: str) -> None:
    condition, map_ = registry.make(Condition, name), _maps(name)[0]
    assert np.array_equal(condition.render(map_, 128)[::2, ::2], condition.render(map_, 64))


@every_condition
def test_rows_are_finite_and_of_one_length(name: str) -> None:
    rows = _rows(registry.make(Condition, name), _pairs(name))
    assert rows.ndim == 2
    assert rows.dtype == np.float64
    assert np.isfinite(rows).all()


@every_condition
def test_agreement_with_itself_is_perfect_and_the_best(name: str) -> None:
    condition = registry.make(Condition, name)
    maps = _maps(name)
    itself = condition.scores(_rows(condition, [(m, m) for m in maps]).sum(axis=0))
    others = condition.scores(_rows(condition, list(zip(maps, maps[1:] + maps[:1], strict=True))).sum(axis=0))
    assert all(float(itself[score]) == pytest.approx(1.0) for score in itself)
    assert all(float(others[score]) < 0.99 for score in itself)


@every_condition
def test_the_headline_is_a_score(name: str) -> None:
    condition = registry.make(Condition, name)
    assert condition.headline in condition.scores(condition.compare(*_pairs(name)[1]))


@every_condition
def test_scores_of_many_sums_are_the_scores_of_each(name: str) -> None:
    condition = registry.make(Condition, name)
    rows = _rows(condition, _pairs(name))
    together = condition.scores(rows.reshape(_COUNT, _COUNT, -1))
    for i, row in enumerate(rows):
        for score, value in condition.scores(row).items():
            assert together[score].shape == (_COUNT, _COUNT)
            assert together[score].flat[i] == pytest.approx(float(value))


@every_condition
def test_order_and_repetition_of_images_do_not_change_scores(name: str) -> None:
    condition = registry.make(Condition, name)
    rows = _rows(condition, _pairs(name))
    once, twice = condition.scores(rows.sum(axis=0)), condition.scores(np.concatenate([rows[::-1], rows]).sum(axis=0))
    assert {k: float(v) for k, v in twice.items()} == pytest.approx({k: float(v) for k, v in once.items()})


@every_condition
def test_warp_crops_the_map_as_the_image(name: str) -> None:
    condition, map_ = registry.make(Condition, name), _maps(name)[0]
    warped = condition.warp(map_, Transform(64, 64, 64))
    assert np.array_equal(warped.array, map_.array)
    tall = Map(map_.array[:, 16:48])
    cropped = condition.warp(tall, Transform(64, 32, 32))
    assert cropped.array.dtype == map_.array.dtype
    assert np.array_equal(cropped.array, map_.array[16:48, 16:48])


@every_condition
def test_the_referee_makes_maps_of_the_condition(name: str) -> None:
    condition = registry.make(Condition, name)
    referee = registry.make(Annotator, condition.referee)
    found = referee.annotate(_images())
    assert referee.condition == name
    assert [m.array.dtype for m in found] == [m.array.dtype for m in _maps(name)]
    scores = condition.scores(_rows(condition, list(zip(_maps(name), found, strict=True))).sum(axis=0))
    assert float(scores[condition.headline]) > 0.85


@every_condition
def test_a_condition_can_be_described_and_made_again(name: str) -> None:
    condition = registry.make(Condition, name)
    assert registry.remake(Condition, registry.describe(condition)) == condition


@pytest.mark.parametrize("name", registry.names(Condition))
def test_the_class_says_what_a_map_is(name: str) -> None:
    assert "Map:" in (inspect.getdoc(type(registry.make(Condition, name))) or "")


def _edges(*rows: str) -> Map:
    return Map(np.array([[mark == "#" for mark in row] for row in rows]))


def _canny_scores(reference: Map, predicted: Map) -> dict[str, float]:
    condition = registry.make(Condition, "canny")
    return {name: float(value) for name, value in condition.scores(condition.compare(reference, predicted)).items()}


def test_canny_f1_by_hand() -> None:
    reference = _edges("##....", "......", "......", "....#.", "......")
    predicted = _edges("#.....", "..#...", "......", "......", "...#.#")
    # Strict: 1 hit, 3 false alarms, 2 misses. Within a pixel: all 4 predicted are near, all 3 of the reference are.
    assert _canny_scores(reference, predicted) == pytest.approx({"f1": 2 / (2 + 3 + 2), "f1_1px": 1.0})


def test_canny_tolerance_is_one_pixel_and_no_more() -> None:
    reference = _edges("#......", ".......", ".......", ".......")
    near, far = _edges(".......", ".#.....", ".......", "......#"), _edges("..#....", ".......", ".......", ".......")
    assert _canny_scores(reference, near) == pytest.approx({"f1": 0.0, "f1_1px": 2 * 0.5 * 1 / 1.5})
    assert _canny_scores(reference, far) == {"f1": 0.0, "f1_1px": 0.0}


def test_canny_of_nothing() -> None:
    nothing, something = _edges("....", "...."), _edges("..#.", "....")
    assert _canny_scores(nothing, nothing) == {"f1": 1.0, "f1_1px": 1.0}
    assert _canny_scores(nothing, something) == _canny_scores(something, nothing) == {"f1": 0.0, "f1_1px": 0.0}


def test_canny_scores_are_means_over_images() -> None:
    condition = registry.make(Condition, "canny")
    pairs = _pairs("canny")
    total = condition.scores(_rows(condition, pairs).sum(axis=0))
    for name in ("f1", "f1_1px"):
        assert float(total[name]) == pytest.approx(np.mean([_canny_scores(a, b)[name] for a, b in pairs]))


def test_canny_is_white_on_black_and_one_bit() -> None:
    condition, map_ = registry.make(Condition, "canny"), _maps("canny")[0]
    assert np.array_equal(condition.render(map_, 64), np.where(map_.array[..., None], 255, 0).repeat(3, axis=2))
    assert condition.encode(map_)[24] == 1
    assert 0.01 < map_.array.mean() < 0.3


def test_canny_annotator_is_the_detector_of_the_controlnet_authors() -> None:
    found = registry.make(Annotator, "canny").annotate(_images())
    for map_, image in zip(found, _images(), strict=True):
        assert map_.array.dtype == np.bool_
        assert np.array_equal(map_.array, cv2.Canny(image, 100, 200) == 255)


def test_canny_thresholds_are_passed_on() -> None:
    condition = registry.make(Condition, "canny,low=20,high=60")
    assert condition.referee == "canny,low=20,high=60"
    more = registry.make(Annotator, condition.referee).annotate(_images())
    assert all(a.array.sum() > b.array.sum() for a, b in zip(more, _maps("canny"), strict=True))


def _noisy(map_: Map, seed: int) -> Map:
    rng = np.random.default_rng(seed)
    other = rng.integers(0, len(SEG_CLASSES), map_.array.shape).astype(np.uint16)
    return Map(np.where(rng.random(map_.array.shape) < 0.3, other, map_.array))


def _seg_scores(pairs: list[tuple[Map, Map]]) -> dict[str, float]:
    condition = registry.make(Condition, "seg")
    return {name: float(value) for name, value in condition.scores(_rows(condition, pairs).sum(axis=0)).items()}


def test_seg_scores_agree_with_scikit_learn_on_all_pixels_at_once() -> None:
    pairs = [(map_, _noisy(map_, i)) for i, map_ in enumerate(_maps("seg"))]
    truth, found = (np.concatenate([pair[side].array.ravel() for pair in pairs]) for side in (0, 1))
    per_class = jaccard_score(truth, found, average=None)
    scores = _seg_scores(pairs)
    assert scores["miou"] == pytest.approx(per_class.mean())
    assert scores["foreground_miou"] == pytest.approx(per_class[2:].mean())
    assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(truth, found))


def test_seg_classes_that_occur_nowhere_do_not_count() -> None:
    reference, predicted = Map(np.array([[0, 0], [2, 2]], np.uint16)), Map(np.array([[0, 2], [2, 2]], np.uint16))
    assert _seg_scores([(reference, predicted)]) == pytest.approx(
        {"miou": (1 / 2 + 2 / 3) / 2, "foreground_miou": 2 / 3, "pixel_accuracy": 3 / 4}
    )


def test_seg_rows_of_two_maps_are_the_row_of_both_side_by_side() -> None:
    condition, (a, b, *_) = registry.make(Condition, "seg"), _maps("seg")
    x, y = _noisy(a, 1), _noisy(b, 2)
    union = condition.compare(Map(np.hstack([a.array, b.array])), Map(np.hstack([x.array, y.array])))
    assert np.array_equal(condition.compare(a, x) + condition.compare(b, y), union)


def test_seg_is_rendered_and_stored_in_the_colours_of_its_palette() -> None:
    condition, map_ = registry.make(Condition, "seg"), _maps("seg")[0]
    expected = np.array(SEG_COLOURS, np.uint8)[map_.array]
    assert np.array_equal(condition.render(map_, 64), expected)
    assert np.array_equal(decode_rgb(condition.encode(map_)), expected)


def test_seg_warp_never_makes_a_class() -> None:
    ids = np.where(np.add.outer(np.arange(100), np.arange(140)) % 3 > 0, 5, 1).astype(np.uint16)
    warped = registry.make(Condition, "seg").warp(Map(ids), Transform(100, 140, 64))
    assert warped.array.shape == (64, 64)
    assert warped.array.dtype == np.uint16
    assert set(np.unique(warped.array)) == {1, 5}


def test_seg_refuses_ids_outside_its_palette() -> None:
    with pytest.raises(ValueError, match="class id 6 outside palette scenes of 6"):
        registry.make(Condition, "seg").encode(Map(np.full((4, 4), 6, np.uint16)))


@pytest.mark.parametrize("side", [0, 1])
def test_seg_compares_no_ids_outside_its_palette(side: int) -> None:
    pair: list[Any] = [Map(np.zeros((4, 4), np.uint16)), Map(np.zeros((4, 4), np.uint16))]
    pair[side] = Map(np.full((4, 4), 6, np.uint16))
    with pytest.raises((ValueError, UserError), match="outside"):
        registry.make(Condition, "seg").compare(*pair)


def test_seg_refuses_an_unknown_palette() -> None:
    with pytest.raises(UserError, match='no palette "scene"; did you mean "scenes"'):
        registry.make(Condition, "seg,palette=scene")
