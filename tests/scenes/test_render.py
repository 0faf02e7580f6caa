"""The renderer, proved against implicit surfaces that are searched along rays and know nothing of its formulas."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmark.scenes import shapes
from benchmark.scenes.figure import Pose
from benchmark.scenes.packing import CENTRE, FRAME, HALF, RADIUS, SHAPE
from benchmark.scenes.palette import COLOURS, KINDS, SEG_CLASSES, SEG_COLOURS
from benchmark.scenes.render import Render, render
from benchmark.scenes.shapes import BOX, CAPSULE, CONE, CYLINDER, MISS, SPHERE
from benchmark.scenes.tracing import FLOOR, WALL, nearest, prepare
from benchmark.scenes.world import WALL_Z, Camera, Light, Scene, Thing, draw_scene, look_at

Array = Any  # NDArray[np.float64]: NumPy's own types lose it in arithmetic
_SIDE = 64
_INDICES = range(24)
_SHAPES = {"sphere": SPHERE, "cube": BOX, "cylinder": CYLINDER, "cone": CONE, "capsule": CAPSULE}
# Half extents of the solids in units of their half height, and radii of a figure's limbs in statures.
_EXTENTS = {"sphere": (1.0, 1.0, 1.0), "cube": (0.82, 1.0, 0.82), "cylinder": (0.8, 1.0, 0.8), "cone": (1.0, 1.0, 1.0)}
_LIMBS = (
    *(("shoulder", "elbow", 0.036), ("elbow", "wrist", 0.029), ("hip", "knee", 0.052), ("knee", "ankle", 0.040)),
    ("ankle", "toe", 0.028),
)
_ARMS_DOWN = Pose(0, (20, 20), (0, 0), (0, 0), (0, 0), (5, 5), (0, 0), (0, 0))


class Body(NamedTuple):
    """A convex body: the points whose gauge in its own frame is below 1."""

    shape: str
    centre: Array
    axes: Array  # rows: its own x, y and z in world coordinates
    extents: Array  # half extents along them
    rise: float = 0.0  # of a capsule: half the length of its axis, in the extent along it


def _gauge(body: Body, points: Array) -> Array:
    """A convex function: below 1 inside, 1 on the surface."""
    x, y, z = np.moveaxis((points - body.centre) @ body.axes.T / body.extents, -1, 0)
    if body.shape == "cube":
        return np.maximum.reduce([np.abs(x), np.abs(y), np.abs(z)])
    if body.shape == "cylinder":
        return np.maximum(np.hypot(x, z), np.abs(y))
    if body.shape == "cone":  # base radius 1 at -1, apex at 1
        return np.maximum(np.hypot(x, z) + (y + 1) / 2, -y)
    return np.sqrt(x**2 + (y - np.clip(y, -body.rise, body.rise)) ** 2 + z**2)


def _gradient(body: Body, points: Array) -> Array:
    step = 1e-5
    shifts = [_gauge(body, points + step * axis) - _gauge(body, points - step * axis) for axis in np.eye(3)]
    gradient = np.stack(shifts, axis=-1)
    return gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)


def _meet(body: Body, origins: Array, rays: Array) -> tuple[Array, Array]:
    """First t >= 0 at which each ray enters the body (inf: never), and the least gauge along it.

    The gauge is convex along a ray: a golden-section search finds its least value, and where that is below 1 a
    bisection finds the place of 1 before it.
    """
    origins = np.broadcast_to(origins, rays.shape)
    reach = np.linalg.norm(body.extents) * (1 + body.rise)
    middle = ((body.centre - origins) * rays).sum(axis=-1) / (rays**2).sum(axis=-1)
    entry, least = np.full(len(rays), np.inf), np.full(len(rays), np.inf)
    close = np.linalg.norm(origins + middle[:, None] * rays - body.centre, axis=-1) < reach
    if not close.any():
        return entry, least
    o, d, radius = origins[close], rays[close], reach / np.linalg.norm(rays[close], axis=-1)

    def at(t: Array) -> Array:
        return _gauge(body, o + t[:, None] * d)

    start, high = np.maximum(middle[close] - radius, 0), np.maximum(middle[close] + radius, 0)
    low = start
    for _ in range(45):
        a, b = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
        down = at(a) < at(b)
        low, high = np.where(down, low, a), np.where(down, b, high)
    deepest = (low + high) / 2
    least[close] = at(deepest)
    low, high = start, deepest
    for _ in range(45):
        half = (low + high) / 2
        inside = at(half) < 1
        low, high = np.where(inside, low, half), np.where(inside, half, high)
    entry[close] = np.where(least[close] < 1, high, np.inf)
    return entry, least


def _turned(yaw: float) -> Array:
    """Own axes of something turned right-handedly about the upward axis."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def _capsule(a: Array, b: Array, left: Array, extents: Array) -> Body:
    up = (b - a) / np.linalg.norm(b - a)
    right = left - (left @ up) * up
    right /= np.linalg.norm(right)
    axes = np.array([right, up, np.cross(right, up)])
    return Body("capsule", (a + b) / 2, axes, extents, np.linalg.norm(b - a) / (2 * extents[1]))


