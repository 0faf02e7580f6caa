"""Every condition keeps its promises unasked; canny and seg are checked against other implementations."""

import inspect
import io
import warnings
from functools import cache
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PictureFile
from scipy.spatial.transform import Rotation
from skimage.metrics import structural_similarity
from sklearn.metrics import accuracy_score, jaccard_score, mean_absolute_percentage_error, recall_score

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.base.images import BadImage, Transform, decode_rgb
from benchmark.conditions._palettes import PALETTES, voc_colour
from benchmark.contracts.plugins import Annotator, Condition, Images, Map
from benchmark.scenes.figure import KEYPOINTS
from benchmark.scenes.maps import exact
from benchmark.scenes.palette import SEG_CLASSES, SEG_COLOURS
from benchmark.scenes.render import Render
from benchmark.scenes.splits import example

_COUNT = 4
every_condition = pytest.mark.parametrize("name", registry.names(Condition))
# How close the referee comes on renders: the headline score, and its least value or, for an error, its greatest.
_READS = {
    "canny": 1.0,
    "depth": 0.08,
    "lineart": 1.0,
    "lines": 0.85,
    "normal": 20.0,
    "pose": 0.4,
    "relative_depth": 0.06,
    "scribble": 0.9,
    "seg": 0.85,
    "softedge": 0.8,
}


@cache
def _renders(count: int = _COUNT) -> list[Render]:
    """The first test scenes with a figure: every condition has something to show."""
    scenes = (example(21, "test", i, 64).render for i in range(2000))
    return list(islice((render for render in scenes if len(render.keypoints)), count))


@cache
def _images() -> Images:
    return np.stack([render.image for render in _renders()])


@cache
def _maps(name: str) -> list[Map]:
    """Different maps of a condition: the scenes world's own truth, or what the default annotator finds."""
    condition = registry.make(Condition, name)
    if condition.annotator is not None:
        return registry.make(Annotator, condition.annotator).annotate(_images())
    return [Map(exact(render, name)) for render in _renders()]


def _stored(name: str) -> list[Map]:
    """Maps at the precision they are stored with."""
    condition = registry.make(Condition, name)
    return [condition.decode(condition.encode(map_)) for map_ in _maps(name)]


def _rows(condition: Condition, pairs: list[tuple[Map, Map]]) -> NDArray[np.float64]:
    return np.stack([condition.compare(a, b) for a, b in pairs])


def _pairs(name: str) -> list[tuple[Map, Map]]:
    maps = _maps(name)
    return [(a, b) for a in maps for b in maps]


def test_the_conditions_of_the_paper_are_there() -> None:
    wanted = {"canny", "depth", "lineart", "lines", "normal", "pose", "scribble", "seg", "softedge"}
    wanted |= {"relative_depth"}
    assert wanted <= set(registry.names(Condition))


@every_condition
def test_encode_and_decode_keep_a_map_to_the_precision_it_is_stored_with(name: str) -> None:
    steps = {"depth": 0.0005, "lineart": 0.5 / 255, "softedge": 0.5 / 255, "normal": 0.008, "pose": 1e-6}
    steps["relative_depth"] = 0.5 / 65535
    for map_, decoded in zip(_maps(name), _stored(name), strict=True):
        assert decoded.array.dtype == map_.array.dtype
        assert decoded.array.shape == map_.array.shape
        error = np.abs(decoded.array.astype(np.float64) - map_.array.astype(np.float64))
        assert error.max() <= steps.get(name, 0.0) * 1.001


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


@pytest.mark.parametrize("name", ["canny", "lines", "scribble", "seg"])
def test_doubling_the_size_repeats_pixels(name: str) -> None:
    condition, map_ = registry.make(Condition, name), _maps(name)[0]
    assert np.array_equal(condition.render(map_, 128)[::2, ::2], condition.render(map_, 64))


@pytest.mark.parametrize("name", ["depth", "lineart", "normal", "pose", "relative_depth", "softedge"])
def test_doubling_the_size_shows_the_same(name: str) -> None:
    condition, map_ = registry.make(Condition, name), _maps(name)[0]
    half = cv2.resize(condition.render(map_, 128), (64, 64), interpolation=cv2.INTER_AREA)
    difference = np.abs(half.astype(int) - condition.render(map_, 64))
    assert difference.mean() < 0.03 * np.ptp(condition.render(map_, 64))


