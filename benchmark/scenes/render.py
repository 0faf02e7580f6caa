"""Render scenes by analytic ray casting: the image, and the exact truth at every pixel centre.

One compiled scalar routine per job; the image is supersampled where neighbouring pixels differ, the truth never is,
so segmentation, depth and normals hold the value at the pixel centre and not a mixture.
"""

from dataclasses import dataclass
from math import cos, floor, sin, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmark.scenes.palette import COLOURS, GROUNDS, KINDS, MATERIALS, WALLS
from benchmark.scenes.world import WALL_Z, Scene

WALL, FLOOR, FIRST_SOLID = 0, 1, 2
_MISS = 1e30
_EDGE_CONTRAST = 0.05  # linear light; a pixel that differs more from a neighbour is drawn with 4 x 4 rays
_RAYS_PER_EDGE = 4
_STRIPES_PER_RADIUS = 2.6


@dataclass(frozen=True)
class Render:
    """A rendered scene of side R.

    Attributes:
        image: uint8 (R, R, 3), sRGB.
        seg: uint16 (R, R), index into `palette.SEG_CLASSES`.
        instance: uint16 (R, R), 0 for wall and floor, 1 + the solid's position in the scene elsewhere.
        depth: float32 (R, R), metres along the optical axis.
        normal: float32 (R, R, 3), unit, camera space: x right, y up, z towards the viewer.
    """

    image: NDArray[np.uint8]
    seg: NDArray[np.uint16]
    instance: NDArray[np.uint16]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]


def render(scene: Scene, resolution: int) -> Render:
    """Render a scene at a resolution (pixels a side)."""
    solids, camera, stage = _pack_solids(scene), _pack_camera(scene), _pack_stage(scene)
    image, surface, depth, normal = _render(solids, camera, stage, resolution)
    kinds = np.array([WALL, FLOOR, *(FIRST_SOLID + KINDS.index(s.kind) for s in scene.solids)], dtype=np.uint16)
    instance = np.where(surface >= FIRST_SOLID, surface - FIRST_SOLID + 1, 0).astype(np.uint16)
    return Render(image, kinds[surface], instance, depth, normal)


def _pack_solids(scene: Scene) -> NDArray[np.float64]:
    rows = [
        [
            KINDS.index(s.kind),
            *s.centre,
            s.radius,
            cos(s.yaw),
            sin(s.yaw),
            MATERIALS.index(s.material),
            *COLOURS[s.colour],
        ]
        for s in scene.solids
    ]
    return np.array(rows, dtype=np.float64)


def _pack_camera(scene: Scene) -> NDArray[np.float64]:
    c = scene.camera
    return np.concatenate([c.position, c.right, c.up, c.forward, [c.half_extent]])


def _pack_stage(scene: Scene) -> NDArray[np.float64]:
    _, light_tone, dark_tone = GROUNDS[scene.ground]
    ground = list(GROUNDS).index(scene.ground)
    return np.array(
        [
            *scene.light,
            scene.ambient,
            ground,
            *light_tone,
            *dark_tone,
            *WALLS[scene.wall],
            *scene.texture_offset,
            WALL_Z,
        ]
    )


@njit(cache=True)
def _sphere(ox, oy, oz, dx, dy, dz):
    """Nearest hit of the unit sphere at the origin: (t, normal)."""
    a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1.0
    disc = b * b - a * c
    if disc <= 0.0:
        return _MISS, 0.0, 0.0, 0.0
    t = (-b - sqrt(disc)) / a
    if t <= 1e-6:
        return _MISS, 0.0, 0.0, 0.0
    return t, ox + t * dx, oy + t * dy, oz + t * dz


@njit(cache=True)
def _slab(o, d, half):
    """Entry and exit of one axis-parallel slab |x| <= half."""
    if abs(d) < 1e-12:
        return (-_MISS, _MISS) if abs(o) <= half else (_MISS, -_MISS)
    near, far = (-half - o) / d, (half - o) / d
    return (near, far) if near < far else (far, near)


@njit(cache=True)
def _cube(ox, oy, oz, dx, dy, dz):
    """Nearest hit of the box |x|, |z| <= 0.82, |y| <= 1: (t, normal)."""
    nx, fx = _slab(ox, dx, 0.82)
    ny, fy = _slab(oy, dy, 1.0)
    nz, fz = _slab(oz, dz, 0.82)
    near, far = max(nx, ny, nz), min(fx, fy, fz)
    if near > far or near <= 1e-6:
        return _MISS, 0.0, 0.0, 0.0
    if near == nx:
        return near, -1.0 if dx > 0 else 1.0, 0.0, 0.0
    if near == ny:
        return near, 0.0, -1.0 if dy > 0 else 1.0, 0.0
    return near, 0.0, 0.0, -1.0 if dz > 0 else 1.0


