"""Rules of the house that no linter checks."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import leaderboard, registry
from benchmark.build import Build
from benchmark.cli import fill
from benchmark.engine.board import sections
from benchmark.engine.records import read_records
from benchmark.evaluate import Evaluate
from benchmark.generate import Generate
from benchmark.leaderboard import Leaderboard
from benchmark.regress import Regress
from benchmark.study import Study
from benchmark.train import Train

ROOT = Path(__file__).parents[1]
FORMS = {form.__name__.lower(): form for form in (Build, Evaluate, Generate, Leaderboard, Regress, Study, Train)}


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(r"^python -m benchmark\.(.+)$", text, flags=re.MULTILINE)


def test_datasets_holds_no_python_file_that_would_shadow_the_library() -> None:
    assert not list((ROOT / "datasets").rglob("*.py"))


@pytest.mark.parametrize("command", readme_commands())
def test_every_command_in_the_readme_parses(command: str) -> None:
    name, *arguments = shlex.split(command)
    fill(FORMS[name], arguments)


def test_the_readme_names_every_folder_of_the_package_and_no_other() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^  (\w+)/ ", text, flags=re.MULTILINE))
    there = {path.name for path in (ROOT / "benchmark").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert named == there - {"studies"}
    assert "studies/" in text


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_every_family_has_a_member(family: type) -> None:
    assert registry.names(family)


def test_no_pickle_is_ever_loaded() -> None:
    for path in (ROOT / "benchmark").rglob("*.py"):
        loads = r"\bimport pickle|torch\.load\((?!.*weights_only=True)|allow_pickle=True"
        assert not re.search(loads, path.read_text()), path


def test_the_suite_explains_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmark"], capture_output=True, text=True, check=True, cwd=ROOT)
    for name in FORMS:
        assert f"\n  {name}" in done.stdout
    assert "seg" in done.stdout


@pytest.mark.parametrize("name", FORMS)
def test_help_does_not_import_torch(name: str) -> None:
    code = (
        "import sys, importlib\n"
        f"module = importlib.import_module('benchmark.{name}')\n"
        "try:\n    module.main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "example: python -m benchmark" in done.stdout


def test_the_committed_board_is_the_one_its_records_make() -> None:
    assert leaderboard.main(["--results", str(ROOT / "results"), "--check"]) == 0


def test_the_numbers_and_the_picture_of_the_readme_are_those_of_a_committed_record() -> None:
    text = (ROOT / "README.md").read_text()
    (picture,) = re.findall(r"\]\((results/.+\.webp)\)", text)
    (record,) = (r for path, r in read_records(ROOT / "results").items() if path.stem == Path(picture).stem)
    score = record.reconstruction[record.headline]
    for anchor in (score.real, score.vae, score.run, score.no_control):
        assert leaderboard.shown(anchor) in text
    assert score.run.low > score.no_control.high


def test_the_tables_of_the_readme_are_those_of_the_committed_board() -> None:
    text = (ROOT / "README.md").read_text()
    families = [family for section in sections(read_records(ROOT / "results")) for family in section.families]
    cells = [cell for family in families for cell in family.cells if len(cell.rows) > 1]
    assert len(cells) >= 13  # eight conditions and five sizes
    for cell in cells:
        row = f"{leaderboard.shown_spread(cell.control)} | {cell.control.worst:.3f} |" if cell.control else ""
        assert any(row in line for line in text.splitlines()), (cell.rows[0].record.condition, cell.pairs)