def _bodies(thing: Thing) -> list[Body]:
    """The convex bodies of a thing: one of a solid; trunk, head, neck and limbs of a figure."""
    if thing.pose is None:
        extents = np.array(_EXTENTS[thing.kind]) * thing.extent
        return [Body(thing.kind, np.array([thing.x, thing.extent, thing.z]), _turned(thing.yaw), extents)]
    joint, axes = {name: np.array(place) for name, place in thing.joints.items()}, _turned(thing.yaw)
    pelvis, neck = joint["pelvis"], joint["neck"]
    trunk = np.array([0.098, 0.070, 0.062]) * thing.extent
    out = [
        _capsule(0.9 * pelvis + 0.1 * neck, 0.12 * pelvis + 0.88 * neck, axes[0], trunk),
        Body("sphere", joint["head"], axes, np.array([0.062, 0.082, 0.070]) * thing.extent),
        _capsule(neck, joint["head"], axes[0], np.full(3, 0.033 * thing.extent)),
    ]
    for side in ("right", "left"):
        for a, b, radius in _LIMBS:
            ends = joint[f"{side}_{a}"], joint[f"{side}_{b}"]
            out.append(_capsule(*ends, axes[0], np.full(3, radius * thing.extent)))
    return out


def _rays(camera: Camera, side: int) -> Array:
    """World directions (side, side, 3) through pixel centres, one metre long along the optical axis."""
    ticks = ((np.arange(side) + 0.5) / side * 2 - 1) * camera.half_extent
    right, up, forward = np.array(camera.right), np.array(camera.up), np.array(camera.forward)
    return forward + ticks[None, :, None] * right - ticks[:, None, None] * up


def _points(scene: Scene, depth: Array) -> Array:
    return scene.camera.position + depth.astype(np.float64)[..., None] * _rays(scene.camera, len(depth))


def _to_camera(camera: Camera, vectors: Array) -> Array:
    return vectors @ np.stack([camera.right, camera.up, -np.array(camera.forward)]).T


class Cast(NamedTuple):
    """What rays meet first: its depth; the number of the body, -1 for the ground and -2 for the wall; its owner."""

    depth: Array
    body: Array
    owner: Array  # 0 for ground and wall, else 1 + the thing's position


def _cast(scene: Scene, rays: Array) -> Cast:
    position = np.array(scene.camera.position)
    with np.errstate(divide="ignore"):
        ground = np.where(rays[:, 1] < 0, -position[1] / rays[:, 1], np.inf)
        wall = np.where(rays[:, 2] < 0, (WALL_Z - position[2]) / rays[:, 2], np.inf)
    owned = [(k + 1, body) for k, thing in enumerate(scene.things) for body in _bodies(thing)]
    entries = np.stack([wall, ground, *(_meet(body, position, rays)[0] for _, body in owned)])
    first = entries.argmin(axis=0)
    owners = np.array([0, 0, *(owner for owner, _ in owned)])
    return Cast(entries.min(axis=0), first - 2, owners[first])


@cache
def _pair(index: int) -> tuple[Scene, Render]:
    scene = draw_scene(11, index)
    return scene, render(scene, _SIDE)


def _stage(*things: Thing, light: tuple[float, float, float] = (0.0, 0.8, 0.6)) -> Scene:
    camera = look_at((0.0, 2.6, 6.0), (0.0, 0.6, 0.0), 38.0)
    lamp = Light(light, (0.9, 0.9, 0.9), (0.3, 0.3, 0.3))
    return Scene(things, "sandy", "plain", camera, lamp, (1.0, 2.0), (1.0, 1.0))


def _solid(kind: str, colour: str, x: float, z: float = 0.0, yaw: float = 0.4) -> Thing:
    return Thing(kind, colour, "small", "matte", 0.55, x, z, yaw)


