"""Captions: parsed back by a grammar of the test's own, every word of 2,000 of them is true of its scene."""

import re
from itertools import permutations
from typing import NamedTuple

import pytest

from benchmark.scenes.captions import caption, tags
from benchmark.scenes.world import Scene, Solid, draw_scene

_NAME = (
    r"a (?P<size>small|large) (?:(?P<material>matte|shiny|striped) )?"
    r"(?P<colour>red|orange|yellow|green|cyan|blue|purple|white) (?P<kind>sphere|cube|cylinder|cone)"
)
_PLACES = {"on a wooden floor": "wooden", "on a tiled floor": "tiled", "on grass": "grassy", "on sand": "sandy"}
_RELATIONS = ("left of", "right of", "in front of", "behind")


class Parsed(NamedTuple):
    names: list[dict[str, str | None]]
    relation: str
    ground: str


def _parse(text: str) -> Parsed:
    names = [match.groupdict() for match in re.finditer(_NAME, text)]
    rest = re.sub(_NAME, "X", text)
    place = next(place for place in _PLACES if rest.endswith(place))
    return Parsed(names, rest.removesuffix(place).replace("X", "").strip(), _PLACES[place])


def _fits(name: dict[str, str | None], solid: Solid) -> bool:
    return all(word in (None, getattr(solid, field)) for field, word in name.items())


def _holds(relation: str, a: Solid, b: Solid, scene: Scene) -> bool:
    (ax, _, a_depth), (bx, _, b_depth) = scene.camera.project(a.centre), scene.camera.project(b.centre)
    return {
        "left of": ax < bx - 0.3,
        "right of": ax > bx + 0.3,
        "in front of": a_depth < b_depth,
        "behind": a_depth > b_depth,
    }[relation]


def _is_true(text: str, scene: Scene) -> bool:
    """Whether the names can be given to the solids such that everything said holds."""
    names, relation, ground = _parse(text)
    if ground != scene.ground or len(names) != len(scene.solids):
        return False
    for order in permutations(scene.solids):
        if not all(_fits(name, solid) for name, solid in zip(names, order, strict=True)):
            continue
        if len(order) == 2 and _holds(relation, order[0], order[1], scene):
            return True
        across = [scene.camera.project(solid.centre)[0] for solid in order]
        if len(order) != 2 and across == sorted(across):  # a list goes from left to right
            return True
    return False


_SAMPLES = [(scene, caption(scene, 4, i)) for i in range(2000) for scene in [draw_scene(4, i)]]


def test_two_thousand_captions_are_true() -> None:
    assert [text for scene, text in _SAMPLES if not _is_true(text, scene)] == []


def test_the_check_notices_lies() -> None:
    lies = {"red": "blue", "cube": "cone", "small": "large", "left of": "right of", "in front of": "behind"}
    for truth, lie in lies.items():
        scene, text = next((s, t) for s, t in _SAMPLES if t.count(truth) == 1 and len(s.solids) == 2)
        assert not _is_true(text.replace(truth, lie), scene)


def test_captions_hold_nothing_outside_the_grammar() -> None:
    joins = {1: {""}, 2: set(_RELATIONS), 3: {",  and"}}
    for scene, text in _SAMPLES:
        assert _parse(text).relation in joins[len(scene.solids)]


def test_captions_agree_with_the_tags() -> None:
    for scene, text in _SAMPLES[:300]:
        truth, (names, _, ground) = tags(scene), _parse(text)
        assert truth["ground"] == ground
        fields = ("size", "colour", "kind")
        said = sorted(tuple(str(name[f]) for f in fields) for name in names)
        assert said == sorted(tuple(solid[f] for f in fields) for solid in truth["solids"])


def test_tags_are_the_scene() -> None:
    scene, _ = _SAMPLES[0]
    words = [(s["kind"], s["colour"], s["size"], s["material"]) for s in tags(scene)["solids"]]
    assert words == [(s.kind, s.colour, s.size, s.material) for s in scene.solids]
    assert tags(scene)["wall"] == scene.wall


@pytest.mark.parametrize("relation", _RELATIONS)
def test_every_relation_is_said(relation: str) -> None:
    pairs = [text for scene, text in _SAMPLES if len(scene.solids) == 2]
    assert sum(relation in text for text in pairs) > 0.05 * len(pairs)


def test_half_the_names_tell_the_material() -> None:
    names = [name for _, text in _SAMPLES for name in _parse(text).names]
    assert 0.45 < sum(name["material"] is not None for name in names) / len(names) < 0.55


def test_wording_is_a_function_of_seed_and_index() -> None:
    scene, text = _SAMPLES[7]
    assert caption(scene, 4, 7) == text
    assert len({caption(scene, 4, i) for i in range(30)}) > 1
    assert len({caption(scene, seed, 7) for seed in range(30)}) > 1
