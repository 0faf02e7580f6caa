"""Exact truth beyond the pixel: graded boundaries, straight edges cut to what is seen, keypoints with visibility."""

from math import acos, atan2, ceil, cos, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from benchmark.scenes import shapes
from benchmark.scenes.figure import KEYPOINTS
from benchmark.scenes.packing import CENTRE, FRAME, INSTANCE, SHAPE, Packed
from benchmark.scenes.shapes import compiled
from benchmark.scenes.tracing import nearest
from benchmark.scenes.world import WALL_Z, Scene

SHORTEST_SEGMENT = 0.05  # of the image's side
_STAGE_REACH = 15.0  # half the length of the line between wall and ground, metres: beyond any image
_DEPTH_SLACK = 1e-3  # relative: a point is seen if nothing is nearer than this
# How far under its own figure's surface a joint may lie and still count as seen, in statures: a hip lies deep inside
# the trunk, a wrist inside a thin arm, an eye on the face.
_SLACK = {"neck": 0.10, "shoulder": 0.10, "elbow": 0.06, "wrist": 0.05, "hip": 0.13, "knee": 0.08, "ankle": 0.07}
JOINT_SLACK = np.array([_SLACK.get(name.rpartition("_")[2], 0.02) for name in KEYPOINTS])

Traced = tuple[NDArray[np.int64], NDArray[np.float64]]


@compiled
def boundaries(instance, face, normal):
    """Return float32 (R, R): the strongest boundary between a pixel and its four neighbours.

    Between two objects, or an object and the stage, the strength is 1; between two smooth faces of one object it is
    sin(angle / 2) of their normals: 0.71 along the edge of a cube and where wall meets ground, about 0 at a joint.

    Args:
        instance: (R, R), which object.
        face: (R, R), which smooth face.
        normal: (R, R, 3), unit.
    """
    n = instance.shape[0]
    out = np.zeros((n, n), np.float32)
    for i in range(n):
        for j in range(n):
            for di, dj in ((0, 1), (1, 0)):
                a, b = i + di, j + dj
                if a == n or b == n or face[i, j] == face[a, b]:
                    continue
                strength = 1.0
                if instance[i, j] == instance[a, b]:
                    dot = 0.0
                    for c in range(3):
                        dot += normal[i, j, c] * normal[a, b, c]
                    strength = sqrt(max(0.5 - 0.5 * dot, 0.0))
                out[i, j] = max(out[i, j], np.float32(strength))
                out[a, b] = max(out[a, b], np.float32(strength))
    return out


def segments(packed: Packed, traced: Traced, resolution: int) -> NDArray[np.float32]:
    """Return visible straight edges, float32 (L, 4) as (x0, y0, x1, y1) in pixels.

    Edges of cubes, outlines of cylinders and cones, and the line between wall and ground, each cut where something
    hides it; pieces shorter than SHORTEST_SEGMENT of the image are left out.
    """
    edges = _edges(packed.primitives, traced[1])
    pieces: NDArray[np.float32] = _visible_pieces(edges, packed.primitives, *traced, packed.camera, resolution)
    return pieces


@compiled
def _edges(primitives, local):
    """Return the straight edges in world coordinates, (E, 2, 3)."""
    out = np.empty((12 * primitives.shape[0] + 1, 2, 3))
    out[0, 0] = -_STAGE_REACH, 0.0, WALL_Z
    out[0, 1] = _STAGE_REACH, 0.0, WALL_Z
    count = 1
    for k in range(primitives.shape[0]):
        shape = int(primitives[k, SHAPE])
        if shape == shapes.BOX:
            count = _box_edges(primitives[k], local[k], out, count)
        elif shape == shapes.CYLINDER or shape == shapes.CONE:
            count = _outline(primitives[k], local[k], shape, out, count)
    return out[:count]


@compiled
def _to_world(p, x, y, z, out):
    """Write the world position of a point in a primitive's frame, whose rows are orthogonal."""
    for c in range(3):
        out[c] = p[CENTRE + c]
    for row, value in ((0, x), (3, y), (6, z)):
        a, b, d = p[FRAME + row], p[FRAME + row + 1], p[FRAME + row + 2]
        k = value / (a * a + b * b + d * d)
        out[0] += k * a
        out[1] += k * b
        out[2] += k * d


@compiled
def _box_edges(p, place, out, count):
    """Write the edges of a box that belong to a face turned to the camera."""
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        for sb in (-1.0, 1.0):
            for sc in (-1.0, 1.0):
                if sb * place[b] <= 1.0 and sc * place[c] <= 1.0:
                    continue
                for end in range(2):
                    corner = np.empty(3)
                    corner[axis], corner[b], corner[c] = 2.0 * end - 1.0, sb, sc
                    _to_world(p, corner[0], corner[1], corner[2], out[count, end])
                count += 1
    return count