@every_condition
def test_rows_are_finite_and_of_one_length(name: str) -> None:
    rows = _rows(registry.make(Condition, name), _pairs(name))
    assert rows.ndim == 2
    assert rows.dtype == np.float64
    assert np.isfinite(rows).all()


@every_condition
def test_agreement_with_itself_is_perfect_and_the_best(name: str) -> None:
    condition, maps = registry.make(Condition, name), _maps(name)
    itself = condition.scores(_rows(condition, [(m, m) for m in maps]).sum(axis=0))
    others = condition.scores(_rows(condition, list(zip(maps, maps[1:] + maps[:1], strict=True))).sum(axis=0))
    assert condition.errors <= set(itself)
    for score, value in itself.items():
        if score in condition.errors:
            assert float(value) == pytest.approx(0.0, abs=0.05)  # degrees: float32 cosines
            assert float(others[score]) > float(value) + 0.02
        else:
            assert float(value) == pytest.approx(1.0)
            assert float(others[score]) < 0.99


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
def test_warp_leaves_a_map_of_the_right_size_alone(name: str) -> None:
    condition = registry.make(Condition, name)
    for map_ in _stored(name):
        assert np.allclose(condition.warp(map_, Transform(64, 64, 64)).array, map_.array, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(registry.names(Condition)) - {"pose"}))
def test_warp_crops_the_map_as_the_image(name: str) -> None:
    condition, map_ = registry.make(Condition, name), _stored(name)[0]
    cropped = condition.warp(Map(map_.array[:, 16:48]), Transform(64, 32, 32))
    assert cropped.array.dtype == map_.array.dtype
    assert np.allclose(cropped.array, map_.array[16:48, 16:48], atol=1e-6)


def test_warp_moves_keypoints_with_the_pixels() -> None:
    joints = np.full((1, 18, 3), 2, np.float32)
    joints[0, :, 0], joints[0, :, 1] = np.linspace(0, 0.99, 18), 0.25
    wide = registry.make(Condition, "pose").warp(Map(joints), Transform(100, 200, 64)).array[0]
    # 200 x 100 pixels: x in pixels is 200 u; the crop keeps 50 to 150, which become 0 to 1.
    assert np.allclose(wide[:, 0], (200 * joints[0, :, 0] - 50) / 100, atol=1e-5)
    assert np.allclose(wide[:, 1], 0.25)
    assert np.array_equal(wide[:, 2] == 2, (wide[:, 0] >= 0) & (wide[:, 0] < 1))


@every_condition
def test_the_referee_reads_the_condition(name: str) -> None:
    condition = registry.make(Condition, name)
    referee = registry.make(Annotator, condition.referee)
    renders = _renders(48)
    images = np.stack([render.image for render in renders])
    truth = referee.annotate(images) if condition.annotator else [Map(exact(render, name)) for render in renders]
    found = referee.annotate(images)
    assert referee.condition == name
    assert [m.array.dtype for m in found] == [m.array.dtype for m in truth]
    scores = condition.scores(_rows(condition, list(zip(truth, found, strict=True))).sum(axis=0))
    value = float(scores[condition.headline])
    assert value <= _READS[name] if condition.headline in condition.errors else value >= _READS[name]


@every_condition
def test_a_condition_can_be_described_and_made_again(name: str) -> None:
    condition = registry.make(Condition, name)
    assert registry.remake(Condition, registry.describe(condition)) == condition


@pytest.mark.parametrize("name", registry.names(Condition))
def test_the_class_says_what_a_map_is(name: str) -> None:
    assert "Map:" in (inspect.getdoc(type(registry.make(Condition, name))) or "")


