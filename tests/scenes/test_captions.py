"""Captions: 10,000 of them read back by a grammar of the test's own, and all they say is true of their scenes."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmark.scenes.captions import caption, tags
from benchmark.scenes.world import Scene, Thing, draw_scene

_COLOUR = "red|orange|yellow|green|cyan|blue|purple|white"
_SOLID = rf"an? (?:small |large )?(?:matte |glossy |striped )?(?:{_COLOUR}) (?:sphere|cube|cylinder|cone)"
_PERSON = rf"a (?:short |tall )?person in (?:striped )?(?:{_COLOUR})"
_NAME = rf"(?:{_SOLID}|{_PERSON})"
_LIST = rf"{_NAME}(?:(?:, {_NAME})* and {_NAME})?"
_GROUND = r"(?P<ground>on a wooden floor|on a tiled floor|on grass|on sand)"
_WALL = r"(?:, by a (?P<wall>plain|brick|panelled|papered) wall)?"
_RELATION = r"(?P<relation>left of|right of|in front of|behind)"
_PHRASINGS = {
    "list": rf"(?P<things>{_LIST}) {_GROUND}{_WALL}",
    "count": rf"(?P<count>one thing|(?:two|three|four|five) things) {_GROUND}: (?P<things>{_LIST})",
    "order": rf"(?P<order>from left to right), {_GROUND}: (?P<things>{_LIST})",
    "relation": rf"(?P<things>{_NAME} {_RELATION} {_NAME}(?:, with {_LIST})?) {_GROUND}{_WALL}",
    "ground first": rf"{_GROUND}, (?P<things>{_LIST})",
}
_COUNTS = {"one thing": 1, "two things": 2, "three things": 3, "four things": 4, "five things": 5}
_PLACES = {"on a wooden floor": "wooden", "on a tiled floor": "tiled", "on grass": "grassy", "on sand": "sandy"}
_RELATIONS = ("left of", "right of", "in front of", "behind")
_SIZES = {"short": "small", "tall": "large"}


class Parsed(NamedTuple):
    """What a caption says."""

    phrasing: str
    names: tuple[str, ...]
    ground: str
    wall: str | None
    number: int | None
    relation: str | None


def _parse(text: str) -> Parsed:
    found = {name: match for name, rule in _PHRASINGS.items() if (match := re.fullmatch(rule, text))}
    assert len(found) == 1, text  # in the grammar, and unambiguous
    [(phrasing, match)] = found.items()
    said = match.groupdict()
    return Parsed(
        phrasing=phrasing,
        names=tuple(re.findall(_NAME, said["things"])),
        ground=_PLACES[said["ground"]],
        wall=said.get("wall"),
        number=_COUNTS.get(said.get("count") or ""),
        relation=said.get("relation"),
    )


def _attributes(name: str) -> dict[str, str]:
    """The kind, colour, and if said the size and material of a name."""
    words = name.split()
    kind = "person" if "person" in words else words[-1]
    said = {"kind": kind, "colour": words[-1] if kind == "person" else words[-2]}
    for word in words:
        if word in ("small", "large", "short", "tall"):
            said["size"] = _SIZES.get(word, word)
        elif word in ("matte", "glossy", "striped"):
            said["material"] = word
    return said


def _fits(said: dict[str, str], thing: dict[str, str]) -> bool:
    return all(thing[field] == word for field, word in said.items())


def _assignments(
    names: list[dict[str, str]], things: list[dict[str, str]], used: tuple[int, ...] = ()
) -> Iterator[tuple[int, ...]]:
    """Every way to give each thing one of the names that fit it."""
    if len(used) == len(names) == len(things):
        yield used
        return
    for i, thing in enumerate(things if len(names) == len(things) else []):
        if i not in used and _fits(names[len(used)], thing):
            yield from _assignments(names, things, (*used, i))


def _place(scene: Scene, thing: Thing) -> tuple[float, float]:
    """Where the middle of a thing is seen: x in half images, and depth along the optical axis in metres."""
    height = 2 * thing.extent if thing.pose is None else 1.02 * thing.extent
    ray = np.array([thing.x, height / 2, thing.z]) - scene.camera.position
    depth = float(ray @ scene.camera.forward)
    return float(ray @ scene.camera.right) / (depth * scene.camera.half_extent), depth


_HOLDS: dict[str, Callable[[tuple[float, float], tuple[float, float]], bool]] = {
    "left of": lambda a, b: a[0] < b[0] - 0.3,
    "right of": lambda a, b: a[0] > b[0] + 0.3,
    "in front of": lambda a, b: a[1] < b[1] - 0.6,
    "behind": lambda a, b: a[1] > b[1] + 0.6,
}


def _is_true(text: str, scene: Scene) -> bool:
    """Whether the names can be given to the things such that everything said holds."""
    said, truth = _parse(text), tags(scene)
    if said.ground != truth["ground"] or said.wall not in (None, truth["wall"]):
        return False
    if said.number not in (None, len(scene.things)):
        return False
    places = [_place(scene, thing) for thing in scene.things]
    for order in _assignments([_attributes(name) for name in said.names], truth["things"]):
        if said.phrasing == "order" and any(places[a][0] > places[b][0] for a, b in pairwise(order)):
            continue
        if said.relation is None or _HOLDS[said.relation](places[order[0]], places[order[1]]):
            return True
    return False


@cache
def _samples() -> tuple[tuple[Scene, str], ...]:
    return tuple((scene, caption(scene, 4, i)) for i in range(10_000) for scene in [draw_scene(4, i)])


@cache
def _parsed() -> tuple[Parsed, ...]:
    return tuple(_parse(text) for _, text in _samples())


def _names(kind: str) -> list[dict[str, str]]:
    every = [_attributes(name) for said in _parsed() for name in said.names]
    return [name for name in every if (name["kind"] == "person") == (kind == "person")]


def test_ten_thousand_captions_are_true() -> None:
    assert [text for scene, text in _samples() if not _is_true(text, scene)] == []


@pytest.mark.parametrize(
    ("truth", "lie"),
    [
        ("red", "blue"),
        ("cube", "cone"),
        ("small", "large"),
        ("tall", "short"),
        ("glossy", "matte"),
        ("brick", "plain"),
        ("on sand", "on grass"),
        ("two things", "three things"),
        ("left of", "right of"),
        ("in front of", "behind"),
    ],
)
def test_the_check_notices_lies(truth: str, lie: str) -> None:
    """Where no two things share kind and colour, so that a name means one of them."""
    told = 0
    for scene, text in _samples():
        unlike = len({(thing.kind, thing.colour) for thing in scene.things}) == len(scene.things)
        if unlike and len(re.findall(rf"\b{truth}\b", text)) == 1:
            assert not _is_true(re.sub(rf"\b{truth}\b", lie, text), scene)
            told += 1
        if told == 300:
            return
    pytest.fail(f'"{truth}" was said {told} times')


def test_the_check_notices_a_wrong_order() -> None:
    told = 0
    for (scene, text), said in zip(_samples(), _parsed(), strict=True):
        if said.phrasing == "order" and len({(thing.kind, thing.colour) for thing in scene.things}) == 2:
            first, second = said.names[0], said.names[-1]
            swapped = text.replace(first, "X").replace(second, first).replace("X", second)
            assert len(said.names) > 2 or not _is_true(swapped, scene)
            told += len(said.names) == 2
    assert told > 100


def test_every_thing_is_named_once_by_kind_and_colour() -> None:
    for (scene, _), said in zip(_samples(), _parsed(), strict=True):
        named = Counter((name["kind"], name["colour"]) for name in map(_attributes, said.names))
        assert named == Counter((thing.kind, thing.colour) for thing in scene.things)


def test_tags_are_the_scene() -> None:
    for scene, _ in _samples()[:200]:
        truth: dict[str, Any] = tags(scene)
        assert set(truth) == {"ground", "wall", "things"}
        assert (truth["ground"], truth["wall"]) == (scene.ground, scene.wall)
        fields = ("kind", "colour", "size", "material")
        assert truth["things"] == [{field: getattr(thing, field) for field in fields} for thing in scene.things]


def test_every_phrasing_is_common() -> None:
    several = [said for said in _parsed() if len(said.names) > 1]
    counts = Counter(said.phrasing for said in several)
    assert set(counts) == set(_PHRASINGS)
    for phrasing in ("count", "order", "ground first"):  # one word in five chooses each of them
        assert counts[phrasing] / len(several) == pytest.approx(0.2, abs=0.02)
    assert counts["relation"] > 0.25 * len(several)
    assert counts["list"] > 0  # where no relation is plain to see
    alone = Counter(said.phrasing for said in _parsed() if len(said.names) == 1)
    assert set(alone) == {"count", "ground first", "list"}


@pytest.mark.parametrize("relation", _RELATIONS)
def test_every_relation_is_common(relation: str) -> None:
    told = [said.relation for said in _parsed() if said.relation]
    assert told.count(relation) > 0.15 * len(told)


def test_a_third_of_the_captions_that_may_tell_the_wall_do() -> None:
    walls = [said.wall for said in _parsed() if said.phrasing in ("list", "relation")]
    assert np.mean([wall is not None for wall in walls]) == pytest.approx(1 / 3, abs=0.03)
    assert set(walls) == {None, "plain", "brick", "panelled", "papered"}


def test_four_fifths_of_the_names_tell_the_size_and_half_the_material() -> None:
    for kind in ("solid", "person"):
        assert np.mean(["size" in name for name in _names(kind)]) == pytest.approx(0.8, abs=0.02)
    assert np.mean(["material" in name for name in _names("solid")]) == pytest.approx(0.5, abs=0.02)
    striped = sum(thing.pose is not None and thing.material == "striped" for s, _ in _samples() for thing in s.things)
    assert sum("material" in name for name in _names("person")) / striped == pytest.approx(0.5, abs=0.03)


def test_an_stands_before_a_vowel_and_a_before_any_other_letter() -> None:
    articles = Counter(match for _, text in _samples() for match in re.findall(r"\b(an?) (\w)", text))
    assert articles["an", "o"] > 100
    assert not any((article == "an") != (letter in "aeiou") for article, letter in articles)


def test_things_are_named_from_left_to_right_where_that_is_said() -> None:
    checked = 0
    for (scene, _), said in zip(_samples(), _parsed(), strict=True):
        if said.phrasing == "order":
            across = sorted(scene.things, key=lambda thing: _place(scene, thing)[0])
            assert [_attributes(n)["colour"] for n in said.names] == [thing.colour for thing in across]
            checked += 1
    assert checked > 1000


def test_captions_of_two_scenes_are_rarely_the_same() -> None:
    counts = Counter(text for _, text in _samples())
    assert len(counts) > 0.95 * len(_samples())
    several = [text for scene, text in _samples() if len(scene.things) > 1]
    assert len(set(several)) > 0.999 * len(several)


def test_wording_is_a_function_of_seed_and_index() -> None:
    scene, text = _samples()[7]
    assert caption(scene, 4, 7) == text
    assert len({caption(scene, 4, i) for i in range(30)}) > 1
    assert len({caption(scene, seed, 7) for seed in range(30)}) > 1
