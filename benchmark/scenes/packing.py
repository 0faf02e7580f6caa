"""Lay a scene out in arrays for the compiled code: every object as a few unit shapes, each with its own frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from benchmark.scenes.figure import HEAD as HEAD_AXES
from benchmark.scenes.figure import Vector
from benchmark.scenes.palette import COLOURS, GROUNDS, HAIRS, MATERIALS, SKINS, TROUSERS, WALLS
from benchmark.scenes.shapes import BOX, CAPSULE, CONE, CYLINDER, SPHERE
from benchmark.scenes.world import Scene, Thing

# Columns of a primitive: its shape, centre, world-to-unit-frame matrix (rows), a capsule's h, the object it belongs
# to, material and paints, radius of its bounding sphere, and stripes per unit of its own height.
SHAPE, CENTRE, FRAME, HALF, INSTANCE, MATERIAL = 0, 1, 4, 13, 14, 15
PAINT, SECOND_PAINT, RADIUS, STRIPES, _WIDTH = 16, 19, 22, 23, 24
MATTE, GLOSSY, STRIPED, FACE = range(4)

# Half extents of the solids in units of their half height.
_SOLID_SHAPES = {
    "sphere": (SPHERE, (1.0, 1.0, 1.0)),
    "cube": (BOX, (0.82, 1.0, 0.82)),
    "cylinder": (CYLINDER, (0.8, 1.0, 0.8)),
    "cone": (CONE, (1.0, 1.0, 1.0)),
}
_BOUNDS = {SPHERE: 1.0, BOX: 1.54, CYLINDER: 1.29, CONE: 1.42}

Axes = tuple[Vector, Vector, Vector]


@dataclass(frozen=True)
class Packed:
    """Arrays of a scene.

    Attributes:
        primitives: (K, 24), columns above.
        objects: (N, 7): bounding sphere (centre, radius), first and last + 1 primitive, radius of the foot.
        camera: (13,): position, right, up, forward, half extent.
        light: (9,): direction, sun, sky.
        stage: (16,): ground kind and two tones, wall kind and two tones, texture offset.
    """

    primitives: NDArray[np.float64]
    objects: NDArray[np.float64]
    camera: NDArray[np.float64]
    light: NDArray[np.float64]
    stage: NDArray[np.float64]


def pack(scene: Scene) -> Packed:
    """Return the arrays of a scene."""
    rows: list[list[float]] = []
    objects = []
    for i, thing in enumerate(scene.things):
        first = len(rows)
        rows.extend(_solid(thing, i) if thing.pose is None else _figure(thing, i))
        objects.append([*_bounding_sphere(thing, rows[first:]), first, len(rows), thing.reach[2]])
    c = scene.camera
    light = scene.light
    return Packed(
        primitives=np.array(rows),
        objects=np.array(objects),
        camera=np.array([*c.position, *c.right, *c.up, *c.forward, c.half_extent]),
        light=np.array([*light.direction, *light.sun, *light.sky]),
        stage=np.array(_stage(scene)),
    )


def _stage(scene: Scene) -> list[float]:
    row: list[float] = []
    for name, table, tint in ((scene.ground, GROUNDS, scene.tint[0]), (scene.wall, WALLS, scene.tint[1])):
        row += [list(table).index(name), *(tint * value for tone in table[name] for value in tone)]
    return [*row, *scene.texture_offset]


def _bounding_sphere(thing: Thing, rows: list[list[float]]) -> tuple[float, float, float, float]:
    x, y, z = thing.centre
    reach = 0.0
    for row in rows:
        dx, dy, dz = row[CENTRE] - x, row[CENTRE + 1] - y, row[CENTRE + 2] - z
        reach = max(reach, sqrt(dx * dx + dy * dy + dz * dz) + row[RADIUS])
    return x, y, z, reach


def _row(
    shape: int,
    centre: Vector,
    axes: Axes,
    half_extents: Vector,
    instance: int,
    paint: Vector,
    second_paint: Vector,
    material: int = MATTE,
    half: float = 0.0,
    stripes: float = 0.0,
) -> list[float]:
    frame = [value / extent for axis, extent in zip(axes, half_extents, strict=True) for value in axis]
    radius = max(half_extents) * (1.0 + half) if shape == CAPSULE else _BOUNDS[shape] * max(half_extents)
    return [shape, *centre, *frame, half, instance, material, *paint, *second_paint, radius, stripes]


def _turned(yaw: float) -> Axes:
    """Own axes in world coordinates of something turned about the vertical."""
    c, s = cos(yaw), sin(yaw)
    return (c, 0.0, -s), (0.0, 1.0, 0.0), (s, 0.0, c)


def _pale(colour: Vector) -> Vector:
    r, g, b = colour
    return 0.25 + 0.75 * r, 0.25 + 0.75 * g, 0.25 + 0.75 * b


def _solid(thing: Thing, instance: int) -> Iterator[list[float]]:
    shape, extents = _SOLID_SHAPES[thing.kind]
    r, colour = thing.extent, COLOURS[thing.colour]
    half_extents = (extents[0] * r, extents[1] * r, extents[2] * r)
    centre = (thing.x, r, thing.z)
    material = MATERIALS.index(thing.material)
    yield _row(shape, centre, _turned(thing.yaw), half_extents, instance, colour, _pale(colour), material, stripes=2.6)


def _figure(thing: Thing, instance: int) -> Iterator[list[float]]:
    """Yield a figure's parts: trunk, head, and capsules for the limbs."""
    joint, h = thing.joints, thing.extent
    shirt, skin = COLOURS[thing.colour], SKINS[thing.skin]
    striped = STRIPED if thing.material == "striped" else MATTE
    left = _turned(thing.yaw)[0]

    def limb(a: str, b: str, radius: float, paint: Vector, material: int = MATTE) -> list[float]:
        extents = (radius * h, radius * h, radius * h)
        return _capsule(joint[a], joint[b], left, extents, instance, paint, material, stripes=1.0)

    trunk = (0.098 * h, 0.07 * h, 0.062 * h)
    yield _capsule(
        _between(joint["pelvis"], joint["neck"], 0.1),
        _between(joint["neck"], joint["pelvis"], 0.12),
        left,
        trunk,
        instance,
        shirt,
        striped,
        stripes=1.6,
    )
    head = (HEAD_AXES[0] * h, HEAD_AXES[1] * h, HEAD_AXES[2] * h)
    yield _row(SPHERE, joint["head"], _turned(thing.yaw), head, instance, skin, HAIRS[thing.hair], FACE)
    yield limb("neck", "head", 0.033, skin)
    for side in ("right", "left"):
        yield limb(f"{side}_shoulder", f"{side}_elbow", 0.036, shirt, striped)
        yield limb(f"{side}_elbow", f"{side}_wrist", 0.029, skin)
        yield limb(f"{side}_hip", f"{side}_knee", 0.052, TROUSERS)
        yield limb(f"{side}_knee", f"{side}_ankle", 0.040, TROUSERS)
        yield limb(f"{side}_ankle", f"{side}_toe", 0.028, HAIRS[0])


