"""Render scenes by analytic ray casting: the image, and the exact truth at every pixel centre.

The image is supersampled where neighbouring pixels differ; the truth never is, so segmentation, depth and normals hold
the value at the pixel centre and not a mixture.
"""

from dataclasses import dataclass
from math import floor, sqrt

import numpy as np
from numpy.typing import NDArray

from benchmark.scenes import shapes
from benchmark.scenes.packing import (
    CENTRE,
    FACE,
    FRAME,
    GLOSSY,
    HALF,
    INSTANCE,
    MATERIAL,
    PAINT,
    RADIUS,
    SECOND_PAINT,
    SHAPE,
    STRIPED,
    STRIPES,
    pack,
)
from benchmark.scenes.palette import KINDS
from benchmark.scenes.shapes import MISS, compiled, inlined
from benchmark.scenes.tracing import FLOOR, WALL, camera_ray, hit_primitive, hit_stage, prepare, to_frame
from benchmark.scenes.truth import boundaries, keypoints, segments
from benchmark.scenes.world import Scene

FIRST_KIND = 2
_EDGE_CONTRAST = 0.05  # linear light; a pixel that differs more from a neighbour is drawn with a grid of rays
# Where in an edge pixel rays go besides its centre: a rotated grid, so that nearly level and nearly upright edges get
# five shades too.
_GRID = ((0.125, 0.375), (0.375, 0.875), (0.625, 0.125), (0.875, 0.625))
_LEVELS = 4096


@dataclass(frozen=True)
class Render:
    """A rendered scene of side R; positions on the image are in pixels, (0.5, 0.5) is the centre of the first.

    Attributes:
        image: uint8 (R, R, 3), sRGB.
        seg: uint16 (R, R), index into `palette.SEG_CLASSES`.
        instance: uint16 (R, R), 0 for wall and floor, 1 + the object's position in the scene elsewhere.
        depth: float32 (R, R), metres along the optical axis.
        normal: float32 (R, R, 3), unit, camera space: x right, y up, z towards the viewer.
        boundary: float32 (R, R) in [0, 1], 1 along outlines of objects, less along creases (`truth.boundaries`).
        segments: float32 (L, 4), visible straight edges as (x0, y0, x1, y1) (`truth.segments`).
        keypoints: float32 (P, 18, 3), figures in the order of the scene: x, y and visibility, which is 2 where seen,
            1 where hidden, 0 outside the image (`truth.keypoints`).
    """

    image: NDArray[np.uint8]
    seg: NDArray[np.uint16]
    instance: NDArray[np.uint16]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    boundary: NDArray[np.float32]
    segments: NDArray[np.float32]
    keypoints: NDArray[np.float32]


def render(scene: Scene, resolution: int) -> Render:
    """Render a scene at a resolution (pixels a side)."""
    packed = pack(scene)
    traced = prepare(packed.primitives, packed.camera, packed.light, resolution)
    image, surface, face, depth, normal = _render(
        packed.primitives, packed.objects, packed.camera, packed.light, packed.stage, *traced, resolution, _SRGB
    )
    kinds = np.array([0, 1, *(FIRST_KIND + KINDS.index(thing.kind) for thing in scene.things)], dtype=np.uint16)
    owners = np.concatenate([[0, 1], packed.primitives[:, INSTANCE].astype(np.int64) + 2])[surface + 2]
    instance = np.maximum(owners - 1, 0).astype(np.uint16)
    return Render(
        image=image,
        seg=kinds[owners],
        instance=instance,
        depth=depth,
        normal=normal,
        boundary=boundaries(instance, face, normal),
        segments=segments(packed, traced, resolution),
        keypoints=keypoints(scene, packed, traced, resolution),
    )


def _srgb_table() -> NDArray[np.uint8]:
    """Linear light in _LEVELS + 1 steps as sRGB bytes (IEC 61966-2-1)."""
    v = np.arange(_LEVELS + 1) / _LEVELS
    encoded = np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
    return np.asarray(encoded * 255.0 + 0.5, dtype=np.uint8)


_SRGB = _srgb_table()