@njit(cache=True)
def _cylinder(ox, oy, oz, dx, dy, dz):
    """Nearest hit of the upright cylinder of radius 0.8 and |y| <= 1, with its caps: (t, normal)."""
    best, px, py, pz = _MISS, 0.0, 0.0, 0.0
    a, b, c = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - 0.64
    disc = b * b - a * c
    if a > 1e-12 and disc > 0.0:
        t = (-b - sqrt(disc)) / a
        if t > 1e-6 and abs(oy + t * dy) <= 1.0:
            best, px, pz = t, (ox + t * dx) / 0.8, (oz + t * dz) / 0.8
    if abs(dy) > 1e-12:
        side = -1.0 if dy > 0 else 1.0
        t = (side - oy) / dy
        x, z = ox + t * dx, oz + t * dz
        if 1e-6 < t < best and x * x + z * z <= 0.64:
            best, px, py, pz = t, 0.0, side, 0.0
    return best, px, py, pz


@njit(cache=True)
def _cone(ox, oy, oz, dx, dy, dz):
    """Nearest hit of the upright cone, base radius 1 at y = -1, apex at y = 1, with its base: (t, normal)."""
    best, px, py, pz = _MISS, 0.0, 0.0, 0.0
    h = 1.0 - oy  # x^2 + z^2 = ((1 - y) / 2)^2
    a = dx * dx + dz * dz - 0.25 * dy * dy
    b = ox * dx + oz * dz + 0.25 * h * dy
    c = ox * ox + oz * oz - 0.25 * h * h
    disc = b * b - a * c
    if abs(a) > 1e-12 and disc > 0.0:
        root = sqrt(disc)
        for t in ((-b - root) / a, (-b + root) / a):
            y = oy + t * dy
            if 1e-6 < t < best and -1.0 <= y <= 1.0:
                x, z = ox + t * dx, oz + t * dz
                length = sqrt(x * x + z * z + 0.0625 * (1.0 - y) * (1.0 - y)) + 1e-12
                best, px, py, pz = t, x / length, 0.25 * (1.0 - y) / length, z / length
    if dy > 1e-12:
        t = (-1.0 - oy) / dy
        x, z = ox + t * dx, oz + t * dz
        if 1e-6 < t < best and x * x + z * z <= 1.0:
            best, px, py, pz = t, 0.0, -1.0, 0.0
    return best, px, py, pz


@njit(cache=True)
def _hit_solid(solid, ox, oy, oz, dx, dy, dz):
    """Nearest hit of one solid: (t, world normal, height within the solid in radii)."""
    s, c, k = solid[6], solid[5], 1.0 / solid[4]
    x, y, z = (ox - solid[1]) * k, (oy - solid[2]) * k, (oz - solid[3]) * k
    lox, loz = c * x - s * z, s * x + c * z
    ldx, ldy, ldz = (c * dx - s * dz) * k, dy * k, (s * dx + c * dz) * k
    kind = int(solid[0])
    if kind == 0:
        t, nx, ny, nz = _sphere(lox, y, loz, ldx, ldy, ldz)
    elif kind == 1:
        t, nx, ny, nz = _cube(lox, y, loz, ldx, ldy, ldz)
    elif kind == 2:
        t, nx, ny, nz = _cylinder(lox, y, loz, ldx, ldy, ldz)
    else:
        t, nx, ny, nz = _cone(lox, y, loz, ldx, ldy, ldz)
    return t, c * nx + s * nz, ny, -s * nx + c * nz, y + t * ldy


@njit(cache=True)
def _trace(solids, wall_z, ox, oy, oz, dx, dy, dz):
    """Nearest surface along a ray: (t, surface id, normal, height within the solid)."""
    best, surface, nx, ny, nz, height = _MISS, WALL, 0.0, 0.0, 1.0, 0.0
    if dy < -1e-9:
        t = -oy / dy
        if t > 1e-6:
            best, surface, nx, ny, nz = t, FLOOR, 0.0, 1.0, 0.0
    if dz < -1e-9:
        t = (wall_z - oz) / dz
        if 1e-6 < t < best:
            best, surface, nx, ny, nz = t, WALL, 0.0, 0.0, 1.0
    for k in range(solids.shape[0]):
        t, sx, sy, sz, h = _hit_solid(solids[k], ox, oy, oz, dx, dy, dz)
        if t < best:
            best, surface, nx, ny, nz, height = t, FIRST_SOLID + k, sx, sy, sz, h
    return best, surface, nx, ny, nz, height


