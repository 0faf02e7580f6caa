"""Boundaries, straight edges and keypoints, each found again from geometry that is written out here."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from benchmark.scenes.figure import KEYPOINTS, Pose
from benchmark.scenes.palette import SEG_CLASSES, SOLIDS
from benchmark.scenes.render import Render, render
from benchmark.scenes.truth import JOINT_SLACK
from benchmark.scenes.world import WALL_Z, Camera, Light, Scene, Thing, draw_scene, look_at

Array = Any  # NDArray[np.float64]: NumPy's own types lose it in arithmetic
_SIDE = 192
_SHORTEST = 0.05  # of the side
_ARMS_OUT = Pose(0, (60, 60), (0, 0), (0, 0), (0, 0), (8, 8), (0, 0), (0, 0))
_EXTENTS = {"sphere": (1.0, 1.0), "cube": (0.82, 1.0), "cylinder": (0.8, 1.0), "cone": (1.0, 1.0)}


class Line(NamedTuple):
    """A straight edge on the image: its ends in pixels, their depths, and 1 + whose it is (0: wall and ground)."""

    ends: Array  # (2, 2)
    depths: Array
    world: Array  # (2, 3)
    owner: int


def _stage(*things: Thing, eye: tuple[float, float, float] = (0.0, 2.6, 6.0)) -> Scene:
    lamp = Light((0.0, 0.8, 0.6), (0.9, 0.9, 0.9), (0.3, 0.3, 0.3))
    camera = look_at(eye, (0.0, 0.6, 0.0), 38.0)
    return Scene(things, "sandy", "plain", camera, lamp, (1.0, 2.0), (1.0, 1.0))


def _solid(kind: str, x: float = 0.0, z: float = 0.0, yaw_degrees: float = 45.0, extent: float = 0.6) -> Thing:
    return Thing(kind, "red", "small", "matte", extent, x, z, np.radians(yaw_degrees))


def _person(yaw_degrees: float = 0.0, x: float = 0.0, z: float = 0.0) -> Thing:
    return Thing("person", "red", "small", "matte", 1.8, x, z, np.radians(yaw_degrees), _ARMS_OUT)


def _project(camera: Camera, points: Array, side: int) -> Array:
    """Pixels to the right and down, and depth: a pinhole written out."""
    axes = np.array([camera.right, camera.up, camera.forward])
    across, rise, depth = np.moveaxis((np.asarray(points) - camera.position) @ axes.T, -1, 0)
    k = side / 2 / camera.half_extent
    return np.stack([side / 2 + k * across / depth, side / 2 - k * rise / depth, depth], axis=-1)


def _own_frame(thing: Thing, points: Array) -> Array:
    """World points in the frame of a solid, in units of its half extents."""
    x, y, z = np.moveaxis(np.asarray(points) - [thing.x, thing.extent, thing.z], -1, 0)
    c, s = np.cos(thing.yaw), np.sin(thing.yaw)
    wide, high = np.array(_EXTENTS[thing.kind]) * thing.extent
    return np.stack([(c * x - s * z) / wide, y / high, (s * x + c * z) / wide], axis=-1)


def _to_world(thing: Thing, points: Array) -> Array:
    wide, high = np.array(_EXTENTS[thing.kind]) * thing.extent
    x, y, z = np.moveaxis(np.asarray(points, dtype=float) * [wide, high, wide], -1, 0)
    c, s = np.cos(thing.yaw), np.sin(thing.yaw)
    return np.stack([thing.x + c * x + s * z, thing.extent + y, thing.z - s * x + c * z], axis=-1)


def _cube_edges(eye: Array) -> Iterator[Array]:
    """Edges of the cube |x|, |y|, |z| <= 1 with a face from which the eye is seen."""
    corners = [np.array([x, y, z]) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    for i, a in enumerate(corners):
        for b in corners[:i]:
            shared = [axis for axis in range(3) if a[axis] == b[axis]]
            if len(shared) == 2 and any(a[axis] * eye[axis] > 1 for axis in shared):
                yield np.array([a, b])


def _outline(kind: str, eye: Array) -> Iterator[Array]:
    """Lines up a unit cylinder or cone whose tangent plane holds the eye: by finding zeros, all around."""

    def line(angle: float) -> Array:
        foot = np.array([np.cos(angle), -1.0, np.sin(angle)])
        return np.array([foot, foot * [1, -1, 1] if kind == "cylinder" else [0, 1, 0]])

    def facing(angle: float) -> float:
        foot, top = line(angle)
        along_rim = np.array([-np.sin(angle), 0.0, np.cos(angle)])
        return float(np.cross(along_rim, top - foot) @ (eye - foot))

    angles = np.linspace(0, 2 * np.pi, 73)
    values = [facing(angle) for angle in angles]
    for a, b, fa, fb in zip(angles, angles[1:], values, values[1:], strict=False):
        if fa * fb < 0:
            yield line(brentq(facing, a, b, xtol=1e-14))


def _lines(scene: Scene, side: int) -> list[Line]:
    """Every straight edge that is turned to the camera, seen or not."""
    world: list[tuple[int, Array]] = [(0, np.array([[-15.0, 0.0, WALL_Z], [15.0, 0.0, WALL_Z]]))]
    for k, thing in enumerate(scene.things):
        if thing.kind in ("cube", "cylinder", "cone"):
            eye = _own_frame(thing, np.array(scene.camera.position))
            edges = _cube_edges(eye) if thing.kind == "cube" else _outline(thing.kind, eye)
            world += [(k + 1, _to_world(thing, edge)) for edge in edges]
    placed = [(owner, ends, _project(scene.camera, ends, side)) for owner, ends in world]
    return [Line(seen[:, :2], seen[:, 2], ends, owner) for owner, ends, seen in placed]


def _distance(point: Array, line: Line) -> float:
    """From a point on the image to a line between its ends."""
    a, b = line.ends
    share = np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return float(np.linalg.norm(point - a - share * (b - a)))


def _matched(segment: Array, lines: list[Line]) -> tuple[int, float]:
    """The line that a segment lies on, and how far off its worse end is."""
    errors = [max(_distance(segment[:2], line), _distance(segment[2:], line)) for line in lines]
    return int(np.argmin(errors)), min(errors)


def _off_the_wall_line(scene: Scene, segments: Array, side: int) -> Array:
    wall = _lines(scene, side)[0]
    return np.array([s for s in segments if max(_distance(s[:2], wall), _distance(s[2:], wall)) > 0.05]).reshape(-1, 4)


def _gauge(thing: Thing, points: Array) -> Array:
    """Below 1 inside a solid; convex."""
    x, y, z = np.moveaxis(_own_frame(thing, points), -1, 0)
    if thing.kind == "sphere":
        return np.sqrt(x * x + y * y + z * z)
    if thing.kind == "cube":
        return np.maximum.reduce([np.abs(x), np.abs(y), np.abs(z)])
    if thing.kind == "cylinder":
        return np.maximum(np.hypot(x, z), np.abs(y))
    return np.maximum(np.hypot(x, z) + (y + 1) / 2, -y)


def _clearance(scene: Scene, points: Array, owner: int) -> Array:
    """Least gauge of the other solids between the camera and each point: below 1 where one of them hides it."""
    eye, out = np.array(scene.camera.position), np.full(len(points), np.inf)
    for k, thing in enumerate(scene.things):
        if k + 1 == owner:
            continue  # an edge beside a face turned to the camera is not hidden by its own convex body
        low, high = np.zeros((len(points), 1)), np.ones((len(points), 1))
        for _ in range(40):  # golden section: the gauge is convex along a ray
            a, b = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
            down = (_gauge(thing, eye + a * (points - eye)) < _gauge(thing, eye + b * (points - eye)))[:, None]
            low, high = np.where(down, low, a), np.where(down, b, high)
        out = np.minimum(out, _gauge(thing, eye + (low + high) / 2 * (points - eye)))
    return out


def _sampled(line: Line, side: int) -> tuple[Array, Array, Array]:
    """Points along a line inside the image: where on it (0 to 1 on the image), in pixels, and in the world."""
    steps = int(2 * np.linalg.norm(line.ends[1] - line.ends[0])) + 2
    share = np.linspace(0, 1, steps)
    pixels = line.ends[0] + share[:, None] * (line.ends[1] - line.ends[0])
    inside = ((pixels >= 0) & (pixels <= side)).all(axis=1)
    share, pixels = share[inside], pixels[inside]
    depth = 1 / ((1 - share) / line.depths[0] + share / line.depths[1])  # 1 / depth is linear on the image
    along = share * depth / line.depths[1]
    return share, pixels, line.world[0] + along[:, None] * (line.world[1] - line.world[0])


@cache
def _solids_only() -> tuple[tuple[Scene, Render], ...]:
    scenes = (draw_scene(21, i) for i in range(120))
    chosen = [scene for scene in scenes if all(thing.kind in SOLIDS for thing in scene.things)][:40]
    return tuple((scene, render(scene, _SIDE)) for scene in chosen)


@cache
def _figures() -> tuple[tuple[Scene, Render], ...]:
    scenes = (draw_scene(22, i) for i in range(120))
    chosen = [scene for scene in scenes if any(thing.pose for thing in scene.things)][:40]
    return tuple((scene, render(scene, _SIDE)) for scene in chosen)


def _four_neighbours(n: int) -> Iterator[tuple[Any, Any]]:
    yield np.s_[:, 1:], np.s_[:, : n - 1]
    yield np.s_[:, : n - 1], np.s_[:, 1:]
    yield np.s_[1:], np.s_[: n - 1]
    yield np.s_[: n - 1], np.s_[1:]


def _differs(values: Array) -> Array:
    out = np.zeros(values.shape, dtype=bool)
    for here, there in _four_neighbours(len(values)):
        out[here] |= values[here] != values[there]
    return out


def test_boundaries_are_one_exactly_around_instances() -> None:
    for scene, out in (*_solids_only(), *_figures()):
        around = _differs(out.instance)
        assert (out.boundary[around] == 1).all()
        assert (out.boundary[~around] < 1).all()
        assert out.boundary.min() == 0
        assert around.sum() > 40 * len(scene.things)


def test_boundaries_within_an_instance_are_no_stronger_than_its_normals_turn() -> None:
    for _, out in (*_solids_only(), *_figures()):
        turn = np.zeros(out.boundary.shape)
        for here, there in _four_neighbours(_SIDE):
            half_angle = np.linalg.norm(out.normal[here].astype(float) - out.normal[there], axis=-1) / 2
            turn[here] = np.maximum(turn[here], half_angle)
        within = ~_differs(out.instance)
        assert (out.boundary[within] <= turn[within] + 1e-3).all()


def test_boundaries_where_wall_meets_ground_and_between_faces_of_a_cube_are_those_of_right_angles() -> None:
    checked = 0
    for scene, out in _solids_only():
        inner = ~_differs(out.instance)
        cubes = [k + 1 for k, thing in enumerate(scene.things) if thing.kind == "cube"]
        for k in (0, *cubes):
            flat = np.round(out.normal.astype(float) @ [1e4, 3e4, 7e4])  # a number for each direction
            crease = _differs(flat) & inner & (out.instance == k)
            assert out.boundary[crease] == pytest.approx(np.sqrt(0.5), abs=1e-4)
            assert not out.boundary[~crease & inner & (out.instance == k)].any()  # flat ground, flat faces
            checked += int(crease.sum())
    assert checked > 5000


@pytest.mark.parametrize("kind", ["sphere", "cone"])
def test_boundaries_are_nil_within_a_smooth_face(kind: str) -> None:
    out = render(_stage(_solid(kind)), _SIDE)
    inner = ~_differs(out.instance) & (out.instance == 1)
    assert inner.sum() > 500
    assert not out.boundary[inner].any()


def test_a_cylinder_has_a_boundary_around_its_lid_only() -> None:
    out = render(_stage(_solid("cylinder")), _SIDE)
    inner = ~_differs(out.instance) & (out.instance == 1)
    lid = out.normal.astype(float) @ np.array([0, *_stage().camera.up[1:2], -_stage().camera.forward[1]]) > 0.999
    rim = _differs(lid) & inner
    assert out.boundary[rim] == pytest.approx(np.sqrt(0.5), abs=1e-3)
    assert not out.boundary[inner & ~rim].any()
    assert rim.sum() > 40


def test_joints_of_a_smooth_limb_leave_hardly_a_boundary() -> None:
    figure = _person()
    out = render(_stage(figure), 512)
    x, y, _ = _project(_stage().camera, np.array(figure.joints["left_elbow"]), 512)
    patch = np.s_[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
    assert (out.instance[patch] == 1).all()
    assert out.boundary[patch].max() < 0.35  # a straight arm: two capsules of nearly one width


def test_segments_lie_on_edges_outlines_or_the_line_between_wall_and_ground() -> None:
    owners: list[int] = []
    for scene, out in (*_solids_only(), *_figures()):
        lines = _lines(scene, _SIDE)
        assert out.segments.min() >= -1e-3
        assert out.segments.max() <= _SIDE + 1e-3
        lengths = np.linalg.norm(out.segments[:, 2:] - out.segments[:, :2], axis=1)
        assert lengths.min(initial=np.inf) >= _SHORTEST * _SIDE - 1e-3
        for segment in out.segments.astype(float):
            line, error = _matched(segment, lines)
            assert error < 0.02
            owners.append(lines[line].owner)
    assert owners.count(0) > 50
    assert len(owners) - owners.count(0) > 300


def test_segments_hold_what_is_seen_of_every_edge_and_nothing_hidden() -> None:
    seen_count, hidden_count = 0, 0
    for scene, out in _solids_only():
        lines = _lines(scene, _SIDE)
        on = [(_matched(segment, lines)[0], segment) for segment in out.segments.astype(float)]
        for number, line in enumerate(lines):
            share, pixels, world = _sampled(line, _SIDE)
            if not len(share):
                continue
            clearance = _clearance(scene, world, line.owner)
            covered = np.zeros(len(share), dtype=bool)
            for segment in (segment for owner, segment in on if owner == number):
                along = (line.ends[1] - line.ends[0]) / np.sum((line.ends[1] - line.ends[0]) ** 2)
                first, last = sorted([(segment[:2] - line.ends[0]) @ along, (segment[2:] - line.ends[0]) @ along])
                covered |= (share >= first - 1e-6) & (share <= last + 1e-6)
            assert not covered[clearance < 0.95].any()
            for run in _runs(clearance > 1.05):
                length = np.linalg.norm(pixels[run[-1]] - pixels[run[0]])
                if length > _SHORTEST * _SIDE + 3:
                    assert covered[run[3:-3]].all()
                    seen_count += 1
            hidden_count += int((clearance < 0.95).sum())
    assert seen_count > 200
    assert hidden_count > 1000


def _runs(mask: Array) -> list[Array]:
    """Indices of each stretch of true values."""
    where = np.flatnonzero(mask)
    return [run for run in np.split(where, np.flatnonzero(np.diff(where) > 1) + 1) if len(run) > 8]


@pytest.mark.parametrize(
    ("yaw", "eye", "edges"),
    [
        (45, (0.0, 2.6, 6.0), 9),  # two sides and the top
        (0, (0.0, 2.6, 6.0), 7),  # one side and the top
        (0, (0.0, 0.7, 6.0), 4),  # one side
        (30, (0.0, 0.7, 6.0), 7),  # two sides
    ],
)
def test_a_cube_alone_has_the_edges_of_the_faces_seen(yaw: float, eye: tuple[float, float, float], edges: int) -> None:
    scene = _stage(_solid("cube", yaw_degrees=yaw), eye=eye)
    found = _off_the_wall_line(scene, render(scene, 256).segments, 256)
    assert len(found) == edges
    corners = {tuple(np.round(end).astype(int)) for segment in found for end in (segment[:2], segment[2:])}
    assert len(corners) == {9: 7, 7: 6, 4: 4}[edges]


@pytest.mark.parametrize(("kind", "edges"), [("sphere", 0), ("cylinder", 2), ("cone", 2)])
def test_round_solids_have_the_straight_parts_of_their_outlines(kind: str, edges: int) -> None:
    scene = _stage(_solid(kind))
    out = render(scene, 256)
    found = _off_the_wall_line(scene, out.segments, 256)
    assert len(found) == edges
    if edges:
        top, bottom = found.reshape(-1, 2, 2)[..., 1].min(), found.reshape(-1, 2, 2)[..., 1].max()
        rows = np.flatnonzero((out.instance == 1).any(axis=1))
        assert top == pytest.approx(rows[0], abs=2 if kind == "cone" else 14)
        assert bottom < rows[-1] + 1


@pytest.mark.parametrize("kind", ["cylinder", "cone"])
@pytest.mark.parametrize("seed", range(6))
def test_outlines_run_along_the_silhouette(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    eye = (float(rng.uniform(-2, 2)), float(rng.uniform(1.3, 3.5)), 6.0)
    x, z, extent = (float(rng.uniform(*span)) for span in ((-0.7, 0.7), (-0.7, 0.7), (0.45, 0.8)))
    solid = _solid(kind, x, z, extent=extent)
    scene = _stage(solid, eye=eye)
    out = render(scene, 512)
    silhouette = cKDTree(np.argwhere(_differs(out.instance))[:, ::-1] + 0.5)
    found = _off_the_wall_line(scene, out.segments, 512)
    assert len(found) == 2
    share = np.linspace(0, 1, 100)[:, None]
    for segment in found:
        distances, _ = silhouette.query((1 - share) * segment[:2] + share * segment[2:])
        assert distances.max() < 1.0


def test_a_solid_in_front_cuts_the_edges_behind_it() -> None:
    cube, sphere = _solid("cube", z=-0.6), _solid("sphere", z=1.2, extent=0.4)
    scene = _stage(cube, sphere)
    out = render(scene, 256)
    found = _off_the_wall_line(scene, out.segments, 256)
    free = _off_the_wall_line(scene, render(_stage(cube, replace(sphere, x=1.6)), 256).segments, 256)
    assert len(free) == 9

    def total(segments: Array) -> float:
        return float(np.linalg.norm(segments[:, 2:] - segments[:, :2], axis=1).sum())

    assert 0.4 * total(free) < total(found) < 0.95 * total(free)
    inner = (out.instance == 2) & ~_differs(out.instance)
    share = np.linspace(0, 1, 100)[:, None]
    for segment in found:
        points = (1 - share) * segment[:2] + share * segment[2:]
        columns, rows = np.minimum(points.astype(int), 255).T
        assert inner[rows, columns].mean() < 0.03


def test_segments_never_cross_the_inside_of_another_thing() -> None:
    share, crossed, own = np.linspace(0.02, 0.98, 60)[:, None], 0, 0
    for scene, out in _figures():
        lines = _lines(scene, _SIDE)
        deep = ~_differs(out.instance)
        deep[1:-1, 1:-1] &= ~(_differs(out.instance)[:-2, 1:-1] | _differs(out.instance)[2:, 1:-1])
        for segment in out.segments.astype(float):
            owner = lines[_matched(segment, lines)[0]].owner
            points = ((1 - share) * segment[:2] + share * segment[2:]).astype(int)
            columns, rows = np.minimum(points, _SIDE - 1).T
            sight = out.instance[rows, columns]
            crossed += int((deep[rows, columns] & (sight != owner) & (sight != 0)).sum())
            own += int((sight == owner).sum())
    assert crossed == 0
    assert own > 1000


def test_spheres_leave_only_the_line_between_wall_and_ground() -> None:
    near, far = _solid("sphere", -0.8, -1.0), _solid("sphere", 0.8, -2.0)
    scene = _stage(near, far)
    out = render(scene, 256)
    wall, floor = (out.seg == SEG_CLASSES.index(name) for name in ("wall", "floor"))
    assert len(_off_the_wall_line(scene, out.segments, 256)) == 0
    assert 2 <= len(out.segments) <= 3  # the spheres cut it
    assert out.segments[:, [0, 2]].min() == pytest.approx(0, abs=0.01)
    assert out.segments[:, [0, 2]].max() == pytest.approx(256, abs=0.01)
    assert np.array_equal(out.segments[:, 1], out.segments[:, 3])  # this camera looks straight at the wall
    columns = {int(x) for a, _, b, _ in out.segments for x in np.arange(np.ceil(a) + 1, b - 1)}
    meets = np.flatnonzero((wall[:-1] & floor[1:]).any(axis=0))
    assert columns <= set(meets.tolist())
    assert len(set(meets.tolist()) - columns) < 16


def test_segments_scale_with_the_resolution() -> None:
    scene = _stage(_solid("cube", -0.8), _solid("cone", 0.8))
    small, large = render(scene, 128).segments, render(scene, 512).segments
    assert len(small) == len(large)
    assert np.abs(4 * small - large).max() < 4


def test_keypoints_are_the_joints_through_a_pinhole() -> None:
    for scene, out in _figures():
        figures = [thing for thing in scene.things if thing.pose]
        assert out.keypoints.shape == (len(figures), 18, 3)
        for thing, row in zip(figures, out.keypoints, strict=True):
            expected = _project(scene.camera, np.array([thing.joints[name] for name in KEYPOINTS]), _SIDE)
            assert row[:, :2] == pytest.approx(expected[:, :2], abs=1e-3)
    assert sum(len(out.keypoints) for _, out in _figures()) >= 40


def test_scenes_without_figures_have_no_keypoints() -> None:
    assert all(out.keypoints.shape == (0, 18, 3) for _, out in _solids_only())


def test_a_joint_outside_the_image_counts_as_outside_and_keeps_its_place() -> None:
    scene = _stage(_person(x=2.0))
    [row] = render(scene, 128).keypoints
    expected = _project(scene.camera, np.array([scene.things[0].joints[name] for name in KEYPOINTS]), 128)[:, :2]
    outside = ((expected < 0) | (expected >= 128)).any(axis=1)
    assert 3 < outside.sum() < 15
    assert np.array_equal(row[:, 2] == 0, outside)
    assert row[:, :2] == pytest.approx(expected, abs=1e-3)


def _patches(out: Render, x: float, y: float) -> tuple[Array, Array]:
    """Instances and depths of the nine pixels around a place."""
    rows, columns = (slice(max(int(v) - 1, 0), int(v) + 2) for v in (y, x))
    return out.instance[rows, columns], out.depth[rows, columns]


def test_visibility_agrees_with_instances_and_depth() -> None:
    """Where the nine pixels around a joint leave no doubt about the first surface before it."""
    seen: list[tuple[int, int]] = []
    for scene, _ in _figures()[:30]:
        out = render(scene, 384)
        figures = [(k + 1, thing) for k, thing in enumerate(scene.things) if thing.pose]
        for (k, thing), row in zip(figures, out.keypoints, strict=True):
            depths = _project(scene.camera, np.array([thing.joints[name] for name in KEYPOINTS]), 384)[:, 2]
            for (x, y, visibility), depth, slack in zip(row, depths, JOINT_SLACK * thing.extent, strict=True):
                if visibility == 0:
                    assert not (0 <= x < 384 and 0 <= y < 384)
                    continue
                instances, surface = _patches(out, x, y)
                limit = depth - slack * (instances == k).all()
                if len(np.unique(instances)) == 1 and surface.min() > limit + 0.01:
                    seen.append((2, int(visibility)))
                elif len(np.unique(instances)) == 1 and surface.max() < limit - 0.01:
                    seen.append((1, int(visibility)))
    assert all(expected == found for expected, found in seen)
    assert len(seen) > 0.7 * 18 * 30
    assert sum(expected == 2 for expected, _ in seen) > 250
    assert sum(expected == 1 for expected, _ in seen) > 50


def test_a_figure_that_faces_the_camera_is_seen_from_nose_to_ankles_left_on_the_right() -> None:
    [row] = render(_stage(_person()), 256).keypoints
    named = dict(zip(KEYPOINTS, row.tolist(), strict=True))
    assert {name for name, (_, _, visibility) in named.items() if visibility != 2} <= {"right_ear", "left_ear"}
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "eye", "ear"):
        assert named[f"left_{part}"][0] > 128 > named[f"right_{part}"][0]
    heights = [named[name][1] for name in ("left_eye", "nose", "neck", "left_hip", "left_knee", "left_ankle")]
    assert heights == sorted(heights)  # y points down


def test_a_figure_that_turns_its_back_hides_its_face_and_has_its_left_on_the_left() -> None:
    [row] = render(_stage(_person(180)), 256).keypoints
    named = dict(zip(KEYPOINTS, row.tolist(), strict=True))
    assert {named[name][2] for name in ("nose", "right_eye", "left_eye")} == {1}
    limbs = [f"{side}_{part}" for side in ("right", "left") for part in ("shoulder", "elbow", "wrist", "knee", "ankle")]
    assert {named[name][2] for name in ("neck", *limbs)} == {2}
    assert named["left_wrist"][0] < 128 < named["right_wrist"][0]


def test_what_stands_before_a_figure_hides_its_joints() -> None:
    scene = _stage(_person(z=-0.8), _solid("cube", z=0.6, extent=0.5))
    out = render(scene, 256)
    [row] = out.keypoints
    named = dict(zip(KEYPOINTS, row.tolist(), strict=True))
    for name in ("right_knee", "left_knee", "right_ankle", "left_ankle"):
        x, y, visibility = named[name]
        assert out.instance[int(y), int(x)] == 2
        assert visibility == 1
    assert {named[name][2] for name in ("nose", "neck", "right_wrist", "left_wrist")} == {2}


def test_keypoints_come_in_the_order_of_the_scene() -> None:
    left, right = _person(x=-0.9), _person(x=0.9)
    between = _solid("sphere", extent=0.3)
    one, other = render(_stage(left, between, right), 128), render(_stage(right, between, left), 128)
    assert one.keypoints[0, :, 0].max() < 64 < one.keypoints[1, :, 0].min()
    assert np.array_equal(one.keypoints, other.keypoints[::-1])
