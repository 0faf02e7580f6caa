"""Draw a scene: what stands where, under which light, seen by which camera, from (seed, index) alone.

Lengths are metres; x is right, y up and z towards the viewer; the ground is y = 0.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import cos, hypot, pi, radians, sin, sqrt, tan

from benchmark.base.seeds import Stream
from benchmark.scenes.figure import KEYPOINTS, Pose, Vector, joints
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
    STATURES,
    WALLS,
)

WORLD_VERSION = 2
MAX_OBJECTS = 5
WALL_Z = -3.4

_COLOUR_NAMES, _GROUND_NAMES, _WALL_NAMES = tuple(COLOURS), tuple(GROUNDS), tuple(WALLS)
_SIZE_NAMES = tuple(SIZES)
_SCALES = (1.12, 1.0, 0.92, 0.85, 0.79)  # by the number of objects: five must fit where one would look lost
_HIDDEN = 0.4  # how much of an object's box nearer boxes may cover
_DRAWS_AT_ONCE = 96
_TRIES_PER_OBJECT, _TRIES_PER_SCALE = 40, 4


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: position and unit axes in world coordinates; `half_extent` is half the image at distance 1."""

    position: Vector
    right: Vector
    up: Vector
    forward: Vector
    half_extent: float

    def project(self, point: Vector) -> Vector:
        """Return (x, y, depth): x to the right and y down in [-1, 1] over the image, depth along the optical axis."""
        x, y, z = point[0] - self.position[0], point[1] - self.position[1], point[2] - self.position[2]
        depth = x * self.forward[0] + y * self.forward[1] + z * self.forward[2]
        k = 1.0 / (depth * self.half_extent)
        across = x * self.right[0] + y * self.right[1] + z * self.right[2]
        rise = x * self.up[0] + y * self.up[1] + z * self.up[2]
        return across * k, -rise * k, depth


@dataclass(frozen=True)
class Thing:
    """One object: a solid, or a jointed figure.

    Attributes:
        kind: One of `palette.KINDS`.
        colour: Of the solid, or of the figure's shirt.
        size: `small` or `large`; of a figure, its stature.
        material: Of the solid, or of the figure's shirt.
        extent: Half the height of a solid, the stature of a figure.
        x: Where it stands.
        z: Where it stands.
        yaw: Turn about the vertical, radians; a figure of yaw 0 faces +z.
        pose: Of a figure.
        skin: Of a figure, index into `palette.SKINS`.
        hair: Of a figure, index into `palette.HAIRS`.
    """

    kind: str
    colour: str
    size: str
    material: str
    extent: float
    x: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    pose: Pose | None = None
    skin: int = 0
    hair: int = 0

    @cached_property
    def joints(self) -> dict[str, Vector]:
        """Joints of a figure in world coordinates; empty for a solid."""
        if self.pose is None:
            return {}
        c, s = cos(self.yaw), sin(self.yaw)
        own = joints(self.pose, self.extent)
        return {name: (self.x + c * x + s * z, y, self.z - s * x + c * z) for name, (x, y, z) in own.items()}

    @cached_property
    def reach(self) -> tuple[float, float, float]:
        """(half width, height, radius of the foot on the ground)."""
        if self.pose is None:
            wide = 1.16 if self.kind == "cube" else 1.0
            return wide * self.extent, 2 * self.extent, wide * self.extent
        own = joints(self.pose, self.extent)
        width = max(hypot(own[name][0], own[name][2]) for name in KEYPOINTS)
        return width + 0.04 * self.extent, 1.02 * self.extent, 0.16 * self.extent

    @property
    def centre(self) -> Vector:
        """Centre of its upright box."""
        return self.x, self.reach[1] / 2, self.z


@dataclass(frozen=True)
class Light:
    """A distant lamp and the sky: direction towards the lamp (unit), RGB strengths of both."""

    direction: Vector
    sun: Vector
    sky: Vector


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn: a pure function of (seed, index)."""

    things: tuple[Thing, ...]
    ground: str
    wall: str
    camera: Camera
    light: Light
    texture_offset: tuple[float, float]
    tint: tuple[float, float]


class _Draws:
    """Uniform draws of one stream, taken in blocks: most of a scene's cost would else be single draws."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._left = stream, list[float]()

    def unit(self) -> float:
        if not self._left:
            self._left = self._stream.uniform(_DRAWS_AT_ONCE).tolist()[::-1]
        return self._left.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def pair(self, low: float, high: float) -> tuple[float, float]:
        return self.between(low, high), self.between(low, high)

    def choice(self, n: int) -> int:
        return int(n * self.unit())


def draw_scene(seed: int, index: int) -> Scene:
    """Return scene number index of a world seed: 1 to 5 objects on the ground, inside the image, none buried."""
    draws = _Draws(Stream(seed, f"scenes-v{WORLD_VERSION}", index))
    camera = _draw_camera(draws)
    count = 1 + draws.choice(MAX_OBJECTS)
    things = [_draw_thing(draws, _SCALES[count - 1]) for _ in range(count)]
    return Scene(
        things=_place(draws, camera, things),
        ground=_GROUND_NAMES[draws.choice(len(_GROUND_NAMES))],
        wall=_WALL_NAMES[draws.choice(len(_WALL_NAMES))],
        camera=camera,
        light=_draw_light(draws),
        texture_offset=draws.pair(0, 8),
        tint=draws.pair(0.85, 1.15),
    )