@njit(cache=True)
def _in_shadow(solids, x, y, z, lx, ly, lz):
    """Whether any solid stands between a point and the light."""
    for k in range(solids.shape[0]):
        t, _, _, _, _ = _hit_solid(solids[k], x, y, z, lx, ly, lz)
        if t < _MISS:
            return True
    return False


@njit(cache=True)
def _contact(solids, x, z):
    """Light lost on the ground near the solids that stand on it: 1 far away, about 0.5 at a foot."""
    light = 1.0
    for k in range(solids.shape[0]):
        r = solids[k, 4]
        gap = max(sqrt((x - solids[k, 1]) ** 2 + (z - solids[k, 3]) ** 2) / r - 0.8, 0.0)
        light *= 1.0 - 0.5 / (1.0 + 9.0 * gap * gap)
    return light


@njit(cache=True)
def _lattice(ix, iz):
    """A fixed pseudo-random value in [0, 1) for an integer cell."""
    n = (ix * 374761393 + iz * 668265263) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65536.0


@njit(cache=True)
def _noise(x, z):
    """Smooth value noise in [0, 1) with unit cells."""
    ix, iz = floor(x), floor(z)
    fx, fz = x - ix, z - iz
    fx, fz = fx * fx * (3 - 2 * fx), fz * fz * (3 - 2 * fz)
    ix, iz = int(ix), int(iz)
    near = _lattice(ix, iz) * (1 - fx) + _lattice(ix + 1, iz) * fx
    far = _lattice(ix, iz + 1) * (1 - fx) + _lattice(ix + 1, iz + 1) * fx
    return near * (1 - fz) + far * fz


@njit(cache=True)
def _ground_mix(kind, x, z):
    """Share of the light tone of a ground at a point: wooden, tiled, grassy, sandy."""
    if kind == 0:
        plank = floor(z * 1.6)
        grain = 0.25 * _noise(x * 1.2 + 7.0 * plank, z * 9.0)
        return 0.75 * _lattice(int(plank), 3) + grain
    if kind == 1:
        return 1.0 if (floor(x * 0.9) + floor(z * 0.9)) % 2 == 0 else 0.0
    if kind == 2:
        return 0.6 * _noise(x * 2.2, z * 2.2) + 0.4 * _noise(x * 6.0, z * 6.0)
    return 0.7 * _noise(x * 1.1, z * 2.6) + 0.3 * _noise(x * 5.0, z * 5.0)


@njit(cache=True)
def _shade(solids, camera, stage, dx, dy, dz, t, surface, nx, ny, nz, height):
    """Linear RGB of a hit: Lambert with sky light, hard shadow, Blinn-Phong gloss."""
    x, y, z = camera[0] + t * dx, camera[1] + t * dy, camera[2] + t * dz
    lx, ly, lz, ambient = stage[0], stage[1], stage[2], stage[3]
    gloss = 0.0
    if surface == FLOOR:
        mix = _ground_mix(int(stage[4]), x + stage[14], z + stage[15])
        ambient *= _contact(solids, x, z)
        rest = 1.0 - mix
        r, g, b = mix * stage[5] + rest * stage[8], mix * stage[6] + rest * stage[9], mix * stage[7] + rest * stage[10]
    elif surface == WALL:
        r, g, b = stage[11], stage[12], stage[13]
        ambient *= 1.0 - 0.45 / (1.0 + 4.0 * y * y)
    else:
        solid = solids[surface - FIRST_SOLID]
        r, g, b = solid[8], solid[9], solid[10]
        if solid[7] == 1.0:
            gloss = 0.75
        elif solid[7] == 2.0 and floor(height * _STRIPES_PER_RADIUS + 0.5) % 2 == 0:
            r, g, b = 0.25 + 0.75 * r, 0.25 + 0.75 * g, 0.25 + 0.75 * b
    facing = nx * lx + ny * ly + nz * lz
    sky = ambient * (0.65 + 0.35 * ny)
    sun, shine = 0.0, 0.0
    if facing > 0.0 and not _in_shadow(solids, x + 1e-4 * nx, y + 1e-4 * ny, z + 1e-4 * nz, lx, ly, lz):
        sun = 0.95 * facing
        if gloss > 0.0:
            hx, hy, hz = lx - dx, ly - dy, lz - dz
            shine = gloss * (max(nx * hx + ny * hy + nz * hz, 0.0) / sqrt(hx * hx + hy * hy + hz * hz)) ** 48
    if gloss > 0.0:  # a shiny solid also mirrors a bright sky at grazing angles
        grazing = 1.0 + (nx * dx + ny * dy + nz * dz)
        shine += 0.35 * gloss * max(grazing, 0.0) ** 3
    light = sky + sun
    return r * light + shine, g * light + shine, b * light + shine


