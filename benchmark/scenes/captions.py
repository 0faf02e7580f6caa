"""Say what is in a scene: a caption from a small grammar, and the structured truth behind it as tags."""

from typing import Any

from benchmark.base.seeds import Stream
from benchmark.scenes.palette import GROUNDS
from benchmark.scenes.world import Camera, Scene, Solid

_SIDE_BY_SIDE = 0.35  # horizontal distance in image half-widths from which two solids are left and right of each other


def caption(scene: Scene, seed: int, index: int) -> str:
    """Return an English caption that is true of the scene; the wording is a pure function of (seed, index)."""
    stream = Stream(seed, "caption", index)
    solids = sorted(scene.solids, key=lambda s: scene.camera.project(s.centre)[0])
    names = [_name(solid, stream.choice(2) == 0) for solid in solids]
    return f"{_arrange(names, solids, scene.camera, stream)} {GROUNDS[scene.ground][0]}"


def tags(scene: Scene) -> dict[str, Any]:
    """Return the truth a caption draws on: ground, wall and every solid's attributes."""
    solids = [{"kind": s.kind, "colour": s.colour, "size": s.size, "material": s.material} for s in scene.solids]
    return {"ground": scene.ground, "wall": scene.wall, "solids": solids}


def _name(solid: Solid, with_material: bool) -> str:
    material = f"{solid.material} " if with_material else ""
    return f"a {solid.size} {material}{solid.colour} {solid.kind}"


def _arrange(names: list[str], solids: list[Solid], camera: Camera, stream: Stream) -> str:
    """Join the names, given from left to right; two of them with the relation that holds."""
    if len(names) == 1:
        return names[0]
    if len(names) > 2:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    (left, _, left_depth), (right, _, right_depth) = (camera.project(s.centre) for s in solids)
    flip = stream.choice(2) == 0
    if right - left > _SIDE_BY_SIDE:
        return f"{names[1]} right of {names[0]}" if flip else f"{names[0]} left of {names[1]}"
    front, back = (0, 1) if left_depth < right_depth else (1, 0)
    return f"{names[back]} behind {names[front]}" if flip else f"{names[front]} in front of {names[back]}"