def _person(yaw_degrees: float = 0.0, x: float = 0.0, pose: Pose = _ARMS_DOWN) -> Thing:
    return Thing("person", "red", "small", "matte", 1.8, x, 0.0, np.radians(yaw_degrees), pose)


def _linear(image: Array) -> Array:
    """Linear light of sRGB bytes (IEC 61966-2-1)."""
    v = image / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _uniform(*maps: Array) -> Array:
    """Where a pixel and its eight neighbours agree in every map; never on the border."""
    out = np.zeros(maps[0].shape, dtype=bool)
    out[1:-1, 1:-1] = True
    n = len(out)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            for each in maps:
                out[1:-1, 1:-1] &= each[1 + i : n - 1 + i, 1 + j : n - 1 + j] == each[1:-1, 1:-1]
    return out


def _unit_rays(seed: int, n: int) -> tuple[Array, Array]:
    """Rays of any length from outside towards and past the unit shapes."""
    rng = np.random.default_rng(seed)
    origins = rng.normal(size=(n, 3))
    origins *= rng.uniform(3, 6, (n, 1)) / np.linalg.norm(origins, axis=1, keepdims=True)
    rays = (rng.uniform(-1.6, 1.6, (n, 3)) - origins) * rng.uniform(0.2, 2, (n, 1))
    rays[::9] *= -1  # some look away
    return origins, rays


def _unit_body(name: str, rise: float) -> Body:
    return Body(name, np.zeros(3), np.eye(3), np.ones(3), rise)