@every_condition
def test_maps_have_the_declared_form_and_others_have_not(name: str) -> None:
    condition = registry.make(Condition, name)
    form, array = condition.form, _maps(name)[0].array
    assert all(condition.check(map_, 64) is None for map_ in _maps(name))
    assert f"not {form.dtype}" in (condition.check(Map(array.astype(np.int8)), 64) or "")
    assert f"is {form.dtype}" in (condition.check(Map(array[None]), 64) or "")
    if "H" in form.axes:
        assert "not" in (condition.check(Map(array), 63) or "")
    if form.dtype == "float32":
        assert "nan" in (condition.check(Map(np.where(array == array.max(), np.nan, array).astype("f4")), 64) or "")
    if np.isfinite(form.high) and form.dtype != "bool":
        assert "outside" in (condition.check(Map(np.full_like(array, form.high + 1)), 64) or "")


@every_condition
def test_values_mix_in_resizing_only_where_that_is_declared(name: str) -> None:
    condition, map_ = registry.make(Condition, name), _maps(name)[0]
    if condition.form.interpolation == "points":
        return
    smaller = condition.warp(map_, Transform(64, 64, 48)).array
    axis = None if map_.array.ndim == 2 else 0
    mixes = len(np.setdiff1d(smaller.ravel(), map_.array.ravel())) > 0
    there = np.unique(map_.array.reshape(-1, *map_.array.shape[2:]), axis=axis)
    assert mixes == (condition.form.interpolation == "area")
    if mixes:
        assert smaller.mean() == pytest.approx(map_.array.mean(), abs=1 / 255)
    else:
        assert {v.tobytes() for v in smaller.reshape(48 * 48, -1)} <= {v.tobytes() for v in there}


@every_condition
def test_conditioning_images_hold_the_declared_channels(name: str) -> None:
    condition = registry.make(Condition, name)
    shown = condition.render(_maps(name)[0], 64)
    assert (np.ptp(shown, axis=2).max() == 0) == (len(condition.form.channels) == 1)


@pytest.mark.parametrize("name", ["canny", "lineart", "lines", "scribble", "softedge"])
def test_black_on_white_is_noticed(name: str) -> None:
    condition, maps = registry.make(Condition, name), _maps(name)
    inverted = [Map(~m.array if m.array.dtype == bool else 1 - m.array) for m in maps]
    assert condition.turned(maps) is None
    assert "white on black" in (condition.turned(inverted) or "")
    assert np.mean([condition.render(m, 64) for m in maps]) < 127


def test_normals_that_face_away_or_are_too_long_are_noticed() -> None:
    condition, maps = registry.make(Condition, "normal"), _maps("normal")
    assert condition.turned(maps) is None
    assert "face away" in (condition.turned([Map(-m.array) for m in maps]) or "")
    assert "length 1" in (condition.check(Map(0.9 * maps[0].array), 64) or "")


def test_joints_seen_outside_the_image_and_unknown_visibilities_are_noticed() -> None:
    condition, figure = registry.make(Condition, "pose"), np.full((1, 18, 3), 0.5, np.float32)
    assert "visibilities" in (condition.check(Map(figure), 64) or "")
    figure[..., 2] = 2
    assert condition.check(Map(figure), 64) is None
    figure[0, 3, 0] = 40  # pixels
    assert "units of the image's side" in (condition.check(Map(figure), 64) or "")
    figure[0, 3, 2] = 0
    assert condition.check(Map(figure), 64) is None


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
    assert scores["mean_accuracy"] == pytest.approx(recall_score(truth, found, average="macro"))


def test_seg_classes_that_occur_nowhere_do_not_count() -> None:
    reference, predicted = Map(np.array([[0, 0], [2, 2]], np.uint16)), Map(np.array([[0, 2], [2, 2]], np.uint16))
    assert _seg_scores([(reference, predicted)]) == pytest.approx(
        {"miou": (1 / 2 + 2 / 3) / 2, "foreground_miou": 2 / 3, "pixel_accuracy": 3 / 4, "mean_accuracy": 3 / 4}
    )