@inlined
def _in_shadow(p, objects, a, x, y, z, lx, ly, lz):
    """Whether anything stands between a point and the lamp."""
    for k in range(objects.shape[0]):
        wx, wy, wz = objects[k, 0] - x, objects[k, 1] - y, objects[k, 2] - z
        along = wx * lx + wy * ly + wz * lz
        r = objects[k, 3]
        if along < -r or wx * wx + wy * wy + wz * wz - along * along > r * r:
            continue
        for i in range(int(objects[k, 4]), int(objects[k, 5])):
            wx, wy, wz = p[i, CENTRE] - x, p[i, CENTRE + 1] - y, p[i, CENTRE + 2] - z
            along = wx * lx + wy * ly + wz * lz
            r = p[i, RADIUS]
            if along < -r or wx * wx + wy * wy + wz * wz - along * along > r * r:
                continue
            ox, oy, oz = to_frame(p, i, -wx, -wy, -wz)
            if shapes.hit(int(p[i, SHAPE]), p[i, HALF], ox, oy, oz, a[i, 12], a[i, 13], a[i, 14]) < MISS:
                return True
    return False


@inlined
def _contact(objects, x, z):
    """Share of sky light left on the ground near what stands on it: 1 far away, about 0.5 at a foot."""
    light = 1.0
    for k in range(objects.shape[0]):
        dx, dz = x - objects[k, 0], z - objects[k, 2]
        gap = max(sqrt(dx * dx + dz * dz) / objects[k, 6] - 0.8, 0.0)
        light *= 1.0 - 0.5 / (1.0 + 9.0 * gap * gap)
    return light


@compiled
def _even(x):
    """Whether the cell of unit length that holds x is an even one."""
    return floor(x) & 1 == 0


@compiled
def _lattice(ix, iz):
    """A fixed pseudo-random value in [0, 1) for an integer cell."""
    n = (ix * 374761393 + iz * 668265263) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65536.0


@compiled
def _noise(x, z):
    """Smooth value noise in [0, 1) with unit cells."""
    fx, fz = floor(x), floor(z)
    ix, iz = int(fx), int(fz)
    fx, fz = x - fx, z - fz
    fx, fz = fx * fx * (3 - 2 * fx), fz * fz * (3 - 2 * fz)
    near = _lattice(ix, iz) * (1 - fx) + _lattice(ix + 1, iz) * fx
    far = _lattice(ix, iz + 1) * (1 - fx) + _lattice(ix + 1, iz + 1) * fx
    return near * (1 - fz) + far * fz


@inlined
def _ground_mix(kind, x, z):
    """Share of the first tone of a ground at a point: wooden, tiled, grassy, sandy."""
    if kind == 0:
        plank = floor(z * 1.6)
        return 0.75 * _lattice(int(plank), 3) + 0.25 * _noise(x * 1.2 + 7.0 * plank, z * 9.0)
    if kind == 1:
        return 1.0 if _even(x * 0.9) == _even(z * 0.9) else 0.0
    if kind == 2:
        return 0.6 * _noise(x * 2.2, z * 2.2) + 0.4 * _noise(x * 6.0, z * 6.0)
    return 0.7 * _noise(x * 1.1, z * 2.6) + 0.3 * _noise(x * 5.0, z * 5.0)


@inlined
def _wall_mix(kind, x, y):
    """Share of the first tone of a wall at a point: plain, brick, panelled, papered."""
    if kind == 0:
        return _noise(x * 0.8, y * 0.8)
    if kind == 1:
        course = floor(y * 2.4)
        joint_x, joint_y = x * 1.1 + (0.0 if _even(course) else 0.5), y * 2.4
        if joint_y - course < 0.14 or joint_x - floor(joint_x) < 0.07:
            return 0.0
        return 0.75 + 0.25 * _lattice(floor(joint_x), int(course))
    if kind == 2:
        board = x * 1.5
        return 0.0 if board - floor(board) < 0.09 else 0.75 + 0.25 * _lattice(floor(board), 7)
    return 1.0 if _even(x * 1.9) else 0.0


@compiled
def _paint(p, i, y, z):
    """Albedo of primitive i at a height and depth of its own frame, and its gloss."""
    material, k = int(p[i, MATERIAL]), PAINT
    if (material == STRIPED and _even(y * p[i, STRIPES] + 0.5)) or (material == FACE and (z < 0.1 or y > 0.6)):
        k = SECOND_PAINT
    return p[i, k], p[i, k + 1], p[i, k + 2], 0.75 if material == GLOSSY else 0.0


