"""The renderer's truth, proved against implicit surfaces and projections that know nothing of its ray casting."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmark.scenes.palette import KINDS, SEG_CLASSES, SEG_COLOURS
from benchmark.scenes.render import Render, render
from benchmark.scenes.world import FIELD_OF_VIEW_DEGREES, WALL_Z, Scene, Solid, draw_scene, look_at

Array = Any  # NDArray[np.float64]: NumPy's own types lose it in arithmetic
_INDICES = range(24)
_SIDE = 48
_SCENES = [draw_scene(11, i) for i in _INDICES]
_RENDERS = [render(scene, _SIDE) for scene in _SCENES]
_PAIRS = list(zip(_SCENES, _RENDERS, strict=True))


def _rays(scene: Scene, side: int) -> Array:
    """World directions (side, side, 3) through pixel centres, one metre long along the optical axis."""
    camera = scene.camera
    ticks = ((np.arange(side) + 0.5) / side * 2 - 1) * np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2))
    return camera.forward + ticks[None, :, None] * camera.right - ticks[:, None, None] * camera.up


def _points(scene: Scene, depth: NDArray[np.float32]) -> Array:
    return scene.camera.position + depth.astype(np.float64)[..., None] * _rays(scene, len(depth))


def _gauge(solid: Solid, points: Array) -> Array:
    """Implicit function of a solid: below 1 inside, 1 on the surface; lengths in radii."""
    x, y, z = np.moveaxis((points - solid.centre) / solid.radius, -1, 0)
    c, s = np.cos(solid.yaw), np.sin(solid.yaw)
    x, z = c * x - s * z, s * x + c * z  # undoes a right-handed turn by yaw about the upward axis
    if solid.kind == "sphere":
        return np.sqrt(x**2 + y**2 + z**2)
    if solid.kind == "cube":
        return np.maximum.reduce([np.abs(x) / 0.82, np.abs(y), np.abs(z) / 0.82])
    if solid.kind == "cylinder":
        return np.maximum(np.hypot(x, z) / 0.8, np.abs(y))
    return np.maximum(np.hypot(x, z) + (y + 1) / 2, -y)  # a cone: base radius 1 at -1, apex at 1


def _gradient(solid: Solid, points: Array) -> Array:
    step = 1e-5
    shifts = [_gauge(solid, points + step * axis) - _gauge(solid, points - step * axis) for axis in np.eye(3)]
    gradient = np.stack(shifts, axis=-1)
    return gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)


def _to_camera(scene: Scene, vectors: Array) -> Array:
    return vectors @ np.stack([scene.camera.right, scene.camera.up, -scene.camera.forward]).T


def _stage(*solids: Solid, light: tuple[float, float, float] = (0.0, 0.8, 0.6)) -> Scene:
    camera = look_at(np.array([0.0, 2.6, 6.0]), np.array([0.0, 0.5, 0.0]))
    return Scene(solids, "sandy", "grey", camera, np.array(light), 0.3, (0.0, 0.0))


def _solid(kind: str, colour: str, x: float, z: float = 0.0, yaw: float = 0.4) -> Solid:
    return Solid(kind, colour, "small", "matte", 0.55, x, z, yaw)


def test_maps_have_the_shapes_and_types_they_promise() -> None:
    out = render(_SCENES[0], 40)
    described = {name: (getattr(out, name).shape, str(getattr(out, name).dtype)) for name in vars(out)}
    assert described == {
        "image": ((40, 40, 3), "uint8"),
        "seg": ((40, 40), "uint16"),
        "instance": ((40, 40), "uint16"),
        "depth": ((40, 40), "float32"),
        "normal": ((40, 40, 3), "float32"),
    }


def test_rendering_again_gives_the_same_bits() -> None:
    again = render(_SCENES[3], _SIDE)
    for name in ("image", "seg", "instance", "depth", "normal"):
        assert np.array_equal(getattr(again, name), getattr(_RENDERS[3], name))


@pytest.mark.parametrize(("scene", "out"), _PAIRS)
def test_every_solid_pixel_lies_on_the_surface_of_its_solid(scene: Scene, out: Render) -> None:
    points = _points(scene, out.depth)
    for k, solid in enumerate(scene.solids):
        mine = out.instance == k + 1
        assert mine.sum() > 20
        assert np.abs(_gauge(solid, points[mine]) - 1).max() < 1e-5


@pytest.mark.parametrize(("scene", "out"), _PAIRS)
def test_nothing_stands_between_the_camera_and_what_is_seen(scene: Scene, out: Render) -> None:
    for share in np.linspace(0.3, 0.9995, 120):
        points = _points(scene, out.depth * np.float32(share))
        assert points[..., 1].min() > 0
        assert points[..., 2].min() > WALL_Z
        assert all(_gauge(solid, points).min() > 1 - 1e-3 for solid in scene.solids)


@pytest.mark.parametrize(("scene", "out"), _PAIRS)
def test_floor_and_wall_have_the_depth_of_their_planes(scene: Scene, out: Render) -> None:
    position, rays = scene.camera.position, _rays(scene, _SIDE)
    floor, wall = (out.seg == SEG_CLASSES.index(name) for name in ("floor", "wall"))
    assert floor.sum() > 100
    assert out.depth[floor] == pytest.approx(-position[1] / rays[floor][:, 1], rel=1e-6)
    assert out.depth[wall] == pytest.approx((WALL_Z - position[2]) / rays[wall][:, 2], rel=1e-6)
    assert np.array_equal(out.instance == 0, floor | wall)


@pytest.mark.parametrize(("scene", "out"), _PAIRS)
def test_classes_are_the_kinds_of_the_instances(scene: Scene, out: Render) -> None:
    names = np.array(SEG_CLASSES)[out.seg]
    for k, solid in enumerate(scene.solids):
        assert set(names[out.instance == k + 1]) == {solid.kind}
    assert set(names[out.instance == 0]) <= {"wall", "floor"}


def test_every_class_has_its_own_colour() -> None:
    assert ("wall", "floor", *KINDS) == SEG_CLASSES
    assert len(set(SEG_COLOURS)) == len(SEG_CLASSES)


@pytest.mark.parametrize(("scene", "out"), _PAIRS)
def test_normals_are_unit_vectors_that_face_the_camera(scene: Scene, out: Render) -> None:
    assert np.linalg.norm(out.normal, axis=-1) == pytest.approx(1.0, abs=1e-5)
    rays = _to_camera(scene, _rays(scene, _SIDE))
    assert (out.normal * rays).sum(axis=-1).max() < 1e-6


@pytest.mark.parametrize(("scene", "out"), _PAIRS)
def test_normals_are_the_gradients_of_the_surfaces(scene: Scene, out: Render) -> None:
    points, floor = _points(scene, out.depth), out.seg == SEG_CLASSES.index("floor")
    for k, solid in enumerate(scene.solids):
        mine = out.instance == k + 1
        agreement = (_to_camera(scene, _gradient(solid, points[mine])) * out.normal[mine]).sum(axis=-1)
        assert np.quantile(agreement, 0.02) > 0.999  # a pixel on a crease has no gradient
    assert np.allclose(out.normal[floor], _to_camera(scene, np.array([0.0, 1.0, 0.0])), atol=1e-6)


def test_normals_agree_with_differences_of_back_projected_depth() -> None:
    checked = 0
    for scene in _SCENES[:8]:
        out = render(scene, 128)
        points = _to_camera(scene, _points(scene, out.depth) - scene.camera.position)
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        estimate = np.cross(down, across)
        estimate /= np.linalg.norm(estimate, axis=-1, keepdims=True)
        surface = out.seg.astype(int) + 10 * out.instance
        inside, normal = np.ones_like(surface[1:-1, 1:-1], dtype=bool), out.normal[1:-1, 1:-1]
        for neighbour in (np.s_[1:-1, 2:], np.s_[1:-1, :-2], np.s_[2:, 1:-1], np.s_[:-2, 1:-1]):
            inside &= surface[1:-1, 1:-1] == surface[neighbour]
            inside &= (normal * out.normal[neighbour]).sum(axis=-1) > 0.98
        assert (estimate * normal).sum(axis=-1)[inside].min() > 0.98
        checked += int(inside.sum())
    assert checked > 8 * 0.8 * 126 * 126


def test_projected_centres_land_on_their_solids() -> None:
    for scene, out in _PAIRS:
        for solid in scene.solids:
            alone = render(replace(scene, solids=(solid,)), _SIDE).instance == 1
            x, y, depth = scene.camera.project(solid.centre)
            column, row = int((x + 1) / 2 * _SIDE), int((y + 1) / 2 * _SIDE)
            assert alone[row, column]
            assert out.depth[row, column] < depth
            assert out.instance[row, column] > 0
            middle = (np.argwhere(alone).mean(axis=0) + 0.5) * 2 / _SIDE - 1
            assert middle[1] == pytest.approx(x, abs=0.06)
            assert middle[0] == pytest.approx(y, abs=0.25)  # a cone is heavy below


def test_most_of_every_solid_is_seen() -> None:
    for scene, out in _PAIRS:
        for k, solid in enumerate(scene.solids):
            alone = (render(replace(scene, solids=(solid,)), _SIDE).instance == 1).sum()
            assert (out.instance == k + 1).sum() > 0.45 * alone


def test_the_nearer_solid_hides_the_farther_one() -> None:
    near, far = _solid("cube", "red", 0.0, 1.2), _solid("cylinder", "blue", 0.0, -0.6)
    out, alone = render(_stage(far, near), 64), render(_stage(near), 64)
    assert np.array_equal(out.instance == 2, alone.instance == 1)
    assert 0 < (out.instance == 1).sum() < (render(_stage(far), 64).instance == 1).sum()


def test_left_is_left_in_image_and_maps() -> None:
    out = render(_stage(_solid("sphere", "red", -1.0), _solid("cube", "blue", 1.0)), 64)
    left, right = out.image[out.instance == 1].mean(axis=0), out.image[out.instance == 2].mean(axis=0)
    assert np.argwhere(out.instance == 1)[:, 1].max() < 32 <= np.argwhere(out.instance == 2)[:, 1].min()
    assert left[0] > 2 * left[2]
    assert right[2] > 2 * right[0]


def test_up_is_up_in_image_and_maps() -> None:
    out = render(_stage(_solid("cone", "yellow", 0.0)), 64)
    rows = np.argwhere(out.instance == 1)[:, 0]
    widths = np.bincount(rows)[rows.min() : rows.max() + 1]
    assert widths[:5].max() < 0.6 * widths[-8:-3].min()  # the apex is above the base
    assert set(out.seg[0]) == {SEG_CLASSES.index("wall")}
    assert set(out.seg[-1]) == {SEG_CLASSES.index("floor")}
    assert out.normal[-1, 32, 1] > 0.5
    assert out.depth[-1].max() < out.depth[32].min()


@pytest.mark.parametrize("side", [-1, 1])
def test_the_lit_side_is_bright_and_the_shadow_falls_away_from_the_light(side: int) -> None:
    scene = _stage(_solid("sphere", "white", 0.0), light=(0.8 * side, 0.6, 0.0))
    out = render(scene, 64)
    grey = out.image.mean(axis=-1)
    sphere, floor, column = out.instance == 1, out.seg == SEG_CLASSES.index("floor"), np.arange(64) - 31.5
    lit, dark = (np.broadcast_to(sign * side * column > 0, (64, 64)) for sign in (1, -1))
    assert grey[sphere & lit].mean() > 1.4 * grey[sphere & dark].mean()
    assert (grey[floor & dark] < 90).sum() > 5 * max((grey[floor & lit] < 90).sum(), 1)


def test_truth_is_taken_at_pixel_centres_at_every_resolution() -> None:
    for scene in _SCENES[:6]:
        fine, coarse = render(scene, 96), render(scene, 32)
        same = fine.instance[1::3, 1::3] == coarse.instance
        assert same.mean() > 0.998  # rounding may decide a silhouette
        assert np.allclose(fine.depth[1::3, 1::3][same], coarse.depth[same], rtol=1e-5)


def test_images_are_antialiased_towards_the_mean_of_a_finer_image() -> None:
    scene = _SCENES[0]
    fine = (render(scene, 256).image.astype(np.float64) / 255) ** 2.2
    mean = fine.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3)) ** (1 / 2.2) * 255
    assert np.abs(render(scene, 64).image - mean).mean() < 3


def test_neighbouring_materials_differ_only_where_the_solid_is() -> None:
    plain = _solid("cylinder", "green", 0.0)
    images = {m: render(_stage(replace(plain, material=m)), 64) for m in ("matte", "shiny", "striped")}
    solid = images["matte"].instance == 1
    edge = np.pad(solid, 1)
    near = edge[:-2, 1:-1] | edge[2:, 1:-1] | edge[1:-1, :-2] | edge[1:-1, 2:] | solid
    for name in ("shiny", "striped"):
        changed = (images[name].image != images["matte"].image).any(axis=-1)
        assert changed[solid].mean() > 0.2
        assert not changed[~near].any()