def test_a_seg_class_that_is_predicted_alone_counts_against_iou_and_has_no_accuracy() -> None:
    reference, predicted = Map(np.array([[0, 0], [2, 2]], np.uint16)), Map(np.array([[0, 3], [2, 2]], np.uint16))
    scores = _seg_scores([(reference, predicted)])
    assert scores["miou"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert scores["mean_accuracy"] == pytest.approx((1 / 2 + 1) / 2)


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
    with pytest.raises(ValueError, match="class id 7 outside palette scenes of 7"):
        registry.make(Condition, "seg").encode(Map(np.full((4, 4), 7, np.uint16)))


@pytest.mark.parametrize("side", [0, 1])
def test_seg_compares_no_ids_outside_its_palette(side: int) -> None:
    pair: list[Any] = [Map(np.zeros((4, 4), np.uint16)), Map(np.zeros((4, 4), np.uint16))]
    pair[side] = Map(np.full((4, 4), 7, np.uint16))
    with pytest.raises((ValueError, UserError), match="outside"):
        registry.make(Condition, "seg").compare(*pair)


def test_seg_refuses_an_unknown_palette() -> None:
    with pytest.raises(UserError, match='no palette "scene"; did you mean "scenes"'):
        registry.make(Condition, "seg,palette=scene")


def _scores(name: str, reference: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    condition = registry.make(Condition, name)
    row = condition.compare(Map(reference), Map(predicted))
    return {score: float(value) for score, value in condition.scores(row).items()}


def test_ssim_agrees_with_scikit_image() -> None:
    rng = np.random.default_rng(3)
    for map_ in _maps("softedge"):
        noisy = np.clip(map_.array + rng.normal(0, 0.2, map_.array.shape), 0, 1).astype(np.float32)
        a, b = map_.array.astype(np.float64), noisy.astype(np.float64)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        _, local = structural_similarity(a, b, full=True, **options)
        ours = _scores("softedge", map_.array, noisy)["ssim"]
        assert ours == pytest.approx(local[5:-5, 5:-5].mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("side", "name"),
    [(43, None), (44, "ms_ssim_3scales"), (175, "ms_ssim_3scales"), (176, "ms_ssim"), (256, "ms_ssim")],
)
def test_ms_ssim_has_a_name_of_its_own_where_the_map_is_too_small_for_five_scales(side: int, name: str | None) -> None:
    maps = np.random.default_rng(0).random((2, side, side)).astype(np.float32)
    assert set(_scores("softedge", *maps)) == {"ssim", "absolute_error", name} - {None}
    if name:
        assert _scores("softedge", maps[0], maps[0])[name] == pytest.approx(1.0)


def test_depth_scores_agree_with_numpy_and_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    for map_ in _maps("depth"):
        d = map_.array.astype(np.float64)
        p = (d * rng.uniform(0.7, 1.5, d.shape)).astype(np.float32)
        scores = _scores("depth", map_.array, p)
        assert scores["absrel"] == pytest.approx(mean_absolute_percentage_error(d.ravel(), p.ravel()), rel=1e-6)
        assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((d - p) ** 2)), rel=1e-6)
        inside = (p / d < 1.25) & (d / p < 1.25)
        assert scores["delta_1.25"] == pytest.approx(inside.mean(), abs=1e-3)
        truth = ((1 / d) - (1 / d).min()) / np.ptp(1 / d)
        system = np.stack([1 / p.astype(np.float64).ravel(), np.ones(p.size)], axis=1)
        (_, residual, _, _) = np.linalg.lstsq(system, truth.ravel(), rcond=None)
        assert scores["aligned_rmse"] == pytest.approx(np.sqrt(residual[0] / p.size), rel=1e-6)


def test_depth_aligned_error_ignores_scale_and_shift_of_inverse_depth() -> None:
    d = _maps("depth")[0].array.astype(np.float64)
    assert _scores("depth", d, 1 / (0.3 / d + 0.05))["aligned_rmse"] == pytest.approx(0.0, abs=1e-9)
    inverse = (1 / d - (1 / d).min()) / np.ptp(1 / d)
    assert _scores("depth", d, np.full_like(d, 4.0))["aligned_rmse"] == pytest.approx(inverse.std())


