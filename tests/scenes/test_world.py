"""The world: scene i is a pure function of (seed, i), and what it draws stands apart, in view and on the ground."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from benchmark.scenes import splits
from benchmark.scenes.palette import (
    COLOURS,
    FABRICS,
    GROUNDS,
    HAIRS,
    KINDS,
    MATERIALS,
    PERSON,
    SIZES,
    SKINS,
    SOLIDS,
    STATURES,
    WALLS,
)
from benchmark.scenes.render import render
from benchmark.scenes.splits import SPLIT_SPAN, SPLITS, example
from benchmark.scenes.world import MAX_OBJECTS, WALL_Z, Camera, Scene, Thing, draw_scene, look_at

Array = Any  # NDArray[np.float64]: NumPy's own types lose it in arithmetic
_LIMBS = (("shoulder", "elbow", 0.036), ("elbow", "wrist", 0.029), ("hip", "knee", 0.052), ("knee", "ankle", 0.040))
_WORDS: dict[str, tuple[Callable[[Scene], list[object]], tuple[object, ...]]] = {
    "count": (lambda scene: [len(scene.things)], (1, 2, 3, 4, 5)),
    "ground": (lambda scene: [scene.ground], tuple(GROUNDS)),
    "wall": (lambda scene: [scene.wall], tuple(WALLS)),
    "kind": (lambda scene: [t.kind for t in scene.things], KINDS),
    "colour": (lambda scene: [t.colour for t in scene.things], tuple(COLOURS)),
    "size of solids": (lambda scene: [t.size for t in scene.things if t.kind != PERSON], tuple(SIZES)),
    "size of figures": (lambda scene: [t.size for t in scene.things if t.kind == PERSON], tuple(STATURES)),
    "material of solids": (lambda scene: [t.material for t in scene.things if t.kind != PERSON], MATERIALS),
    "material of figures": (lambda scene: [t.material for t in scene.things if t.kind == PERSON], FABRICS),
    "skin": (lambda scene: [t.skin for t in scene.things if t.kind == PERSON], tuple(range(len(SKINS)))),
    "hair": (lambda scene: [t.hair for t in scene.things if t.kind == PERSON], tuple(range(len(HAIRS)))),
}


@cache
def _scenes() -> tuple[Scene, ...]:
    return tuple(draw_scene(0, i) for i in range(2000))


def _chance(counts: list[int]) -> float:
    """Probability that even draws are as uneven as these."""
    return float(chisquare(counts).pvalue)


def _project(camera: Camera, points: Array) -> Array:
    """x to the right, y down, both in half images, and depth: a pinhole written out."""
    axes = np.array([camera.right, camera.up, camera.forward])
    across, rise, depth = np.moveaxis((np.asarray(points) - camera.position) @ axes.T, -1, 0)
    return np.stack([across / depth / camera.half_extent, -rise / depth / camera.half_extent, depth], axis=-1)


def _hull(thing: Thing) -> Array:
    """World points whose convex hull holds a thing: corners, rims, or balls around the joints of a figure."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    ring = np.stack([c, 0 * angle, s], axis=-1)
    if thing.pose is not None:
        radii = {f"{side}_{end}": r for a, b, r in _LIMBS for end in (a, b) for side in ("right", "left")}
        ball = np.concatenate([ring, ring[:, [1, 0, 2]], ring[:, [0, 2, 1]]]) * thing.extent
        return np.concatenate([thing.joints[name] + r * ball for name, r in {**radii, "head": 0.07}.items()])
    shapes = {
        "sphere": np.stack([(c[:, None] * c).ravel(), np.repeat(s, 48), (c[:, None] * s).ravel()], axis=-1),
        "cube": np.array([[0.82 * x, y, 0.82 * z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]),
        "cylinder": np.concatenate([0.8 * ring + [0, 1, 0], 0.8 * ring - [0, 1, 0]]),
        "cone": np.concatenate([ring - [0, 1, 0], [[0, 1, 0]]]),
    }
    turn, tilt = np.cos(thing.yaw), np.sin(thing.yaw)  # a right-handed turn about the upward axis
    x, y, z = np.moveaxis(shapes[thing.kind] * thing.extent, -1, 0)
    return np.stack([thing.x + turn * x + tilt * z, thing.extent + y, thing.z - tilt * x + turn * z], axis=-1)


def _footprint(thing: Thing) -> Array:
    """Plan view (x, z) of the convex outline of a solid, or of the soles of a figure."""
    if thing.pose is None:
        return _hull(thing)[:, [0, 2]]
    names = [f"{side}_{end}" for side in ("right", "left") for end in ("ankle", "toe")]
    return np.array([thing.joints[name] for name in names])[:, [0, 2]]


def _gap(a: Array, b: Array) -> float:
    """Largest distance, over 180 directions, by which two convex outlines are separated; negative if they overlap."""
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    directions = np.stack([np.cos(angle), np.sin(angle)])
    return float(((b @ directions).min(axis=0) - (a @ directions).max(axis=0)).max())


def _bones(figure: Thing) -> Array:
    """Points along the arms and legs of a figure."""
    ends = [(f"{side}_{a}", f"{side}_{b}") for a, b, _ in _LIMBS for side in ("right", "left")]
    return np.concatenate([np.linspace(figure.joints[a], figure.joints[b], 9) for a, b in ends])


def _inside(solid: Thing, points: Array) -> Array:
    x, y, z = np.moveaxis((points - [solid.x, solid.extent, solid.z]) / solid.extent, -1, 0)
    x, z = np.cos(solid.yaw) * x - np.sin(solid.yaw) * z, np.sin(solid.yaw) * x + np.cos(solid.yaw) * z
    return {
        "sphere": x * x + y * y + z * z < 1,
        "cube": np.maximum(np.abs(x), np.abs(z)) < 0.82,
        "cylinder": np.hypot(x, z) < 0.8,
        "cone": np.hypot(x, z) < (1 - y) / 2,
    }[solid.kind] & (np.abs(y) < 1)


def test_a_scene_is_a_pure_function_of_seed_and_index() -> None:
    again = {}
    for i in reversed(range(100)):
        draw_scene(1, i + 7)  # what else is drawn, and when, does not matter
        again[i] = draw_scene(0, i)
    assert all(again[i] == _scenes()[i] for i in range(100))


def test_other_seeds_and_indices_give_other_scenes() -> None:
    scenes = [draw_scene(seed, index) for seed in (0, 1, 2) for index in (*range(200), SPLIT_SPAN, SPLIT_SPAN + 1)]
    for part in ("things", "camera", "light", "texture_offset", "tint"):
        assert len({getattr(scene, part) for scene in scenes}) == len(scenes)


@pytest.mark.parametrize("name", _WORDS)
def test_all_words_are_equally_common(name: str) -> None:
    of, words = _WORDS[name]
    counts = Counter(word for scene in _scenes() for word in of(scene))
    assert set(counts) == set(words)
    assert _chance([counts[word] for word in words]) > 1e-3


def test_the_check_of_evenness_notices_a_bias() -> None:
    assert _chance([1200, 1200, 1200, 1200, 1000]) < 1e-3


@pytest.mark.parametrize("pair", [("kind", "colour"), ("kind", "size"), ("colour", "size")])
def test_attributes_are_independent_of_each_other(pair: tuple[str, str]) -> None:
    counts = Counter(tuple(getattr(thing, name) for name in pair) for scene in _scenes() for thing in scene.things)
    rows, columns = (sorted({key[i] for key in counts}) for i in (0, 1))
    assert chi2_contingency([[counts[row, column] for column in columns] for row in rows]).pvalue > 1e-3


def test_every_kind_is_as_common_alone_as_in_company() -> None:
    counts = Counter((len(scene.things), thing.kind) for scene in _scenes() for thing in scene.things)
    table = [[counts[n, kind] for kind in KINDS] for n in range(1, MAX_OBJECTS + 1)]
    assert chi2_contingency(table).pvalue > 1e-3


def test_size_words_tell_extents_apart_within_a_scene() -> None:
    for kinds, sizes in ((SOLIDS, SIZES), ((PERSON,), STATURES)):
        compared = 0
        for scene in _scenes():
            extents = {size: [t.extent for t in scene.things if t.kind in kinds and t.size == size] for size in sizes}
            if extents["small"] and extents["large"]:
                least = sizes["large"] / sizes["small"] * 0.93 / 1.07  # up to 7 % of chance either way
                assert min(extents["large"]) / max(extents["small"]) >= least * (1 - 1e-9)
                compared += 1
        assert compared > 50
        for size in sizes:
            drawn = [t.extent for scene in _scenes() for t in scene.things if t.kind in kinds and t.size == size]
            assert 0.5 * sizes[size] < min(drawn)
            assert max(drawn) < 1.25 * sizes[size]


def test_things_stand_on_the_ground_and_before_the_wall() -> None:
    for scene in _scenes():
        for thing in scene.things:
            points = _hull(thing)
            sink = 0.002 * thing.extent if thing.pose else 1e-9  # a toe may press in by two millimetres a metre
            assert -sink <= points[:, 1].min() <= sink + 0.02 * thing.extent * (thing.pose is not None)
            assert points[:, 2].min() > WALL_Z


def test_things_stand_apart() -> None:
    pairs = [(a, b) for scene in _scenes() for i, a in enumerate(scene.things) for b in scene.things[:i]]
    gaps = np.array([_gap(_footprint(a), _footprint(b)) for a, b in pairs])
    figures = np.array([PERSON in (a.kind, b.kind) for a, b in pairs])
    assert len(pairs) > 5000
    assert gaps[~figures].min() > 0.05
    assert np.mean(gaps[figures] > 0.0) > 0.998  # a wide stride may step beside something


def test_limbs_hardly_ever_reach_into_a_solid() -> None:
    touches = []
    for scene in _scenes():
        bones = [_bones(thing) for thing in scene.things if thing.pose]
        touches += [_inside(solid, points).any() for points in bones for solid in scene.things if not solid.pose]
    assert len(touches) > 2000
    assert np.mean(touches) < 0.005


def test_the_check_of_reaching_in_notices_a_limb_in_a_solid() -> None:
    figure = next(thing for scene in _scenes() for thing in scene.things if thing.pose)
    for kind in SOLIDS:
        solid = Thing(kind, "red", "small", "matte", figure.extent / 2, figure.x, figure.z, 1.0)
        assert _inside(solid, _bones(figure)).any()
        assert not _inside(replace(solid, x=figure.x + 3 * figure.extent), _bones(figure)).any()


def test_the_check_of_gaps_is_the_distance_of_two_discs() -> None:
    disc = _footprint(Thing("cone", "red", "small", "matte", 0.5))
    assert _gap(disc, disc + np.array([1.2, 0.0])) == pytest.approx(0.2, abs=0.01)
    assert _gap(disc, disc + np.array([0.5, 0.5])) == pytest.approx(2**-0.5 - 1, abs=0.01)


def test_things_are_in_view() -> None:
    reaches = []
    for scene in _scenes():
        for thing in scene.things:
            x, y, depth = np.moveaxis(_project(scene.camera, _hull(thing)), -1, 0)
            assert depth.min() > 1.0
            middle = np.array([x.max() + x.min(), y.max() + y.min()]) / 2
            assert np.abs(middle).max() < 0.95
            reaches.append(max(np.abs(x).max(), np.abs(y).max()))
    assert np.mean(np.array(reaches) > 1.0) < 0.025  # the near corners of a few are cut off
    assert max(reaches) < 1.3


def test_no_thing_is_nearly_hidden() -> None:
    visible = []
    for scene in _scenes()[:400]:
        counts = np.bincount(render(scene, 64).instance.ravel(), minlength=len(scene.things) + 1)
        visible += counts[1:].tolist()
    assert len(visible) > 1000
    assert np.mean(np.array(visible) >= 12) >= 0.995
    assert min(visible) > 0


def test_the_light_comes_from_above_with_unit_length() -> None:
    for scene in _scenes():
        x, y, z = scene.light.direction
        assert x * x + y * y + z * z == pytest.approx(1.0)
        assert np.sin(np.radians(32)) <= y <= np.sin(np.radians(68))
        assert z > 0  # never from behind the wall
        assert all(0.7 < sun < 1.1 for sun in scene.light.sun)
        assert all(0.2 < sky < 0.42 for sky in scene.light.sky)


def test_cameras_are_right_handed_upright_and_in_front_of_everything() -> None:
    for scene in _scenes():
        c = scene.camera
        axes = np.array([c.right, c.up, c.forward])
        assert np.allclose(axes @ axes.T, np.eye(3))
        assert np.allclose(np.cross(c.right, c.up), -np.array(c.forward))
        assert c.right[1] == pytest.approx(0.0)
        assert c.up[1] > 0
        assert c.forward[1] < 0
        assert c.position[2] > max(_hull(thing)[:, 2].max() for thing in scene.things)
        assert np.degrees(2 * np.arctan(c.half_extent)) == pytest.approx(37.5, abs=2.5)


@pytest.mark.parametrize("seed", range(5))
def test_look_at_puts_its_target_in_the_middle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    position, target, angle = rng.uniform((-3, 1, -3), (3, 7, 3)), rng.uniform(-1, 1, 3), rng.uniform(20, 90)
    camera = look_at(tuple(position), tuple(target), angle)
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    axes = np.array([camera.right, camera.up, camera.forward])
    assert np.allclose(axes, np.array([right, np.cross(right, forward), forward]))
    assert np.allclose(_project(camera, target), np.array([0.0, 0.0, float(np.linalg.norm(target - position))]))
    edge = target + np.linalg.norm(target - position) * np.tan(np.radians(angle / 2)) * right
    assert np.allclose(_project(camera, edge)[:2], [1, 0])  # the angle spans the whole image
    for point in rng.uniform(-1, 1, (20, 3)):
        assert camera.project(tuple(point)) == pytest.approx(tuple(_project(camera, point)))


def test_projection_of_a_camera_on_an_axis_is_by_similar_triangles() -> None:
    camera = look_at((0.0, 0.0, 10.0), (0.0, 0.0, 0.0), 40.0)
    half = np.tan(np.radians(20))
    assert camera.project((0.0, 0.0, 0.0)) == pytest.approx((0, 0, 10))
    assert camera.project((2.0, 0.0, 0.0)) == pytest.approx((2 / (10 * half), 0, 10))  # right is right
    assert camera.project((0.0, 2.0, 5.0)) == pytest.approx((0, -2 / (5 * half), 5))  # up is negative


def test_an_example_is_a_pure_function_of_its_arguments() -> None:
    first = example(3, "test", 5, 32)
    example(3, "train", 5, 32)
    again = example(3, "test", 5, 32)
    assert (first.scene, first.caption) == (again.scene, again.caption)
    assert np.array_equal(first.render.image, again.render.image)


def test_resolution_changes_neither_scene_nor_caption() -> None:
    small, large = example(0, "val", 2, 16), example(0, "val", 2, 64)
    assert small.scene == large.scene
    assert small.caption == large.caption


def test_splits_are_disjoint() -> None:
    scenes = [example(0, split, i, 8).scene.things for split in SPLITS for i in (*range(60), 1_048_575)]
    assert len(set(scenes)) == len(SPLITS) * 61


def test_no_split_reaches_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[int, int]] = []
    scene = _scenes()[0]

    def note(seed: int, index: int) -> Scene:
        used.append((seed, index))
        return scene

    monkeypatch.setattr(splits, "draw_scene", note)
    edges = (0, 1, SPLIT_SPAN - 1)
    for split in SPLITS:
        for i in edges:
            example(7, split, i, 8)
    assert {seed for seed, _ in used} == {7}
    indices = [index for _, index in used]
    assert indices == sorted(set(indices))  # each split's last before the next one's first
    assert SPLIT_SPAN > 1_000_000_000
    assert indices[-1] < 1 << 64


def test_a_scene_can_be_built_by_hand() -> None:
    scene = replace(_scenes()[0], things=(Thing("cube", "red", "small", "matte", 0.5, yaw=0.3),))
    assert scene.things[0].centre == pytest.approx((0.0, 0.5, 0.0))
    assert scene.things[0].joints == {}
