"""Say what is in a scene: a caption from a small grammar, and the structured truth behind it as tags.

A caption names every object with its kind and colour, some with size and material, in one of five phrasings:

    A, B and C on a tiled floor[, by a brick wall]
    three things on a tiled floor: A, B and C
    from left to right, on a tiled floor: A, B and C
    A left of B[, with C and D] on a tiled floor[, by a brick wall]     (right of, in front of, behind)
    on a tiled floor, A, B and C
"""

from typing import Any

from benchmark.base.seeds import Stream
from benchmark.scenes.palette import GROUND_PHRASES, PERSON, STATURE_WORDS
from benchmark.scenes.world import Camera, Scene, Thing

COUNTS = ("one thing", "two things", "three things", "four things", "five things")
SIDE_BY_SIDE = 0.3  # from this distance, in half images, one object is left of another
IN_DEPTH = 0.6  # from this difference in depth, in metres, one object is in front of another


def caption(scene: Scene, seed: int, index: int) -> str:
    """Return an English caption that is true of the scene; the wording is a pure function of (seed, index)."""
    words = Stream(seed, "caption", index).raw(8 + 2 * len(scene.things)).tolist()
    ground = GROUND_PHRASES[scene.ground]
    wall = f", by a {scene.wall} wall" if words[0] % 3 == 0 else ""
    things = sorted(scene.things, key=lambda thing: scene.camera.project(thing.centre)[0])
    names = [_name(thing, words[8 + 2 * i], words[9 + 2 * i]) for i, thing in enumerate(things)]
    phrasing = words[1] % 5
    if phrasing == 0:
        return f"{COUNTS[len(names) - 1]} {ground}: {_listed(names)}"
    if phrasing == 1:
        return f"{ground}, {_listed(names)}"
    if len(names) > 1 and phrasing == 2:
        return f"from left to right, {ground}: {_listed(names)}"
    if len(names) > 1 and (related := _related(names, things, scene.camera, words)):
        return f"{related} {ground}{wall}"
    return f"{_listed(names)} {ground}{wall}"


def tags(scene: Scene) -> dict[str, Any]:
    """Return the truth a caption draws on: ground, wall and every object's attributes."""
    things = [{"kind": t.kind, "colour": t.colour, "size": t.size, "material": t.material} for t in scene.things]
    return {"ground": scene.ground, "wall": scene.wall, "things": things}


def _name(thing: Thing, with_size: int, with_material: int) -> str:
    """Name a thing; a fifth are named without their size, half without their material."""
    if thing.kind == PERSON:
        size = f"{STATURE_WORDS[thing.size]} " if with_size % 5 else ""
        cloth = "striped " if thing.material == "striped" and with_material % 2 else ""
        return f"a {size}person in {cloth}{thing.colour}"
    size = f"{thing.size} " if with_size % 5 else ""
    material = f"{thing.material} " if with_material % 2 else ""
    article = "an" if not size and not material and thing.colour == "orange" else "a"
    return f"{article} {size}{material}{thing.colour} {thing.kind}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _related(names: list[str], things: list[Thing], camera: Camera, words: list[int]) -> str | None:
    """Relate two of the objects, given from left to right, in a way that is plain to see; None where there is none."""
    first = words[2] % len(names)
    second = (first + 1 + words[3] % (len(names) - 1)) % len(names)
    relation = _relation(camera.project(things[first].centre), camera.project(things[second].centre), words[4] % 2 == 0)
    if relation is None:
        return None
    rest = [name for i, name in enumerate(names) if i not in (first, second)]
    return f"{names[first]} {relation} {names[second]}" + (f", with {_listed(rest)}" if rest else "")


def _relation(a: tuple[float, float, float], b: tuple[float, float, float], prefer_depth: bool) -> str | None:
    """Return how a stands to b, both as projected; of two true relations the preferred one."""
    across = "left of" if a[0] < b[0] - SIDE_BY_SIDE else "right of" if a[0] > b[0] + SIDE_BY_SIDE else None
    along = "in front of" if a[2] < b[2] - IN_DEPTH else "behind" if a[2] > b[2] + IN_DEPTH else None
    return along or across if prefer_depth else across or along