@inlined
def _surface(p, a, k, u, v, t):
    """Unit world normal, face number, and height and depth within its own frame, of a hit on surface k."""
    if k == FLOOR:
        return 0.0, 1.0, 0.0, 1, 0.0, 0.0
    if k == WALL:
        return 0.0, 0.0, 1.0, 0, 0.0, 0.0
    x = a[k, 0] + t * (a[k, 3] + u * a[k, 6] + v * a[k, 9])
    y = a[k, 1] + t * (a[k, 4] + u * a[k, 7] + v * a[k, 10])
    z = a[k, 2] + t * (a[k, 5] + u * a[k, 8] + v * a[k, 11])
    mx, my, mz, face = shapes.normal(int(p[k, SHAPE]), p[k, HALF], x, y, z)
    nx = p[k, FRAME] * mx + p[k, FRAME + 3] * my + p[k, FRAME + 6] * mz
    ny = p[k, FRAME + 1] * mx + p[k, FRAME + 4] * my + p[k, FRAME + 7] * mz
    nz = p[k, FRAME + 2] * mx + p[k, FRAME + 5] * my + p[k, FRAME + 8] * mz
    s = 1.0 / sqrt(nx * nx + ny * ny + nz * nz)
    return s * nx, s * ny, s * nz, 2 + 8 * k + face, y, z


@inlined
def _shade(primitives, objects, camera, light, stage, local, u, v, t, surface, nx, ny, nz, height, front):
    """Linear RGB of a hit: Lambert with sky light, hard shadow, Blinn-Phong gloss; at most 1."""
    dx = camera[9] + u * camera[3] + v * camera[6]
    dy = camera[10] + u * camera[4] + v * camera[7]
    dz = camera[11] + u * camera[5] + v * camera[8]
    x, y, z = camera[0] + t * dx, camera[1] + t * dy, camera[2] + t * dz
    lx, ly, lz = light[0], light[1], light[2]
    gloss, sky = 0.0, 0.65 + 0.35 * ny
    if surface < 0:
        if surface == FLOOR:
            k, mix = 0, _ground_mix(int(stage[0]), x + stage[14], z + stage[15])
            sky *= _contact(objects, x, z)
        else:
            k, mix = 7, _wall_mix(int(stage[7]), x + stage[14], y)
            sky *= 1.0 - 0.45 / (1.0 + 4.0 * y * y)
        rest = 1.0 - mix
        r = mix * stage[k + 1] + rest * stage[k + 4]
        g = mix * stage[k + 2] + rest * stage[k + 5]
        b = mix * stage[k + 3] + rest * stage[k + 6]
    else:
        r, g, b, gloss = _paint(primitives, surface, height, front)
    facing = nx * lx + ny * ly + nz * lz
    sun, shine = 0.0, 0.0
    if facing > 0.0 and not _in_shadow(
        primitives, objects, local, x + 1e-4 * nx, y + 1e-4 * ny, z + 1e-4 * nz, lx, ly, lz
    ):
        sun = facing
    if gloss > 0.0:
        unit = 1.0 / sqrt(dx * dx + dy * dy + dz * dz)
        hx, hy, hz = lx - unit * dx, ly - unit * dy, lz - unit * dz
        if sun > 0.0:
            shine = gloss * (max(nx * hx + ny * hy + nz * hz, 0.0) / sqrt(hx * hx + hy * hy + hz * hz)) ** 48
        # It also mirrors a bright sky at grazing angles.
        shine += 0.35 * gloss * max(1.0 + unit * (nx * dx + ny * dy + nz * dz), 0.0) ** 3
    return (
        min(r * (sky * light[6] + sun * light[3]) + shine, 1.0),
        min(g * (sky * light[7] + sun * light[4]) + shine, 1.0),
        min(b * (sky * light[8] + sun * light[5]) + shine, 1.0),
    )


