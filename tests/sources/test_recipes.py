"""Every committed recipe: its form is filled, its card says the same, and it builds a small data set of its layout."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark import build, registry
from benchmark.base.errors import UserError
from benchmark.build import Build
from benchmark.cli import fill
from benchmark.contracts.plugins import Annotator, Condition, Source
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.recipes import preset, read_recipe, recipe_names

FOLDER = Path(__file__).parents[2] / "datasets"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))
every_recipe = pytest.mark.parametrize("name", NAMES)
BRANCHES = ("main", "refs/convert/parquet")
Layout = Callable[[Any, Path], Path]
# How to make a small data set with the layout of a recipe's.
LAYOUTS: dict[str, Layout] = {
    "ade20k-seg": lambda layouts, place: layouts.repository(layouts.captioned_ade20k(), place, converted=True),
    "cocostuff-seg": lambda layouts, place: layouts.repository(layouts.captioned_cocostuff(), place),
    "fill50k": lambda layouts, place: layouts.repository(layouts.fill50k(), place, converted=True),
    "laion-canny": lambda layouts, place: layouts.img2dataset_tars(place),
    "multigen20m-depth": lambda layouts, place: layouts.repository(layouts.multigen_depth(), place),
}


def form(*words: str) -> Build:
    return fill(Build, list(words), preset=preset)


def test_the_recipes_asked_for_are_there_and_each_has_a_layout() -> None:
    assert set(NAMES) == set(LAYOUTS)
    assert recipe_names() == NAMES


@every_recipe
def test_a_recipe_is_a_filled_form(name: str) -> None:
    recipe, filled = read_recipe(name), form(name)
    assert {"source", "cond", "annotator", "size", "resolution"} <= set(recipe.build)
    assert len(filled.cond) == len(filled.annotator)
    assert "@" in recipe.citation
    source = registry.describe(registry.make(Source, filled.source))
    named = {source.get("image"), source["caption"]} - {None}
    for cond, spec in zip(filled.cond, filled.annotator, strict=True):
        registry.make(Condition, cond)
        named |= {*registry.make(Annotator, spec).columns}
    assert named <= set(recipe.columns)


@every_recipe
def test_a_revision_is_a_commit_or_the_card_says_that_it_is_none(name: str) -> None:
    source = registry.describe(registry.make(Source, form(name).source))
    card = (FOLDER / f"{name}.md").read_text("utf-8")
    if source["name"] != "hub":
        assert "**Revision**: none" in card
    elif source["revision"] in BRANCHES:
        assert f"**Revision** {source['revision']}: not pinned" in card
    else:
        assert re.fullmatch(r"[0-9a-f]{40}", source["revision"])
        assert f"**Revision** {source['revision']}" in card


@every_recipe
def test_the_card_names_source_columns_licence_and_command_and_no_address(name: str) -> None:
    recipe, card = read_recipe(name), (FOLDER / f"{name}.md").read_text("utf-8")
    assert f"python -m benchmark.build {name}\n" in card
    assert recipe.homepage in card
    assert "**Licence**" in card
    assert all(f"`{column}`" in card for column in recipe.columns)
    assert "://" not in card + (FOLDER / f"{name}.toml").read_text("utf-8")


@every_recipe
def test_a_recipe_builds_a_small_data_set_of_its_layout(
    name: str, layouts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = registry.make(Source, form(name).source)
    place = LAYOUTS[name](layouts, tmp_path / "laion" if name == "laion-canny" else tmp_path / "data")
    words = [name, "--size", "1", "--resolution", "40", "--workers", "1", "--report", "leakage,exact_duplicate"]
    words += ["--drop", "too_small=1"]  # the pictures here are small
    if name != "laion-canny":  # the others would be fetched
        local = {**registry.describe(source), "path": str(place), "revision": None}
        words += ["--source", registry.spec(registry.remake(Source, local))]
    assert build.main(words) == 0
    dataset = BuiltDataset.open(Path("datasets") / f"{name}-40")
    assert sum(dataset.manifest.num_rows.values()) == layouts.COUNT
    assert not dataset.manifest.failed
    captions = {row["caption"] for s in ("train", "val", "test") for row in dataset.rows(s, ["caption"])}
    assert captions == {f"scene {i}" for i in range(layouts.COUNT)}
    card = (dataset.folder / "README.md").read_text("utf-8")
    assert read_recipe(name).licence.strip() in card
    assert read_recipe(name).citation.strip() in card
    (command,) = re.findall(r"Made by `python -m benchmark.build (.+)` from", card)
    assert form(*shlex.split(command)).cond == form(name).cond
    assert form(*shlex.split(command)).resolution == 40
    assert build.verify(dataset.folder, 1.0) == []


def test_what_is_given_goes_before_the_recipe_even_where_it_is_the_default() -> None:
    words = ["--size", "1000", "--resolution=64", "--cond", "canny", "--annotator", "canny"]
    plain, given = form("ade20k-seg"), form("ade20k-seg", *words)
    assert (plain.size, plain.resolution, plain.cond) == (20210, 512, ("seg,palette=ade20k",))
    assert (given.size, given.resolution, given.cond, given.annotator) == (1000, 64, ("canny",), ("canny",))
    assert given.source == plain.source


def test_other_conditions_need_annotators_of_their_own() -> None:
    with pytest.raises(UserError, match="its annotators are for those; give --annotator too"):
        form("ade20k-seg", "--cond", "canny")


def test_a_recipe_of_ones_own_is_found_here_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    text = (FOLDER / "fill50k.toml").read_text("utf-8")
    (tmp_path / "datasets" / "fill50k.toml").write_text(text.replace('"50k"', '"123"'), "utf-8")
    (tmp_path / "mine.toml").write_text(text.replace('"50k"', '"456"'), "utf-8")
    assert (form("fill50k").size, form("mine.toml").size, form("ade20k-seg").size) == (123, 456, 20210)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("title =", "titel ="), 'unknown entry "titel"; did you mean "title"?'),
        (('title = "fill50k: circles, and their outlines"', 'title = ""'), "the entry title is not filled"),
        (('"50k"', '"many"'), 'the option size: "many" is no size; write 500'),
        (("size =", "sise ="), 'no option "sise"; did you mean "size"?'),
        (('cond = ["softedge"]', 'cond = "softedge"'), "the option cond has to be a list"),
        (('size = "50k"', "size = 50000"), "the option size: a recipe holds text as it would be typed"),
        (("[build]", "[build"), "is no TOML"),
    ],
)
def test_a_form_that_is_not_filled_right_is_refused(
    change: tuple[str, str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (FOLDER / "fill50k.toml").read_text("utf-8")
    assert change[0] in text
    (tmp_path / "bad.toml").write_text(text.replace(*change), "utf-8")
    assert build.main([str(tmp_path / "bad.toml")]) == 2
    assert told in capsys.readouterr().err


def test_an_unknown_recipe_is_answered_with_the_one_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["ade20k"]) == 2
    assert 'no recipe "ade20k"; did you mean "ade20k-seg"? allowed: ade20k-seg' in capsys.readouterr().err


def test_the_plan_of_a_recipe_is_that_of_the_words_it_stands_for(
    layouts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.img2dataset_tars(tmp_path / "tars")
    words = ["--source", f"webdataset:{tmp_path}/tars,caption=txt", "--dry-run"]
    plans = []
    typed = ["--cond", "canny", "--annotator", "canny", "--resolution", "512", "--drop", "too_small=256"]
    for others in (["laion-canny"], typed):
        assert build.main([*others, *words]) == 0
        plans.append(json.loads(capsys.readouterr().out)["plan"])
    assert plans[0] == plans[1]


def test_the_command_of_the_guide_for_paired_data_parses() -> None:
    guide = (FOLDER.parent / "docs" / "guide.md").read_text("utf-8")
    (words,) = re.findall(r"^    python -m benchmark.build (.+)$", guide, flags=re.MULTILINE)
    filled = form(*shlex.split(words))
    assert registry.make(Annotator, *filled.annotator).columns == ("label",)
    assert registry.make(Condition, *filled.cond)