@compiled
def _outline(p, place, shape, out, count):
    """Write the two straight lines along which sight grazes a cylinder or cone; none where it does not."""
    distance = sqrt(place[0] * place[0] + place[2] * place[2])
    cosine = (1.0 if shape == shapes.CYLINDER else 0.5 * (1.0 - place[1])) / distance
    if abs(cosine) >= 1.0:
        return count
    middle, half = atan2(place[2], place[0]), acos(cosine)
    for angle in (middle - half, middle + half):
        x, z = cos(angle), sin(angle)
        _to_world(p, x, -1.0, z, out[count, 0])
        if shape == shapes.CYLINDER:
            _to_world(p, x, 1.0, z, out[count, 1])
        else:
            _to_world(p, 0.0, 1.0, 0.0, out[count, 1])
        count += 1
    return count


@compiled
def _in_camera(camera, point):
    """Return (across, rise, depth) of a world point."""
    x, y, z = point[0] - camera[0], point[1] - camera[1], point[2] - camera[2]
    return (
        x * camera[3] + y * camera[4] + z * camera[5],
        x * camera[6] + y * camera[7] + z * camera[8],
        x * camera[9] + y * camera[10] + z * camera[11],
    )


@compiled
def _clip(a, b, extent):
    """Return the part (first, last) of a line from a to b, camera space, that lies inside the image."""
    first, last = 0.0, 1.0
    for axis in range(2):
        for sign in (-1.0, 1.0):
            inside_a, inside_b = extent * a[2] - sign * a[axis], extent * b[2] - sign * b[axis]
            if inside_a < 0.0 and inside_b < 0.0:
                return 1.0, 0.0
            if inside_a < 0.0:
                first = max(first, inside_a / (inside_a - inside_b))
            elif inside_b < 0.0:
                last = min(last, inside_a / (inside_a - inside_b))
    return first, last


@compiled
def _mix(a, b, share):
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])


@compiled
def _visible_pieces(edges, primitives, rects, local, camera, n):
    out = np.empty((4 * edges.shape[0], 4), np.float32)
    count, shortest, k = 0, SHORTEST_SEGMENT * n, 0.5 * n / camera[12]
    for e in range(edges.shape[0]):
        a, b = _in_camera(camera, edges[e, 0]), _in_camera(camera, edges[e, 1])
        first, last = _clip(a, b, camera[12])
        if first >= last:
            continue
        a, b = _mix(a, b, first), _mix(a, b, last)
        ax, ay = 0.5 * n + k * a[0] / a[2], 0.5 * n - k * a[1] / a[2]
        bx, by = 0.5 * n + k * b[0] / b[2], 0.5 * n - k * b[1] / b[2]
        length = sqrt((bx - ax) ** 2 + (by - ay) ** 2)
        steps = ceil(2.0 * length) + 1
        start = -1
        for step in range(steps + 2):
            seen = False
            if step <= steps:
                s = step / steps
                depth = 1.0 / ((1.0 - s) / a[2] + s / b[2])
                t, _ = nearest(primitives, rects, local, camera, n, ay + s * (by - ay), ax + s * (bx - ax))
                seen = t >= depth * (1.0 - _DEPTH_SLACK)
            if seen and start < 0:
                start = step
            elif not seen and start >= 0:
                s0, s1 = start / steps, (step - 1) / steps
                if (s1 - s0) * length >= shortest and count < out.shape[0]:
                    out[count, 0], out[count, 1] = ax + s0 * (bx - ax), ay + s0 * (by - ay)
                    out[count, 2], out[count, 3] = ax + s1 * (bx - ax), ay + s1 * (by - ay)
                    count += 1
                start = -1
    return out[:count].copy()


def keypoints(scene: Scene, packed: Packed, traced: Traced, resolution: int) -> NDArray[np.float32]:
    """Return float32 (P, 18, 3) for the figures in order: x, y in pixels, and 2 if seen, 1 if hidden, 0 if outside.

    A joint lies inside its limb; it is seen if the first surface in front of it is the figure's own and no more than
    JOINT_SLACK statures nearer.
    """
    figures = [(i, thing) for i, thing in enumerate(scene.things) if thing.pose is not None]
    out = np.zeros((len(figures), len(KEYPOINTS), 3), np.float32)
    for row, (instance, thing) in zip(out, figures, strict=True):
        points = np.array([thing.joints[name] for name in KEYPOINTS])
        slack = JOINT_SLACK * thing.extent
        _see(points, slack, instance, packed.primitives, *traced, packed.camera, resolution, row)
    return out


@compiled
def _see(points, slack, instance, primitives, rects, local, camera, n, out):
    k = 0.5 * n / camera[12]
    for i in range(points.shape[0]):
        across, rise, depth = _in_camera(camera, points[i])
        x, y = 0.5 * n + k * across / depth, 0.5 * n - k * rise / depth
        out[i, 0], out[i, 1] = x, y
        if x < 0 or y < 0 or x >= n or y >= n:
            continue
        t, surface = nearest(primitives, rects, local, camera, n, y, x)
        # A point on the outline can be missed by a hair: then what is seen there lies behind it.
        own = surface >= 0 and int(primitives[surface, INSTANCE]) == instance
        out[i, 2] = 2.0 if t >= depth or (own and t >= depth - slack[i]) else 1.0