def look_at(position: Vector, target: Vector, field_of_view_degrees: float) -> Camera:
    """Return the upright camera at a position that looks at a target."""
    x, y, z = (t - p for t, p in zip(target, position, strict=True))
    length, ground = sqrt(x * x + y * y + z * z), hypot(x, z)
    forward = (x / length, y / length, z / length)
    right = (-z / ground, 0.0, x / ground)
    up = (-right[2] * forward[1], right[2] * forward[0] - right[0] * forward[2], right[0] * forward[1])
    return Camera(position, right, up, forward, tan(radians(field_of_view_degrees) / 2))


def _towards(azimuth: float, elevation: float) -> Vector:
    return sin(azimuth) * cos(elevation), sin(elevation), cos(azimuth) * cos(elevation)


def _draw_camera(draws: _Draws) -> Camera:
    x, y, z = _towards(radians(draws.between(-20, 20)), radians(draws.between(12, 32)))
    distance = draws.between(5.4, 6.4)
    target = (draws.between(-0.2, 0.2), draws.between(0.55, 0.85), 0.0)
    position = (target[0] + distance * x, target[1] + distance * y, distance * z)
    return look_at(position, target, draws.between(35, 40))


def _draw_light(draws: _Draws) -> Light:
    direction = _towards(radians(draws.between(-75, 75)), radians(draws.between(32, 68)))
    warmth, sun, sky = draws.between(-0.08, 0.08), draws.between(0.78, 1.0), draws.between(0.22, 0.38)
    return Light(
        direction, (sun * (1 + warmth), sun, sun * (1 - warmth)), (sky * (1 - warmth), sky, sky * (1 + warmth))
    )


def _draw_thing(draws: _Draws, scale: float) -> Thing:
    kind, size = KINDS[draws.choice(len(KINDS))], _SIZE_NAMES[draws.choice(2)]
    colour, stretch = _COLOUR_NAMES[draws.choice(len(_COLOUR_NAMES))], scale * draws.between(0.93, 1.07)
    if kind != PERSON:
        material = MATERIALS[draws.choice(len(MATERIALS))]
        return Thing(kind, colour, size, material, SIZES[size] * stretch, yaw=draws.between(0.0, 2 * pi))
    return Thing(
        kind=kind,
        colour=colour,
        size=size,
        material=FABRICS[draws.choice(len(FABRICS))],
        extent=STATURES[size] * stretch,
        yaw=radians(draws.between(-75, 75)),
        pose=_draw_pose(draws),
        skin=draws.choice(len(SKINS)),
        hair=draws.choice(len(HAIRS)),
    )


def _draw_pose(draws: _Draws) -> Pose:
    return Pose(
        lean=draws.between(-9, 9),
        arm_out=draws.pair(8, 135),
        arm_forward=draws.pair(-25, 55),
        elbow=draws.pair(0, 80),
        elbow_out=draws.pair(-35, 35),
        leg_out=draws.pair(2, 16),
        leg_forward=draws.pair(-24, 30),
        knee=draws.pair(0, 45),
    )


def _place(draws: _Draws, camera: Camera, things: list[Thing]) -> tuple[Thing, ...]:
    """Find a place for every object; what does not fit after many draws is made a tenth smaller, all alike."""
    while True:
        for _ in range(_TRIES_PER_SCALE):
            if placed := _try_places(draws, camera, things):
                return tuple(placed)
        things = [replace(thing, extent=0.9 * thing.extent) for thing in things]


def _try_places(draws: _Draws, camera: Camera, things: list[Thing]) -> list[Thing]:
    placed: list[Thing] = []
    boxes: list[tuple[float, ...]] = []
    for thing in things:
        for _ in range(_TRIES_PER_OBJECT):
            x, z = draws.between(-2.1, 2.1), draws.between(-2.2, 1.4)
            box = _box(camera, thing, x, z)
            if not _inside(box) or not all(_apart(thing, x, z, other) for other in placed):
                continue
            if all(_seen(own, [*boxes, box]) for own in [*boxes, box]):
                placed.append(replace(thing, x=x, z=z))
                boxes.append(box)
                break
        else:
            return []
    return placed


def _box(camera: Camera, thing: Thing, x: float, z: float) -> tuple[float, ...]:
    """Return the upright box on the image: centre x, centre y, half width, half height, depth."""
    width, height, _ = thing.reach
    u, v, depth = camera.project((x, height / 2, z))
    k = 1.0 / (depth * camera.half_extent)
    return u, v, width * k, 0.53 * height * k, depth


def _inside(box: tuple[float, ...]) -> bool:
    return abs(box[0]) + box[2] < 0.98 and abs(box[1]) + box[3] < 0.98


def _apart(thing: Thing, x: float, z: float, other: Thing) -> bool:
    return hypot(x - other.x, z - other.z) > 1.12 * (thing.reach[2] + other.reach[2])


def _seen(own: tuple[float, ...], boxes: list[tuple[float, ...]]) -> bool:
    """Whether nearer boxes cover little of a box."""
    covered = 0.0
    for other in boxes:
        if other[4] < own[4]:
            width = min(own[0] + own[2], other[0] + other[2]) - max(own[0] - own[2], other[0] - other[2])
            height = min(own[1] + own[3], other[1] + other[3]) - max(own[1] - own[3], other[1] - other[3])
            covered += max(width, 0.0) * max(height, 0.0)
    return covered <= _HIDDEN * 4 * own[2] * own[3]
