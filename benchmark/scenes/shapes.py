"""Analytic ray intersections of the world's five shapes, compiled; every shape in its own unit frame.

Sphere of radius 1; box |x|, |y|, |z| <= 1; upright cylinder of radius 1, |y| <= 1; upright cone with base radius 1 at
y = -1 and its apex at y = 1; upright capsule of radius 1 around |y| <= h. A ray is o + t d, d of any length.
"""

from math import sqrt

from numba import njit

compiled = njit(cache=True, error_model="numpy")
# For large functions called in the innermost loops: as calls they would pass dozens of array fields a pixel.
inlined = njit(inline="always", error_model="numpy")

SPHERE, BOX, CYLINDER, CONE, CAPSULE = range(5)
MISS = 1e30
_NEAR = 1e-6


@compiled
def _sphere(ox, oy, oz, dx, dy, dz):
    a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1.0
    disc = b * b - a * c
    if disc <= 0.0:
        return MISS
    t = (-b - sqrt(disc)) / a
    return t if t > _NEAR else MISS


@compiled
def _slab(o, d):
    """Entry and exit of one slab of the box."""
    if abs(d) < 1e-12:
        return (-MISS, MISS) if abs(o) <= 1.0 else (MISS, -MISS)
    near, far = (-1.0 - o) / d, (1.0 - o) / d
    return (near, far) if near < far else (far, near)


@compiled
def _box(ox, oy, oz, dx, dy, dz):
    nx, fx = _slab(ox, dx)
    ny, fy = _slab(oy, dy)
    nz, fz = _slab(oz, dz)
    near, far = max(nx, ny, nz), min(fx, fy, fz)
    return MISS if near > far or near <= _NEAR else near


@compiled
def _cylinder(ox, oy, oz, dx, dy, dz):
    best = MISS
    a, b, c = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - 1.0
    disc = b * b - a * c
    if disc <= 0.0:
        return MISS
    if a > 1e-12:
        t = (-b - sqrt(disc)) / a
        if t > _NEAR and abs(oy + t * dy) <= 1.0:
            best = t
    if abs(dy) > 1e-12:
        t = ((-1.0 if dy > 0 else 1.0) - oy) / dy
        x, z = ox + t * dx, oz + t * dz
        if _NEAR < t < best and x * x + z * z <= 1.0:
            best = t
    return best


@compiled
def _cone(ox, oy, oz, dx, dy, dz):
    best = MISS
    h = 1.0 - oy  # on the side x^2 + z^2 = ((1 - y) / 2)^2
    a = dx * dx + dz * dz - 0.25 * dy * dy
    b = ox * dx + oz * dz + 0.25 * h * dy
    disc = b * b - a * (ox * ox + oz * oz - 0.25 * h * h)
    if abs(a) > 1e-12 and disc > 0.0:
        root = sqrt(disc)
        for t in ((-b - root) / a, (-b + root) / a):
            if _NEAR < t < best and abs(oy + t * dy) <= 1.0:
                best = t
    if dy > 1e-12:
        t = (-1.0 - oy) / dy
        x, z = ox + t * dx, oz + t * dz
        if _NEAR < t < best and x * x + z * z <= 1.0:
            best = t
    return best


@compiled
def _capsule(half, ox, oy, oz, dx, dy, dz):
    a, b, c = dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - 1.0
    disc = b * b - a * c
    if disc < 0.0:
        return MISS
    y = oy
    if a > 1e-12:
        t = (-b - sqrt(disc)) / a
        y = oy + t * dy
        if abs(y) <= half:
            return t if t > _NEAR else MISS
    elif dy > 0.0:
        y = -half - 1.0
    return _sphere(ox, oy - half if y > 0.0 else oy + half, oz, dx, dy, dz)


@compiled
def hit(shape, half, ox, oy, oz, dx, dy, dz):
    """Return t > 0 of the nearest hit from outside, or MISS; `half` is the capsule's h."""
    if shape == CAPSULE:
        return _capsule(half, ox, oy, oz, dx, dy, dz)
    if shape == SPHERE:
        return _sphere(ox, oy, oz, dx, dy, dz)
    if shape == BOX:
        return _box(ox, oy, oz, dx, dy, dz)
    if shape == CYLINDER:
        return _cylinder(ox, oy, oz, dx, dy, dz)
    return _cone(ox, oy, oz, dx, dy, dz)


@compiled
def normal(shape, half, x, y, z):
    """Return (nx, ny, nz, face) of a surface point: the outward direction, of any length, and which smooth face."""
    if shape == CAPSULE:
        return x, y - min(max(y, -half), half), z, 0
    if shape == SPHERE:
        return x, y, z, 0
    if shape == BOX:
        if abs(x) >= abs(y) and abs(x) >= abs(z):
            return (1.0, 0.0, 0.0, 1) if x > 0 else (-1.0, 0.0, 0.0, 2)
        if abs(y) >= abs(z):
            return (0.0, 1.0, 0.0, 3) if y > 0 else (0.0, -1.0, 0.0, 4)
        return (0.0, 0.0, 1.0, 5) if z > 0 else (0.0, 0.0, -1.0, 6)
    if shape == CYLINDER:
        if x * x + z * z > y * y:
            return x, 0.0, z, 1
        return (0.0, 1.0, 0.0, 2) if y > 0 else (0.0, -1.0, 0.0, 3)
    # Cone: on the side the radius is (1 - y) / 2; on the base y = -1. The larger defect names the wrong one.
    radius = sqrt(x * x + z * z)
    if abs(radius - 0.5 * (1.0 - y)) <= abs(y + 1.0):
        return x, 0.5 * radius, z, 1
    return 0.0, -1.0, 0.0, 2