def test_relative_depth_scores_agree_with_numpy() -> None:
    rng = np.random.default_rng(6)
    for map_ in _maps("relative_depth"):
        guess = (map_.array * rng.uniform(0.6, 1.0, map_.array.shape)).astype(np.float32)
        a, b = (((x - x.min()) / np.ptp(x)).ravel() for x in (map_.array.astype(float), guess.astype(float)))
        (_, residual, _, _) = np.linalg.lstsq(np.stack([b, np.ones(b.size)], axis=1), a)
        scores = _scores("relative_depth", map_.array, guess)
        assert scores["aligned_rmse"] == pytest.approx(np.sqrt(residual[0] / a.size), rel=1e-6)
        assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), rel=1e-6)


def test_relative_depth_is_that_of_depth_without_its_scale() -> None:
    relative, metres = registry.make(Condition, "relative_depth"), registry.make(Condition, "depth")
    for map_, depth in zip(_maps("relative_depth"), _maps("depth"), strict=True):
        assert map_.array.max() == 1
        assert np.allclose(map_.array * depth.array, depth.array.min(), rtol=1e-5)
        difference = relative.render(map_, 64).astype(int) - metres.render(depth, 64)
        assert np.abs(difference).max() <= 1
    flat = Map(np.full((8, 8), 0.5, np.float32))
    assert relative.render(flat, 8).max() == 0
    assert _scores("relative_depth", flat.array, flat.array) == {"aligned_rmse": 0, "rmse": 0}


def test_depth_is_bright_near_and_dark_far() -> None:
    map_ = _maps("depth")[0]
    shown = registry.make(Condition, "depth").render(map_, 64)[..., 0]
    assert shown[np.unravel_index(map_.array.argmin(), (64, 64))] == 255
    assert shown[np.unravel_index(map_.array.argmax(), (64, 64))] == 0
    assert registry.make(Condition, "depth").render(Map(np.full((8, 8), 3, np.float32)), 8).max() == 0


@pytest.mark.parametrize("value", [-1.0, 0.0, 66.0, np.nan])
def test_depth_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.001 to 65\.535 m"):
        registry.make(Condition, "depth").encode(Map(np.full((4, 4), value, np.float32)))


@pytest.mark.parametrize("degrees", [5.0, 11.0, 12.0, 40.0])
def test_normals_turned_by_an_angle_are_off_by_that_angle(degrees: float) -> None:
    rng = np.random.default_rng(7)
    for map_ in _maps("normal"):
        n = map_.array.reshape(-1, 3).astype(np.float64)
        axis = np.cross(n, rng.normal(size=n.shape))
        axis *= np.radians(degrees) / np.linalg.norm(axis, axis=1, keepdims=True)
        turned = Rotation.from_rotvec(axis).apply(n).reshape(map_.array.shape)
        scores = _scores("normal", map_.array, turned)
        assert scores["mean_degrees"] == pytest.approx(degrees, abs=0.01)
        assert scores["within_11.25_degrees"] == float(degrees < 11.25)
        assert scores["within_30_degrees"] == float(degrees < 30)


def test_normals_are_shown_as_the_field_shows_them() -> None:
    right, up, viewer = np.eye(3, dtype=np.float32)
    shown = registry.make(Condition, "normal").render(Map(np.array([[right, up], [viewer, -up]])), 2)
    assert shown.tolist() == [[[255, 128, 128], [128, 255, 128]], [[128, 128, 255], [128, 0, 128]]]


def test_scribbles_are_thicker_than_the_outlines_they_cover() -> None:
    for render, strokes in zip(_renders(), _maps("scribble"), strict=True):
        outline = render.boundary == 1.0
        assert strokes.array[outline].mean() > 0.9
        assert strokes.array.sum() > 1.2 * outline.sum()
        assert strokes.array.mean() < 0.6


