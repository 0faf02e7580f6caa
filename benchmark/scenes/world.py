"""Draw a scene: which solids stand where, under which light, seen by which camera, from (seed, index) alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.base.seeds import Stream
from benchmark.scenes.palette import COLOURS, GROUNDS, KINDS, MATERIALS, SIZES, WALLS

WORLD_VERSION = 1
MAX_OBJECTS = 3
FIELD_OF_VIEW_DEGREES = 36.0
WALL_Z = -3.2


@dataclass(frozen=True)
class Solid:
    """One solid on the ground; lengths in metres, yaw in radians."""

    kind: str
    colour: str
    size: str
    material: str
    radius: float
    x: float
    z: float
    yaw: float

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre of the solid: every kind is two radii high, so it rests on the ground."""
        return np.array([self.x, self.radius, self.z])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: position, and the unit axes right, up and forward, all in world coordinates (y up)."""

    position: NDArray[np.float64]
    right: NDArray[np.float64]
    up: NDArray[np.float64]
    forward: NDArray[np.float64]

    @property
    def half_extent(self) -> float:
        """Half the image side at unit distance along the forward axis."""
        return float(np.tan(np.radians(FIELD_OF_VIEW_DEGREES) / 2))

    def project(self, point: NDArray[np.float64]) -> tuple[float, float, float]:
        """Return (x, y, depth): x to the right and y down in [-1, 1] over the image, depth in metres."""
        offset = point - self.position
        depth = float(offset @ self.forward)
        scale = 1.0 / (depth * self.half_extent)
        return float(offset @ self.right) * scale, -float(offset @ self.up) * scale, depth


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn: a pure function of (seed, index)."""

    solids: tuple[Solid, ...]
    ground: str
    wall: str
    camera: Camera
    light: NDArray[np.float64]
    ambient: float
    texture_offset: tuple[float, float]


def look_at(position: NDArray[np.float64], target: NDArray[np.float64]) -> Camera:
    """Return the upright camera at a position that looks at a target."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return Camera(position, right, np.cross(right, forward), forward)


def draw_scene(seed: int, index: int) -> Scene:
    """Return scene number index of a world seed: 1 to 3 solids that stand apart, on the ground and on the image."""
    stream = Stream(seed, f"scenes-v{WORLD_VERSION}", index)
    camera = _draw_camera(stream)
    return Scene(
        solids=_draw_solids(stream, camera, 1 + stream.choice(MAX_OBJECTS)),
        ground=list(GROUNDS)[stream.choice(len(GROUNDS))],
        wall=list(WALLS)[stream.choice(len(WALLS))],
        camera=camera,
        light=_draw_light(stream),
        ambient=stream.between(0.22, 0.36),
        texture_offset=(stream.between(0, 8), stream.between(0, 8)),
    )


def _draw_camera(stream: Stream) -> Camera:
    azimuth, elevation = np.radians(stream.between(-18, 18)), np.radians(stream.between(16, 32))
    distance = stream.between(6.0, 7.0)
    target = np.array([stream.between(-0.2, 0.2), stream.between(0.4, 0.7), 0.0])
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    return look_at(target + distance * direction, target)


def _draw_light(stream: Stream) -> NDArray[np.float64]:
    azimuth, elevation = np.radians(stream.between(-70, 70)), np.radians(stream.between(35, 65))
    return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])


def _draw_solids(stream: Stream, camera: Camera, count: int) -> tuple[Solid, ...]:
    solids: list[Solid] = []
    attempts = 0
    while len(solids) < count:
        attempts += 1
        if attempts > 200:  # a crowded draw: begin again, further down the same stream
            solids, attempts = [], 0
        candidate = _draw_solid(stream)
        if _in_view(candidate, camera) and all(_apart(candidate, other, camera) for other in solids):
            solids.append(candidate)
    return tuple(solids)


def _draw_solid(stream: Stream) -> Solid:
    size = list(SIZES)[stream.choice(len(SIZES))]
    return Solid(
        kind=KINDS[stream.choice(len(KINDS))],
        colour=list(COLOURS)[stream.choice(len(COLOURS))],
        size=size,
        material=MATERIALS[stream.choice(len(MATERIALS))],
        radius=SIZES[size] * stream.between(0.9, 1.1),
        x=stream.between(-1.8, 1.8),
        z=stream.between(-1.9, 1.4),
        yaw=stream.between(0.0, 2 * np.pi),
    )


def _in_view(solid: Solid, camera: Camera) -> bool:
    x, y, depth = camera.project(solid.centre)
    margin = solid.radius / (depth * camera.half_extent)
    return abs(x) + margin < 1.0 and abs(y) + margin < 1.0


def _apart(a: Solid, b: Solid, camera: Camera) -> bool:
    """Whether two solids neither touch on the ground nor hide more than about a third of each other."""
    if np.hypot(a.x - b.x, a.z - b.z) < 1.25 * (a.radius + b.radius):
        return False
    (ax, ay, a_depth), (bx, by, b_depth) = camera.project(a.centre), camera.project(b.centre)
    reach = (a.radius / a_depth + b.radius / b_depth) / camera.half_extent
    return bool(np.hypot(ax - bx, ay - by) > 0.8 * reach)
