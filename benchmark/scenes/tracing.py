"""Find what a camera ray hits first, compiled.

A ray through image position (u, v), both in units of the distance from the centre at depth 1, has the direction
forward + u right + v up: its parameter t is the depth along the optical axis.
"""

from math import sqrt

import numpy as np

from benchmark.scenes import shapes
from benchmark.scenes.packing import CENTRE, FRAME, HALF, RADIUS, SHAPE
from benchmark.scenes.shapes import MISS, compiled
from benchmark.scenes.world import WALL_Z

WALL, FLOOR = -2, -1


@compiled
def to_frame(p, k, x, y, z):
    """A world vector in the frame of primitive k."""
    return (
        p[k, FRAME] * x + p[k, FRAME + 1] * y + p[k, FRAME + 2] * z,
        p[k, FRAME + 3] * x + p[k, FRAME + 4] * y + p[k, FRAME + 5] * z,
        p[k, FRAME + 6] * x + p[k, FRAME + 7] * y + p[k, FRAME + 8] * z,
    )


@compiled
def _span(across, depth, radius):
    """Tangents of the angles between which a sphere is seen, on one axis of the image."""
    distance = sqrt(across * across + depth * depth)
    sine = min(radius / distance, 0.999)
    cosine = sqrt(1.0 - sine * sine)
    a, b = across / distance, depth / distance
    return (a * cosine - b * sine) / (b * cosine + a * sine), (a * cosine + b * sine) / (b * cosine - a * sine)


@compiled
def prepare(p, camera, light, n):
    """Return what all rays of an image share, for K primitives.

    `rects` int64 (K, 4): rows and columns (first, last + 1) outside which a primitive cannot be seen. `local` (K, 15):
    in each primitive's frame, the camera's position, the image of forward, right and up, and the lamp's direction.
    """
    count = p.shape[0]
    rects, local = np.empty((count, 4), np.int64), np.empty((count, 15))
    for k in range(count):
        x, y, z = camera[0] - p[k, CENTRE], camera[1] - p[k, CENTRE + 1], camera[2] - p[k, CENTRE + 2]
        local[k, 0:3] = to_frame(p, k, x, y, z)
        local[k, 3:6] = to_frame(p, k, camera[9], camera[10], camera[11])
        local[k, 6:9] = to_frame(p, k, camera[3], camera[4], camera[5])
        local[k, 9:12] = to_frame(p, k, camera[6], camera[7], camera[8])
        local[k, 12:15] = to_frame(p, k, light[0], light[1], light[2])
        depth = -(x * camera[9] + y * camera[10] + z * camera[11])
        across = -(x * camera[3] + y * camera[4] + z * camera[5])
        rise = -(x * camera[6] + y * camera[7] + z * camera[8])
        left, right = _span(across, depth, p[k, RADIUS])
        low, high = _span(rise, depth, p[k, RADIUS])
        k_u = 0.5 * n / camera[12]
        rects[k, 0] = max(int(0.5 * n - high * k_u), 0)
        rects[k, 1] = min(int(0.5 * n - low * k_u) + 1, n)
        rects[k, 2] = max(int(0.5 * n + left * k_u), 0)
        rects[k, 3] = min(int(0.5 * n + right * k_u) + 1, n)
    return rects, local


@compiled
def camera_ray(camera, n, row, column):
    """Return (u, v) of an image position; (0.5, 0.5) is the centre of the first pixel."""
    return (2.0 * column / n - 1.0) * camera[12], (1.0 - 2.0 * row / n) * camera[12]


@compiled
def hit_stage(camera, u, v):
    """Return (t, surface) of the ray on the ground or the wall."""
    best, surface = MISS, WALL
    dy = camera[10] + u * camera[4] + v * camera[7]
    dz = camera[11] + u * camera[5] + v * camera[8]
    if dy < -1e-9:
        best, surface = -camera[1] / dy, FLOOR
    if dz < -1e-9:
        t = (WALL_Z - camera[2]) / dz
        if t < best:
            best, surface = t, WALL
    return best, surface


@compiled
def hit_primitive(p, a, k, u, v):
    """Return t of the ray on primitive k, or MISS; a is `local`."""
    dx = a[k, 3] + u * a[k, 6] + v * a[k, 9]
    dy = a[k, 4] + u * a[k, 7] + v * a[k, 10]
    dz = a[k, 5] + u * a[k, 8] + v * a[k, 11]
    return shapes.hit(int(p[k, SHAPE]), p[k, HALF], a[k, 0], a[k, 1], a[k, 2], dx, dy, dz)


@compiled
def nearest(primitives, rects, local, camera, n, row, column):
    """Return (t, surface) of what is seen at an image position: WALL, FLOOR or a primitive's number."""
    u, v = camera_ray(camera, n, row, column)
    best, surface = hit_stage(camera, u, v)
    i, j = min(max(int(row), 0), n - 1), min(max(int(column), 0), n - 1)
    for k in range(primitives.shape[0]):
        if rects[k, 0] <= i < rects[k, 1] and rects[k, 2] <= j < rects[k, 3]:
            t = hit_primitive(primitives, local, k, u, v)
            if t < best:
                best, surface = t, k
    return best, surface