@pytest.mark.parametrize("name", _SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_rays_meet_unit_shapes_where_a_search_finds_them(name: str, seed: int) -> None:
    rise = (0.3, 0.9, 1.7)[seed] if name == "capsule" else 0.0
    origins, rays = _unit_rays(seed, 1500)
    expected, least = _meet(_unit_body(name, rise), origins, rays)
    found = np.array([shapes.hit(_SHAPES[name], rise, *o, *d) for o, d in zip(origins, rays, strict=True)])
    clear = np.abs(least - 1) > 1e-6
    assert clear.mean() > 0.999
    assert np.array_equal(found[clear] < MISS, np.isfinite(expected[clear]))
    met = clear & np.isfinite(expected)
    assert met.sum() > 300
    assert (~met).sum() > 300
    assert found[met] == pytest.approx(expected[met], rel=1e-6)


@pytest.mark.parametrize("name", ["sphere", "cube", "capsule"])
def test_rays_along_an_axis_meet_unit_shapes_too(name: str) -> None:
    body = _unit_body(name, 0.5 if name == "capsule" else 0.0)
    for axis in (*np.eye(3), *-np.eye(3)):
        reach = 1 + body.rise * abs(axis[1])
        assert shapes.hit(_SHAPES[name], body.rise, *(4 * axis), *-axis) == pytest.approx(4 - reach)
        assert shapes.hit(_SHAPES[name], body.rise, *(4 * axis), *axis) == MISS
        assert shapes.hit(_SHAPES[name], body.rise, *(4 * axis + 1.7 * np.roll(axis, 1)), *-axis) == MISS


@pytest.mark.parametrize(("name", "faces"), [("sphere", 1), ("cube", 6), ("cylinder", 3), ("cone", 2), ("capsule", 1)])
def test_normals_of_unit_shapes_are_gradients_and_faces_are_smooth(name: str, faces: int) -> None:
    body = _unit_body(name, 0.7 if name == "capsule" else 0.0)
    origins, rays = _unit_rays(5, 2000)
    t, _ = _meet(body, origins, rays)
    points = (origins + np.where(np.isfinite(t), t, 0)[:, None] * rays)[np.isfinite(t)]
    found = np.array([shapes.normal(_SHAPES[name], body.rise, *point) for point in points])
    normal, face = found[:, :3] / np.linalg.norm(found[:, :3], axis=1, keepdims=True), found[:, 3]
    agreement = (normal * _gradient(body, points)).sum(axis=1)
    assert np.mean(agreement > 1 - 1e-6) > 0.995  # a crease has no gradient
    kinds = np.unique(face)
    assert len(kinds) == faces
    if name == "cube":
        assert len(np.unique(normal, axis=0)) == 6
        assert all(len(np.unique(normal[face == k], axis=0)) == 1 for k in kinds)
    elif faces > 1:
        flat = np.abs(normal[:, 1]) > 0.999
        assert all(len(np.unique(flat[face == k])) == 1 for k in kinds)


@pytest.mark.parametrize("name", _SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_rays_meet_shapes_in_any_frame(name: str, seed: int) -> None:
    """Stretched, turned every way, seen by a random camera before ground and wall."""
    rng = np.random.default_rng([seed, _SHAPES[name]])
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rise = float(rng.uniform(0.2, 3)) if name == "capsule" else 0.0
    body = Body(name, rng.uniform((-1, 0.5, -1), (1, 1.5, 1)), axes, rng.uniform(0.3, 0.9, 3), rise)
    position = rng.uniform((-2, 1, 6), (2, 4, 8))
    camera = look_at(tuple(position), tuple(body.centre + rng.uniform(-0.3, 0.3, 3)), 24.0)
    row = np.zeros((1, 24))
    row[0, SHAPE], row[0, CENTRE : CENTRE + 3], row[0, HALF] = _SHAPES[name], body.centre, rise
    row[0, FRAME : FRAME + 9] = (axes / body.extents[:, None]).ravel()
    row[0, RADIUS] = np.linalg.norm(body.extents) * (1 + rise)
    view = np.array([*camera.position, *camera.right, *camera.up, *camera.forward, camera.half_extent])
    rects, local = prepare(row, view, np.zeros(9), 24)
    rays = _rays(camera, 24).reshape(-1, 3)
    entry, least = _meet(body, position, rays)
    with np.errstate(divide="ignore"):
        ground = np.where(rays[:, 1] < 0, -position[1] / rays[:, 1], np.inf)
        wall = np.where(rays[:, 2] < 0, (WALL_Z - position[2]) / rays[:, 2], np.inf)
    expected = np.stack([wall, ground, entry])
    found = [nearest(row, rects, local, view, 24, i + 0.5, j + 0.5) for i in range(24) for j in range(24)]
    t, surface = np.array(found).T
    clear = np.abs(least - 1) > 1e-6
    assert np.array_equal(surface[clear], np.array([WALL, FLOOR, 0])[expected.argmin(axis=0)][clear])
    assert t[clear] == pytest.approx(expected.min(axis=0)[clear], rel=1e-6)
    assert (surface == 0).sum() > 20


def test_maps_have_the_shapes_and_types_they_promise() -> None:
    scene = _stage(_person(), _solid("cube", "red", -1.0))
    out = render(scene, 40)
    described = {name: (getattr(out, name).shape, str(getattr(out, name).dtype)) for name in vars(out)}
    assert described == {
        "image": ((40, 40, 3), "uint8"),
        "seg": ((40, 40), "uint16"),
        "instance": ((40, 40), "uint16"),
        "depth": ((40, 40), "float32"),
        "normal": ((40, 40, 3), "float32"),
        "boundary": ((40, 40), "float32"),
        "segments": ((len(out.segments), 4), "float32"),
        "keypoints": ((1, 18, 3), "float32"),
    }


def test_rendering_again_gives_the_same_bits() -> None:
    scene, out = _pair(3)
    again = render(scene, _SIDE)
    for name in vars(out):
        assert np.array_equal(getattr(again, name), getattr(out, name))


def test_the_scenes_under_test_hold_every_kind() -> None:
    kinds = [thing.kind for index in _INDICES for thing in _pair(index)[0].things]
    assert min(kinds.count(kind) for kind in KINDS) >= 5


@pytest.mark.parametrize("index", _INDICES)
def test_depth_instances_and_normals_are_those_of_searched_rays(index: int) -> None:
    scene, out = _pair(index)
    chosen = np.random.default_rng(index).permutation(_SIDE * _SIDE)[:700]
    rays = _rays(scene.camera, _SIDE).reshape(-1, 3)[chosen]
    cast, instance = _cast(scene, rays), out.instance.ravel()[chosen]
    same = cast.owner == instance
    assert same.mean() > 0.998  # rounding may decide a silhouette
    assert out.depth.ravel()[chosen][same] == pytest.approx(cast.depth[same], rel=1e-5)
    points = np.array(scene.camera.position) + cast.depth[:, None] * rays
    bodies = [body for thing in scene.things for body in _bodies(thing)]
    normals, checked = out.normal.reshape(-1, 3)[chosen], 0
    for k, body in enumerate(bodies):
        mine = same & (cast.body == k)
        if mine.any():
            agreement = (_to_camera(scene.camera, _gradient(body, points[mine])) * normals[mine]).sum(axis=1)
            assert np.mean(agreement > 1 - 1e-5) >= 0.95  # a crease has no gradient
            checked += int(mine.sum())
    assert checked > 20


@pytest.mark.parametrize("index", _INDICES)
def test_floor_and_wall_have_the_depth_and_normal_of_their_planes(index: int) -> None:
    scene, out = _pair(index)
    position, rays = np.array(scene.camera.position), _rays(scene.camera, _SIDE)
    floor, wall = (out.seg == SEG_CLASSES.index(name) for name in ("floor", "wall"))
    assert floor.sum() > 100
    assert out.depth[floor] == pytest.approx(-position[1] / rays[floor][:, 1], rel=1e-6)
    assert out.depth[wall] == pytest.approx((WALL_Z - position[2]) / rays[wall][:, 2], rel=1e-6)
    assert np.allclose(out.normal[floor], _to_camera(scene.camera, np.array([0.0, 1.0, 0.0])), atol=1e-6)
    assert np.allclose(out.normal[wall], _to_camera(scene.camera, np.array([0.0, 0.0, 1.0])), atol=1e-6)
    heights, behind = _points(scene, out.depth)[..., 1], _points(scene, out.depth)[..., 2]
    assert heights.min() > -1e-5
    assert behind.min() > WALL_Z - 1e-5


@pytest.mark.parametrize("index", _INDICES)
def test_classes_are_the_kinds_of_the_instances(index: int) -> None:
    scene, out = _pair(index)
    names = np.array(SEG_CLASSES)[out.seg]
    for k, thing in enumerate(scene.things):
        assert set(names[out.instance == k + 1]) == {thing.kind}
    assert set(names[out.instance == 0]) <= {"wall", "floor"}
    assert out.instance.max() <= len(scene.things)


def test_every_class_has_its_own_colour() -> None:
    assert ("wall", "floor", *KINDS) == SEG_CLASSES
    assert len(set(SEG_COLOURS)) == len(SEG_CLASSES)


@pytest.mark.parametrize("index", _INDICES)
def test_normals_are_unit_vectors_that_face_the_camera(index: int) -> None:
    scene, out = _pair(index)
    assert np.linalg.norm(out.normal, axis=-1) == pytest.approx(1.0, abs=1e-5)
    rays = _to_camera(scene.camera, _rays(scene.camera, _SIDE))
    assert (out.normal * rays).sum(axis=-1).max() < 1e-6


def test_normals_agree_with_differences_of_back_projected_depth() -> None:
    checked, side = 0, 128
    for index in range(8):
        scene, _ = _pair(index)
        out = render(scene, side)
        points = _to_camera(scene.camera, _points(scene, out.depth) - scene.camera.position)
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        estimate = np.cross(down, across)
        estimate /= np.linalg.norm(estimate, axis=-1, keepdims=True)
        inside, normal = _uniform(out.seg, out.instance)[1:-1, 1:-1], out.normal[1:-1, 1:-1]
        for neighbour in (np.s_[1:-1, 2:], np.s_[1:-1, :-2], np.s_[2:, 1:-1], np.s_[:-2, 1:-1]):
            inside &= (normal * out.normal[neighbour]).sum(axis=-1) > 0.98
            # Two limbs of a figure, one before the other, are one instance but no smooth face.
            inside &= np.abs(out.depth[neighbour] / out.depth[1:-1, 1:-1] - 1) < 0.03
        agreement = (estimate * normal).sum(axis=-1)[inside]
        assert np.quantile(agreement, 0.001) > 0.97
        checked += int(inside.sum())
    assert checked > 8 * 0.75 * (side - 2) ** 2


def test_the_nearer_thing_hides_the_farther_one() -> None:
    near, far = _solid("cube", "red", 0.0, 1.2), _solid("cylinder", "blue", 0.0, -0.6)
    out, alone = render(_stage(far, near), 64), render(_stage(near), 64)
    assert np.array_equal(out.instance == 2, alone.instance == 1)
    assert 0 < (out.instance == 1).sum() < (render(_stage(far), 64).instance == 1).sum()


def test_left_is_left_in_image_and_maps() -> None:
    out = render(_stage(_solid("sphere", "red", -1.0), _solid("cube", "blue", 1.0)), 64)
    sphere, cube = out.instance == 1, out.instance == 2
    left, right = out.image[sphere].mean(axis=0), out.image[cube].mean(axis=0)
    assert np.argwhere(sphere)[:, 1].max() < 32 <= np.argwhere(cube)[:, 1].min()
    assert left[0] > 2 * left[2]
    assert right[2] > 2 * right[0]
    columns = np.argwhere(sphere)[:, 1]
    normals = out.normal[sphere]
    assert normals[columns == columns.min(), 0].max() < -0.8  # x points to the right
    assert normals[columns == columns.max(), 0].min() > 0.8
    assert normals[:, 2].max() > 0.99  # z points to the viewer


def test_up_is_up_in_image_and_maps() -> None:
    out = render(_stage(_solid("cone", "yellow", 0.0)), 64)
    rows = np.argwhere(out.instance == 1)[:, 0]
    widths = np.bincount(rows)[rows.min() : rows.max() + 1]
    assert widths[:4].max() < 0.6 * widths[-8:-3].min()  # the apex is above the base
    assert set(out.seg[0]) == {SEG_CLASSES.index("wall")}
    assert set(out.seg[-1]) == {SEG_CLASSES.index("floor")}
    assert out.normal[-1, 32, 1] > 0.5  # y points up
    assert out.depth[-1].max() < out.depth[32, [0, -1]].min()


def test_a_figure_that_faces_the_camera_has_its_left_hand_on_the_right() -> None:
    pose = replace(_ARMS_DOWN, arm_out=(8.0, 90.0))  # only the left arm is stretched out
    front, back = (render(_stage(_person(yaw, pose=pose)), 64).instance == 1 for yaw in (0, 180))
    assert np.argwhere(front)[:, 1].max() > 40
    assert np.argwhere(front)[:, 1].min() > 24
    assert np.argwhere(back)[:, 1].min() < 24
    assert np.argwhere(back)[:, 1].max() < 40


@pytest.mark.parametrize("side", [-1, 1])
def test_the_lit_side_is_bright_and_the_shadow_falls_away_from_the_light(side: int) -> None:
    out = render(_stage(_solid("sphere", "white", 0.0), light=(0.8 * side, 0.6, 0.0)), 64)
    grey = out.image.mean(axis=-1)
    sphere, floor, column = out.instance == 1, out.seg == SEG_CLASSES.index("floor"), np.arange(64) - 31.5
    lit, dark = (np.broadcast_to(sign * side * column > 0, (64, 64)) for sign in (1, -1))
    assert grey[sphere & lit].mean() > 1.3 * grey[sphere & dark].mean()
    shade = grey < 0.75 * np.median(grey[floor])
    assert (floor & dark & shade).sum() > 5 * max((floor & lit & shade).sum(), 1)


def _sunlight(index: int) -> tuple[Array, Array]:
    """Which pixels of a scene the sun changes, and which the lamp reaches, of those where both are beyond doubt."""
    scene, out = _pair(index)
    shaded = render(replace(scene, light=replace(scene.light, sun=(0.0, 0.0, 0.0))), _SIDE)
    changed = (out.image != shaded.image).any(axis=-1).ravel()
    lamp, normals = np.array(scene.light.direction), out.normal.reshape(-1, 3)
    world = normals @ np.stack([scene.camera.right, scene.camera.up, -np.array(scene.camera.forward)])
    points, facing, owner = _points(scene, out.depth).reshape(-1, 3), world @ lamp, out.instance.ravel()
    hidden, clear = facing <= 0, np.abs(facing) > 0.05
    for k, thing in enumerate(scene.things):
        others = owner != k + 1  # a convex body does not hide the lamp from its own lit side
        for body in _bodies(thing):
            _, least = _meet(body, points[others] + 1e-3 * world[others], np.broadcast_to(lamp, points[others].shape))
            hidden[others] |= least < 1
            clear[others] &= np.abs(least - 1) > 0.02
        clear &= others | (thing.pose is None)  # limbs shade each other
    shape = (_SIDE, _SIDE)
    clear &= _uniform(hidden.reshape(shape), out.instance, clear.reshape(shape)).ravel()  # others may be mixtures
    return changed[clear], ~hidden[clear]


def test_sunlight_reaches_what_no_body_hides_from_the_lamp() -> None:
    changed, reached = np.concatenate([_sunlight(index) for index in range(16)], axis=1)
    assert reached.sum() > 10_000
    assert (~reached).sum() > 200
    assert changed[reached].mean() > 0.999
    assert changed[~reached].mean() < 0.01


def test_matte_paint_reflects_sunlight_by_lamberts_law() -> None:
    scene = _stage(_solid("sphere", "green", 0.0), light=(0.48, 0.64, 0.6))
    out, shaded = render(scene, 64), render(replace(scene, light=replace(scene.light, sun=(0.0, 0.0, 0.0))), 64)
    sphere = _uniform(out.instance) & (out.instance == 1)
    lamp = _to_camera(scene.camera, np.array(scene.light.direction))
    facing = np.maximum(out.normal @ lamp, 0)
    expected = facing[..., None] * np.array(COLOURS["green"]) * scene.light.sun
    found = _linear(out.image) - _linear(shaded.image)
    assert np.abs(found - expected)[sphere].max() < 0.03
    assert facing[sphere].max() > 0.95


def test_truth_is_taken_at_pixel_centres_at_every_resolution() -> None:
    for index in range(6):
        scene, _ = _pair(index)
        fine, coarse = render(scene, 96), render(scene, 32)  # every third pixel has the same centre
        same = fine.instance[1::3, 1::3] == coarse.instance
        assert same.mean() > 0.998  # rounding may decide a silhouette
        assert np.array_equal(fine.seg[1::3, 1::3][same], coarse.seg[same])
        assert np.allclose(fine.depth[1::3, 1::3][same], coarse.depth[same], rtol=1e-5)


def test_resolutions_show_the_same_scene() -> None:
    for index in range(4):
        scene, _ = _pair(index)
        fine = render(scene, 512)
        for side, least in ((32, 0.96), (64, 0.98), (128, 0.99), (256, 0.994)):
            out, step = render(scene, side), 512 // side
            sampled = np.s_[step // 2 :: step, step // 2 :: step]  # half a fine pixel off the coarse centre
            assert np.mean(out.seg == fine.seg[sampled]) > least
            assert np.mean(np.abs(out.depth / fine.depth[sampled] - 1) < 0.02) > least


def test_images_are_antialiased_towards_the_mean_of_a_finer_image() -> None:
    for index in range(3):
        scene, out = _pair(index)
        fine = (render(scene, 4 * _SIDE).image.astype(np.float64) / 255) ** 2.2
        mean = fine.reshape(_SIDE, 4, _SIDE, 4, 3).mean(axis=(1, 3)) ** (1 / 2.2) * 255
        edges = ~_uniform(out.instance)[1:-1, 1:-1]
        assert np.abs(out.image - mean).mean() < 3
        assert np.abs(out.image - mean)[1:-1, 1:-1][edges].mean() < 10


def test_materials_differ_only_where_the_solid_is() -> None:
    plain = _solid("cylinder", "green", 0.0)
    images = {m: render(_stage(replace(plain, material=m)), 64) for m in ("matte", "glossy", "striped")}
    solid = images["matte"].instance == 1
    edge = np.pad(solid, 1)
    near = edge[:-2, 1:-1] | edge[2:, 1:-1] | edge[1:-1, :-2] | edge[1:-1, 2:] | solid
    for name in ("glossy", "striped"):
        changed = (images[name].image != images["matte"].image).any(axis=-1)
        assert changed[solid].mean() > 0.2
        assert not changed[~near].any()


@pytest.mark.parametrize("kind", ["sphere", "cube", "cylinder", "cone"])
def test_stripes_are_level_bands_paler_than_the_paint(kind: str) -> None:
    plain = _solid(kind, "purple", 0.0)
    scene = _stage(plain)
    matte, striped = render(scene, 192), render(_stage(replace(plain, material="striped")), 192)
    mine = _uniform(matte.instance) & (matte.instance == 1)
    gain = striped.image.astype(int) - matte.image
    paler = gain.max(axis=-1) > 12
    assert gain[mine].min() > -8  # only the rays within a pixel differ
    assert 0.25 < paler[mine].mean() < 0.75
    heights = _points(scene, matte.depth)[..., 1] / plain.extent - 1  # -1 at the foot, 1 at the top
    bands = paler[mine][np.argsort(heights[mine])]
    share = np.convolve(bands, np.ones(15) / 15, mode="valid")  # of neighbours in height
    assert np.mean((share < 0.1) | (share > 0.9)) > 0.85  # a band is pale or not at a height, all around
    assert 2 <= np.count_nonzero(np.diff((share > 0.5).astype(int)) == 1) <= 5


def test_gloss_is_brightest_where_a_mirror_would_show_the_lamp() -> None:
    scene = _stage(_solid("sphere", "blue", 0.0), light=(0.6, 0.64, 0.48))
    glossy = replace(scene, things=(replace(scene.things[0], material="glossy"),))
    matte, shiny = render(scene, 128), render(glossy, 128)
    gain = (_linear(shiny.image) - _linear(matte.image)).sum(axis=-1)
    lamp = _to_camera(scene.camera, np.array(scene.light.direction))
    view = -_to_camera(scene.camera, _rays(scene.camera, 128))
    view /= np.linalg.norm(view, axis=-1, keepdims=True)
    halfway = lamp + view
    mirror = (halfway * matte.normal).sum(axis=-1) / np.linalg.norm(halfway, axis=-1)
    sphere = _uniform(matte.instance) & (matte.instance == 1)
    assert mirror[sphere].max() > 0.995
    assert gain[sphere & (mirror > 0.99)].min() > 3 * gain[sphere & (mirror < 0.9)].max()


def _changes(a: Thing, b: Thing) -> Array:
    return (render(_stage(a), 256).image != render(_stage(b), 256).image).any(axis=-1)


def _pixel(joint: str, figure: Thing) -> tuple[int, int]:
    """Row and column of a joint at 256 pixels a side."""
    camera = _stage(figure).camera
    x, y, z = _to_camera(camera, np.array(figure.joints[joint]) - camera.position)
    return int(128 + 128 * y / z / camera.half_extent), int(128 - 128 * x / z / camera.half_extent)


def test_a_figure_has_a_face_in_front_and_hair_above_and_behind() -> None:
    front, back = _person(0), _person(180)

    def skin(figure: Thing) -> Array:
        return _changes(figure, replace(figure, skin=3))

    def hair(figure: Thing) -> Array:
        return _changes(figure, replace(figure, hair=2))

    in_front, behind = render(_stage(front), 256).instance == 1, render(_stage(back), 256).instance == 1
    top = np.argwhere(in_front)[:, 0].min() + 1
    crown = (top, _pixel("head", front)[1])
    assert skin(front)[_pixel("nose", front)]
    assert not hair(front)[_pixel("nose", front)]
    assert hair(front)[crown]
    assert not skin(front)[crown]
    assert hair(back)[_pixel("head", back)]
    assert not skin(back)[_pixel("head", back)]
    assert 0.01 < hair(front)[in_front].mean() < hair(back)[behind].mean() < 0.15


def test_a_shirt_has_its_colour_and_stripes_and_hands_and_legs_do_not() -> None:
    figure = _person()
    for changed in (
        _changes(figure, replace(figure, colour="blue")),
        _changes(figure, replace(figure, material="striped")),
    ):
        body = render(_stage(figure), 256).instance == 1
        assert changed[body].mean() > 0.1
        assert not changed[: _pixel("nose", figure)[0], :].any()
        assert not changed[_pixel("right_knee", figure)[0] :, :].any()
        assert not changed[_pixel("left_wrist", figure)]


_VISIBLE_FACE: dict[str, Callable[[Array], Array]] = {
    # From the normal in a solid's own frame, a number for each smooth face.
    "sphere": lambda normal: np.zeros(len(normal)),
    "cone": lambda normal: np.zeros(len(normal)),
    "cylinder": lambda normal: np.round(normal[:, 1]),
    "cube": lambda normal: np.round(normal) @ np.array([1.0, 10.0, 100.0]),
}


@pytest.mark.parametrize("index", _INDICES[:12])
def test_boundaries_are_those_between_searched_bodies_and_faces(index: int) -> None:
    scene, _ = _pair(index)
    side = 40
    out = render(scene, side)
    cast = _cast(scene, _rays(scene.camera, side).reshape(-1, 3))
    world = out.normal.reshape(-1, 3) @ np.stack([scene.camera.right, scene.camera.up, -np.array(scene.camera.forward)])
    face = 1000.0 * cast.body
    for k, thing in enumerate(scene.things):
        mine = cast.owner == k + 1
        if thing.pose is None:
            face[mine] += _VISIBLE_FACE[thing.kind](world[mine] @ _turned(thing.yaw).T)
    face, expected = face.reshape(side, side), np.zeros((side, side))
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        between = np.linalg.norm(out.normal[here].astype(float) - out.normal[there], axis=-1) / 2  # sin(angle / 2)
        strength = np.where(out.instance[here] != out.instance[there], 1.0, between * (face[here] != face[there]))
        expected[here] = np.maximum(expected[here], strength)
        expected[there] = np.maximum(expected[there], strength)
    assert np.mean(np.abs(out.boundary - expected) < 1e-3) > 0.998  # rounding may decide a silhouette
