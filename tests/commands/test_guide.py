"""The commands of docs/guide.md, run as they stand there."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.build import Build
from benchmark.cli import fill
from benchmark.contracts.plugins import Annotator, Metric
from benchmark.engine.recipes import read_recipe
from benchmark.evaluate import Evaluate
from benchmark.generate import Generate
from benchmark.leaderboard import Leaderboard
from benchmark.study import read_design
from benchmark.train import Train, make_recipe

FORMS = {f"benchmark.{form.__name__.lower()}": form for form in (Build, Train, Generate, Evaluate, Leaderboard)}
GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text("utf-8")


def commands(text: str) -> list[list[str]]:
    """Return the words of every command in the code blocks of a text, lines that end in a backslash joined."""
    blocks = [block for block in text.split("```")[1::2] if block.startswith("\n")]  # others name their language
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def test_the_guide_leads_from_photographs_to_a_board(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    here, _, _ = GUIDE.partition("# A real base on a GPU")
    for python, dash_m, module, *words in commands(here):
        assert (python, dash_m) == ("python", "-m")
        assert importlib.import_module(module).main(words) == 0
    (record,) = (tmp_path / "my-results").rglob("*.json")
    assert json.loads(record.read_text())["training"]["recipe"]["steps"] == 20
    assert "canny (f1_1px)" in (tmp_path / "my-results" / "README.md").read_text()
    assert (tmp_path / "my-results" / "site" / "index.html").exists()


def test_the_commands_for_a_gpu_are_whole() -> None:
    """They need weights, so only their options are checked."""
    _, _, there = GUIDE.partition("# A real base on a GPU")
    forms = [fill(FORMS[module], words) for _, _, module, *words in commands(there)]
    assert {type(form) for form in forms} == {*FORMS.values()}
    for form in forms:
        if isinstance(form, Train):
            make_recipe(form)
            assert form.gradient_checkpointing
        elif isinstance(form, Evaluate):
            assert all(registry.make(Metric, spec) for spec in form.metric)
            assert registry.make(Annotator, str(form.referee)).condition == "seg"
        elif isinstance(form, Build) and form.recipe:
            assert read_recipe(form.recipe)


def test_the_study_for_a_gpu_is_whole(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    (text,) = re.findall("```toml\n(.*?)```", GUIDE, re.DOTALL)
    Path("sizes.toml").write_text(text)
    design = read_design("sizes.toml", None)
    assert f"--out {design.build.out} " in GUIDE
    runs = [train for cell in design.cells for train in cell.trains]
    assert f"--world {len(runs)}\n" in GUIDE
    assert f"--array=0-{len(runs) - 1} " in GUIDE
    for train in runs:
        recipe = make_recipe(train)
        assert recipe.steps * recipe.batch >= (train.num_samples or 0)  # no single pass
        assert (train.num_samples or 0) * (train.replicate + 1) <= design.build.size  # draws that there are