def _between(a: Vector, b: Vector, share: float) -> Vector:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])


def _capsule(
    a: Vector, b: Vector, hint: Vector, extents: Vector, instance: int, paint: Vector, material: int, stripes: float
) -> list[float]:
    """A capsule from a to b; its own x axis lies as near to `hint` as it can."""
    x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    length = sqrt(x * x + y * y + z * z)
    up = (x / length, y / length, z / length)
    along = up[0] * hint[0] + up[1] * hint[1] + up[2] * hint[2]
    if abs(along) > 0.99:  # parallel: any other direction does
        hint, along = (0.0, 0.0, 1.0), up[2]
    side = (hint[0] - along * up[0], hint[1] - along * up[1], hint[2] - along * up[2])
    k = 1.0 / sqrt(side[0] ** 2 + side[1] ** 2 + side[2] ** 2)
    right = (k * side[0], k * side[1], k * side[2])
    front = (
        right[1] * up[2] - right[2] * up[1],
        right[2] * up[0] - right[0] * up[2],
        right[0] * up[1] - right[1] * up[0],
    )
    half = 0.5 * length / extents[1]
    return _row(
        CAPSULE,
        _between(a, b, 0.5),
        (right, up, front),
        extents,
        instance,
        paint,
        _pale(paint),
        material,
        half,
        stripes,
    )