def test_lines_lie_within_a_pixel_of_the_segments() -> None:
    for render, lines in zip(_renders(), _maps("lines"), strict=True):
        rows, columns = np.nonzero(lines.array)
        points = np.stack([columns + 0.5, rows + 0.5], axis=1)
        a, b = render.segments[:, :2], render.segments[:, 2:]
        along = np.clip(((points[:, None] - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
        distance = np.linalg.norm(points[:, None] - (a + along[..., None] * (b - a)), axis=-1).min(axis=1)
        assert distance.max() < 1.0
        for share in (0.25, 0.5, 0.75):
            x, y = (a + share * (b - a)).T.astype(int)
            assert cv2.dilate(lines.array.astype(np.uint8), np.ones((3, 3)))[y, x].all()


def _figure() -> NDArray[np.float32]:
    return _maps("pose")[0].array[:1].copy()


def test_joints_shifted_by_less_than_a_tenth_of_the_height_are_found() -> None:
    figure = _figure()
    figure[..., 2] = 2
    height = np.ptp(figure[0, :, 1])
    for share, found in ((0.09, 1.0), (0.11, 0.0)):
        assert _scores("pose", figure, figure + np.array([share * height, 0, 0]))["pck"] == found


def test_joints_with_left_and_right_exchanged_are_not_found() -> None:
    figure = _figure()
    figure[..., 2] = 2
    figure[0, :, 1] = np.linspace(0.2, 0.8, 18)
    figure[0, :, 0] = 0.5 + 0.2 * np.array([-("right" in n) + ("left" in n) for n in KEYPOINTS])
    other = {"right": "left", "left": "right"}
    swapped = [KEYPOINTS.index("_".join(other.get(word, word) for word in name.split("_"))) for name in KEYPOINTS]
    middle = sum("_" not in name for name in KEYPOINTS)
    assert _scores("pose", figure, figure[:, swapped])["pck"] == pytest.approx(middle / 18)


def test_hidden_joints_are_neither_asked_for_nor_drawn() -> None:
    condition, figure = registry.make(Condition, "pose"), _figure()
    figure[..., 2] = 1
    assert condition.render(Map(figure), 64).max() == 0
    assert condition.compare(Map(figure), Map(figure))[1] == 0


def test_missing_and_added_figures_are_counted() -> None:
    figure, none = _figure(), np.zeros((0, 18, 3), np.float32)
    figure[..., 2] = 2
    assert _scores("pose", figure, none) == {"pck": 0.0, "figures_wrong": 1.0, "oks": 0.0}
    assert _scores("pose", figure, np.concatenate([figure, figure])) == {"pck": 1.0, "figures_wrong": 1.0, "oks": 1.0}
    assert _scores("pose", none, figure)["figures_wrong"] == 1.0


def test_no_figure_is_a_black_picture_that_is_kept() -> None:
    condition, none = registry.make(Condition, "pose"), Map(np.zeros((0, 18, 3), np.float32))
    assert condition.render(none, 64).max() == 0
    assert condition.decode(condition.encode(none)).array.shape == (0, 18, 3)


def test_right_and_left_limbs_have_colours_of_their_own() -> None:
    condition, figure = registry.make(Condition, "pose"), np.zeros((1, 18, 3), np.float32)
    pictures = []
    for side in ("right", "left"):
        for k, name in enumerate(("elbow", "wrist")):
            figure[0, KEYPOINTS.index(f"{side}_{name}")] = 0.2 + 0.6 * k, 0.5, 2
        pictures.append(condition.render(Map(figure), 64)[32, 32])
        figure[:] = 0
    assert not np.array_equal(*pictures)


def test_an_unknown_kind_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match='scenes reads no "dpeth"; did you mean "depth"'):
        registry.make(Annotator, "scenes:dpeth")


@every_condition
def test_a_stored_map_is_read_from_a_column_as_it_was(name: str) -> None:
    condition = registry.make(Condition, name)
    for map_ in _maps(name):
        data = condition.encode(map_)
        parsed = condition.parse(data).array
        assert np.array_equal(parsed, condition.decode(data).array)
        assert parsed.dtype == map_.array.dtype


def test_the_palette_of_ade20k_is_that_of_controlnet_aux() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux.util import ade_palette
    assert np.array_equal(PALETTES["ade20k"].colours[:150], ade_palette())
    assert PALETTES["ade20k"].colours[150:].tolist() == [[0, 0, 0]]


def test_the_colours_of_cocostuff_are_those_of_voc_and_all_differ() -> None:
    """The published colours of classes 1 (aeroplane), 2, 3, 15 (person), 20 (monitor) and of the void border, 255."""
    published = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {number: voc_colour(number) for number in published} == published
    assert [voc_colour(0), voc_colour(255)] == [(0, 0, 0), (224, 224, 192)]
    colours = PALETTES["cocostuff"].colours
    assert len(np.unique(colours, axis=0)) == len(colours) == 183


def test_unlabelled_pixels_are_scored_by_nobody() -> None:
    """Labelled pixels alone, scored by scikit-learn; a guess of unlabelled is a miss."""
    rng = np.random.default_rng(3)
    truth, guess = (rng.integers(0, 151, (64, 64)).astype(np.uint16) for _ in range(2))
    guess[:40] = truth[:40]
    condition = registry.make(Condition, "seg,palette=ade20k")
    scores = condition.scores(condition.compare(Map(truth), Map(guess)))
    known = truth < 150
    expected = jaccard_score(truth[known], guess[known], labels=range(150), average="macro", zero_division=0)
    assert scores["miou"] == pytest.approx(expected)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(truth[known], guess[known]))


def test_no_bundled_referee_pretends_to_know_other_classes() -> None:
    with pytest.raises(UserError, match="no bundled referee knows the classes of palette ade20k; give --referee"):
        _ = registry.make(Condition, "seg,palette=ade20k").referee


def _png(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    PictureFile.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


_GREY = np.tile(np.arange(0, 128, 2, dtype=np.uint8), (8, 1))


@pytest.mark.parametrize(
    ("spec", "array", "told"),
    [
        (
            "seg",
            np.full((4, 4, 3), (1, 2, 3), np.uint8),
            r"16 pixels in 1 colours that palette scenes lacks, such as \(1",
        ),
        ("seg", np.full((4, 4), 7, np.uint8), "16 pixels of labels beyond the 7 classes"),
        ("seg", np.full((4, 4), 255, np.uint8), "16 unlabelled pixels; palette scenes has no id for them"),
        ("seg", np.full((4, 4, 4), 9, np.uint8), "transparent"),
        ("canny", _GREY, "504 pixels between black and white; --cond softedge keeps such levels"),
        ("canny", np.full((4, 4), 255, np.uint8), "the picture seems inverted"),
        ("softedge", 255 - _GREY, "the picture seems inverted"),
        ("softedge", np.full((4, 4, 3), (1, 2, 3), np.uint8), "16 pixels with a colour, where grey is meant"),
        ("softedge", np.full((4, 4), 300, np.uint16), "16 bits, where 8 are meant"),
        ("depth", np.zeros((4, 4), np.uint16), "16 pixels of 0 mm, which is no depth"),
        ("depth", _GREY, "a picture of 8 bits, .* --cond relative_depth has no scale"),
        ("relative_depth", np.full((4, 4, 3), (1, 2, 3), np.uint8), "16 pixels with a colour"),
        ("depth", np.full((4, 4, 3), (1, 2, 3), np.uint8), "16 pixels with a colour"),
        ("normal", np.full((4, 4, 3), 255, np.uint8), "16 pixels whose colour is no direction"),
        ("normal", _GREY, "grey levels or labels"),
        ("pose", np.zeros((4, 4, 3), np.uint8), "a drawing of figures without keypoints in it"),
    ],
)
def test_a_picture_that_cannot_be_read_for_certain_is_refused(spec: str, array: NDArray[Any], told: str) -> None:
    with pytest.raises(BadImage, match=told):
        registry.make(Condition, spec).parse(_png(array))


def test_a_lossy_copy_of_a_label_picture_is_refused_not_guessed() -> None:
    condition = registry.make(Condition, "seg")
    buffer = io.BytesIO()
    PictureFile.fromarray(condition.render(_maps("seg")[0], 64)).save(buffer, "JPEG", quality=95)
    with pytest.raises(BadImage, match="a lossy or scaled picture cannot be read back"):
        condition.parse(buffer.getvalue())


def test_depth_pictures_keep_their_polarity_and_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    condition = registry.make(Condition, "relative_depth")
    map_ = condition.decode(condition.encode(condition.parse(_png(levels))))
    assert np.allclose(map_.array, levels / 255, atol=1e-5)
    assert np.array_equal(condition.render(map_, 16)[..., 0], levels)
    metres = registry.make(Condition, "depth").parse(_png(np.full((4, 4), 2500, np.uint16))).array
    assert metres == pytest.approx(2.5)
