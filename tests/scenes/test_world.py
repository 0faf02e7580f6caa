"""The world: scene i is a pure function of (seed, i), and what it draws stands apart, in view and on the ground."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.scenes.palette import COLOURS, GROUNDS, KINDS, MATERIALS, SIZES, WALLS
from benchmark.scenes.splits import SPLIT_SPAN, SPLITS, example
from benchmark.scenes.world import FIELD_OF_VIEW_DEGREES, WALL_Z, Scene, draw_scene, look_at

_SCENES = [draw_scene(0, i) for i in range(400)]


def _same(a: Scene, b: Scene) -> bool:
    words = a.solids == b.solids and (a.ground, a.wall) == (b.ground, b.wall)
    return words and np.array_equal(_numbers(a), _numbers(b))


def _numbers(scene: Scene) -> NDArray[np.float64]:
    c = scene.camera
    return np.array([*c.position, *c.right, *c.up, *c.forward, *scene.light, scene.ambient, *scene.texture_offset])


def test_a_scene_is_a_pure_function_of_seed_and_index() -> None:
    again = {i: draw_scene(0, i) for i in reversed(range(50))}
    assert all(_same(again[i], _SCENES[i]) for i in range(50))


def test_other_seeds_and_indices_give_other_scenes() -> None:
    scenes = [draw_scene(seed, index) for seed in (0, 1) for index in (*range(100), SPLIT_SPAN, SPLIT_SPAN + 1)]
    assert len({scene.solids for scene in scenes}) == len(scenes)


def test_an_example_is_a_pure_function_of_its_arguments() -> None:
    first = example(3, "test", 5, 32)
    example(3, "train", 5, 32)
    again = example(3, "test", 5, 32)
    assert first.caption == again.caption
    assert np.array_equal(first.render.image, again.render.image)


def test_splits_are_disjoint() -> None:
    scenes = [example(0, split, i, 8).scene.solids for split in SPLITS for i in (*range(60), 1_048_575)]
    assert len(set(scenes)) == len(SPLITS) * 61


def test_no_split_reaches_into_the_next() -> None:
    first_of_next = example(0, SPLITS[1], 0, 8).scene
    assert _same(draw_scene(0, SPLIT_SPAN), first_of_next)
    assert SPLIT_SPAN > 1_000_000_000
    assert len(SPLITS) * SPLIT_SPAN < 1 << 64


def test_resolution_changes_no_scene() -> None:
    small, large = example(0, "val", 2, 16), example(0, "val", 2, 64)
    assert _same(small.scene, large.scene)
    assert small.caption == large.caption


def test_every_word_of_the_vocabulary_is_common() -> None:
    solids = [solid for scene in _SCENES for solid in scene.solids]
    used = [("kind", KINDS), ("colour", tuple(COLOURS)), ("size", tuple(SIZES)), ("material", MATERIALS)]
    for name, words in used:
        counts = np.array([sum(getattr(solid, name) == word for solid in solids) for word in words])
        assert counts.sum() == len(solids)
        assert counts.min() > 0.5 * len(solids) / len(words)
    assert {scene.ground for scene in _SCENES} == set(GROUNDS)
    assert {scene.wall for scene in _SCENES} == set(WALLS)


def test_one_two_and_three_solids_are_equally_common() -> None:
    counts = np.bincount([len(scene.solids) for scene in _SCENES])
    assert len(counts) == 4
    assert counts[0] == 0
    assert counts[1:].min() > 100


def test_size_words_tell_radii() -> None:
    for scene in _SCENES:
        for solid in scene.solids:
            assert solid.radius == pytest.approx({"small": 0.55, "large": 0.9}[solid.size], rel=0.1001)


def test_solids_stand_on_the_ground_before_the_wall_and_apart() -> None:
    for scene in _SCENES:
        for i, a in enumerate(scene.solids):
            assert a.centre[1] - a.radius == pytest.approx(0.0, abs=1e-12)
            assert a.z - a.radius > WALL_Z
            for b in scene.solids[i + 1 :]:
                assert np.hypot(a.x - b.x, a.z - b.z) > a.radius + b.radius


def test_centres_are_in_view_with_room_around_them() -> None:
    for scene in _SCENES:
        for solid in scene.solids:
            x, y, depth = scene.camera.project(solid.centre)
            assert depth > 0
            assert max(abs(x), abs(y)) < 1 - solid.radius / (depth * np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2)))


def test_the_light_comes_from_above_with_unit_length() -> None:
    for scene in _SCENES:
        assert np.linalg.norm(scene.light) == pytest.approx(1.0)
        assert scene.light[1] > 0.5
        assert 0.22 <= scene.ambient < 0.36


def test_camera_axes_are_orthonormal_right_handed_and_upright() -> None:
    for scene in _SCENES[:50]:
        c = scene.camera
        assert np.allclose(np.stack([c.right, c.up, -c.forward]) @ np.stack([c.right, c.up, -c.forward]).T, np.eye(3))
        assert np.allclose(np.cross(c.right, c.up), -c.forward)
        assert c.right[1] == pytest.approx(0.0)
        assert c.up[1] > 0


def test_projection_of_a_camera_on_an_axis_is_by_similar_triangles() -> None:
    camera = look_at(np.array([0.0, 0.0, 10.0]), np.zeros(3))
    half = np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2))
    assert camera.project(np.zeros(3)) == pytest.approx((0, 0, 10))
    assert camera.project(np.array([2.0, 0.0, 0.0])) == pytest.approx((2 / (10 * half), 0, 10))  # right is right
    assert camera.project(np.array([0.0, 2.0, 5.0])) == pytest.approx((0, -2 / (5 * half), 5))  # up is negative