@njit(cache=True)
def _ray(camera, resolution, column, row):
    """Unit direction of the ray through an image position; (0.5, 0.5) is the centre of the first pixel."""
    u = (2.0 * column / resolution - 1.0) * camera[12]
    v = (1.0 - 2.0 * row / resolution) * camera[12]
    dx = camera[9] + u * camera[3] + v * camera[6]
    dy = camera[10] + u * camera[4] + v * camera[7]
    dz = camera[11] + u * camera[5] + v * camera[8]
    k = 1.0 / sqrt(dx * dx + dy * dy + dz * dz)
    return dx * k, dy * k, dz * k


@njit(cache=True)
def _edge(colour, i, j):
    """Whether a pixel differs from one of its four neighbours."""
    n = colour.shape[0]
    for di, dj in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        a, b = min(max(i + di, 0), n - 1), min(max(j + dj, 0), n - 1)
        for c in range(3):
            if abs(colour[i, j, c] - colour[a, b, c]) > _EDGE_CONTRAST:
                return True
    return False


@njit(cache=True)
def _supersample(solids, camera, stage, n, i, j):
    """Mean linear RGB of a pixel over a regular grid of rays."""
    r, g, b = 0.0, 0.0, 0.0
    for a in range(_RAYS_PER_EDGE):
        for c in range(_RAYS_PER_EDGE):
            dx, dy, dz = _ray(camera, n, j + (c + 0.5) / _RAYS_PER_EDGE, i + (a + 0.5) / _RAYS_PER_EDGE)
            hit = _trace(solids, stage[16], camera[0], camera[1], camera[2], dx, dy, dz)
            pr, pg, pb = _shade(solids, camera, stage, dx, dy, dz, hit[0], hit[1], hit[2], hit[3], hit[4], hit[5])
            r, g, b = r + min(pr, 1.0), g + min(pg, 1.0), b + min(pb, 1.0)
    k = 1.0 / (_RAYS_PER_EDGE * _RAYS_PER_EDGE)
    return r * k, g * k, b * k


@njit(cache=True)
def _to_srgb(linear):
    """One linear channel value as an sRGB byte."""
    v = min(max(linear, 0.0), 1.0)
    v = 12.92 * v if v <= 0.0031308 else 1.055 * v ** (1.0 / 2.4) - 0.055
    return np.uint8(v * 255.0 + 0.5)


@njit(cache=True)
def _render(solids, camera, stage, n):
    """Image, surface ids, depth and camera-space normals of a packed scene."""
    colour = np.empty((n, n, 3))
    surface, depth = np.empty((n, n), np.int64), np.empty((n, n), np.float32)
    normal = np.empty((n, n, 3), np.float32)
    for i in range(n):
        for j in range(n):
            dx, dy, dz = _ray(camera, n, j + 0.5, i + 0.5)
            t, s, nx, ny, nz, h = _trace(solids, stage[16], camera[0], camera[1], camera[2], dx, dy, dz)
            surface[i, j], depth[i, j] = s, t * (dx * camera[9] + dy * camera[10] + dz * camera[11])
            normal[i, j, 0] = nx * camera[3] + ny * camera[4] + nz * camera[5]
            normal[i, j, 1] = nx * camera[6] + ny * camera[7] + nz * camera[8]
            normal[i, j, 2] = -(nx * camera[9] + ny * camera[10] + nz * camera[11])
            r, g, b = _shade(solids, camera, stage, dx, dy, dz, t, s, nx, ny, nz, h)
            colour[i, j, 0], colour[i, j, 1], colour[i, j, 2] = min(r, 1.0), min(g, 1.0), min(b, 1.0)
    image = np.empty((n, n, 3), np.uint8)
    for i in range(n):
        for j in range(n):
            r, g, b = colour[i, j, 0], colour[i, j, 1], colour[i, j, 2]
            if _edge(colour, i, j):
                r, g, b = _supersample(solids, camera, stage, n, i, j)
            image[i, j, 0], image[i, j, 1], image[i, j, 2] = _to_srgb(r), _to_srgb(g), _to_srgb(b)
    return image, surface, depth, normal