@compiled
def _trace_pixels(primitives, camera, rects, local, n):
    """Depth and surface at every pixel centre: each primitive in its own rectangle, the nearest wins."""
    depth, surface = np.empty((n, n)), np.empty((n, n), np.int64)
    for i in range(n):
        for j in range(n):
            u, v = camera_ray(camera, n, i + 0.5, j + 0.5)
            depth[i, j], surface[i, j] = hit_stage(camera, u, v)
    for k in range(primitives.shape[0]):
        for i in range(rects[k, 0], rects[k, 1]):
            for j in range(rects[k, 2], rects[k, 3]):
                u, v = camera_ray(camera, n, i + 0.5, j + 0.5)
                t = hit_primitive(primitives, local, k, u, v)
                if t < depth[i, j]:
                    depth[i, j], surface[i, j] = t, k
    return depth, surface


@compiled
def _edges(colour):
    """Whether each pixel differs from one of its four neighbours."""
    n = colour.shape[0]
    edges = np.zeros((n, n), np.bool_)
    for i in range(n):
        for j in range(n):
            for a, b in ((min(i + 1, n - 1), j), (i, min(j + 1, n - 1))):
                contrast = max(
                    abs(colour[i, j, 0] - colour[a, b, 0]),
                    abs(colour[i, j, 1] - colour[a, b, 1]),
                    abs(colour[i, j, 2] - colour[a, b, 2]),
                )
                if contrast > _EDGE_CONTRAST:
                    edges[i, j] = edges[a, b] = True
    return edges


@compiled
def _supersample(primitives, objects, camera, light, stage, rects, local, n, i, j, near, r, g, b):
    """Mean linear RGB of a pixel over its centre (r, g, b) and a grid; `near` is room for what may be seen in it."""
    count = 0
    for k in range(primitives.shape[0]):
        if rects[k, 0] <= i < rects[k, 1] and rects[k, 2] <= j < rects[k, 3]:
            near[count] = k
            count += 1
    for row, column in _GRID:
        u, v = camera_ray(camera, n, i + row, j + column)
        t, surface = hit_stage(camera, u, v)
        for m in range(count):
            other = hit_primitive(primitives, local, near[m], u, v)
            if other < t:
                t, surface = other, near[m]
        nx, ny, nz, _, y, z = _surface(primitives, local, surface, u, v, t)
        pr, pg, pb = _shade(primitives, objects, camera, light, stage, local, u, v, t, surface, nx, ny, nz, y, z)
        r, g, b = r + pr, g + pg, b + pb
    share = 1.0 / (1 + len(_GRID))
    return r * share, g * share, b * share


@compiled
def _render(primitives, objects, camera, light, stage, rects, local, n, srgb):
    """Image, surfaces, faces, depth and camera-space normals of a packed scene."""
    depth, surface = _trace_pixels(primitives, camera, rects, local, n)
    colour, normal = np.empty((n, n, 3)), np.empty((n, n, 3), np.float32)
    face = np.empty((n, n), np.int64)
    for i in range(n):
        for j in range(n):
            u, v = camera_ray(camera, n, i + 0.5, j + 0.5)
            t, s = depth[i, j], surface[i, j]
            nx, ny, nz, face[i, j], y, z = _surface(primitives, local, s, u, v, t)
            normal[i, j, 0] = nx * camera[3] + ny * camera[4] + nz * camera[5]
            normal[i, j, 1] = nx * camera[6] + ny * camera[7] + nz * camera[8]
            normal[i, j, 2] = -(nx * camera[9] + ny * camera[10] + nz * camera[11])
            r, g, b = _shade(primitives, objects, camera, light, stage, local, u, v, t, s, nx, ny, nz, y, z)
            colour[i, j, 0], colour[i, j, 1], colour[i, j, 2] = r, g, b
    edges = _edges(colour)
    image, near = np.empty((n, n, 3), np.uint8), np.empty(primitives.shape[0], np.int64)
    for i in range(n):
        for j in range(n):
            r, g, b = colour[i, j, 0], colour[i, j, 1], colour[i, j, 2]
            if edges[i, j]:
                r, g, b = _supersample(primitives, objects, camera, light, stage, rects, local, n, i, j, near, r, g, b)
            image[i, j, 0] = srgb[int(r * (len(srgb) - 1) + 0.5)]
            image[i, j, 1] = srgb[int(g * (len(srgb) - 1) + 0.5)]
            image[i, j, 2] = srgb[int(b * (len(srgb) - 1) + 0.5)]
    return image, surface, face, depth.astype(np.float32), normal
