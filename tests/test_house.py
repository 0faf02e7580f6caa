"""Rules of the house that no linter checks."""

import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from benchmark import leaderboard, registry
from benchmark.build import Build
from benchmark.cli import fill
from benchmark.compare import Compare
from benchmark.engine.board import Section, counted, sections
from benchmark.engine.cells import Cell
from benchmark.engine.records import read_failures, read_invalidated, read_records
from benchmark.engine.studies import read_studies
from benchmark.evaluate import Evaluate
from benchmark.generate import Generate
from benchmark.leaderboard import Leaderboard
from benchmark.regress import Regress
from benchmark.study import Study
from benchmark.train import Train

ROOT = Path(__file__).parents[1]
FORMS = {
    form.__name__.lower(): form for form in (Build, Compare, Evaluate, Generate, Leaderboard, Regress, Study, Train)
}


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


def test_the_lowest_versions_are_those_that_the_project_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    bounds = sorted(text.replace(">=", "==") for text in wanted if ">=" in text)
    assert (ROOT / "lowest.txt").read_text().splitlines() == bounds


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


def readme_tables() -> list[list[dict[str, str]]]:
    """Return the rows of every table of the README by their headings, whole and without emphasis."""
    lines = (ROOT / "README.md").read_text().replace("**", "").splitlines()
    tables: list[list[dict[str, str]]] = []
    for above, line in pairwise(lines):
        if re.fullmatch(r"\|(-+\|)+", line):
            tables.append([])
            headings = [cell.strip() for cell in above.strip("|").split("|")]
        elif line.startswith("|") and above.startswith("|"):
            tables[-1].append(dict(zip(headings, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return tables


def cell_text(heading: str, section: Section, cell: Cell) -> str:
    """Return what a cell of the board says under a heading of the README, which has to be one of these."""
    assert cell.control is not None
    change = cell.changes.get("clip_score")
    said: dict[str, str] = {
        "condition": section.first.record.condition,
        "score": section.first.headline,
        "method": cell.method,
        "prompts": section.first.record.generation["prompts"],
        "dirt": ", ".join(cell.training.get("corrupt", [])) or "none",
        "pairs": f"{cell.pairs:,}",
        "updates": f"{cell.training['recipe']['steps']:,}",
        "epochs": f"{cell.epochs:.3g}",
        "normalised control": leaderboard.shown_spread(cell.control),
        "lowest": f"{cell.control.worst:.3f}",
        "failed runs": f"{cell.failures.count} of {cell.failures.total}" if cell.failures else "-",
        "CLIP score": f"{change.iqm:.2f}" if change else "-",
    }
    (known,) = [text for name, text in said.items() if heading.startswith(name)]
    return known


def test_every_row_of_the_readme_is_a_row_of_the_committed_board() -> None:
    results = ROOT / "results"
    records, failures = read_records(results), read_failures(results).values()
    invalidated = read_invalidated(results, {path.name.partition(".")[0] for path in results.rglob("*.json")})
    made = sections(records, counted(failures, invalidated), invalidated)
    board = [(section, cell) for section in made for cell in section.cells if cell.control]
    smoke, *tables = readme_tables()
    assert len(smoke) == 4  # held against its record by the test before this
    assert tables
    for row in (row for table in tables for row in table):
        assert any(heading.startswith("normalised control") for heading in row), row
        same = [cell for section, cell in board if all(cell_text(h, section, cell) == row[h] for h in row)]
        assert len(same) == 1, row


def test_every_study_with_committed_records_is_told_in_the_readme_with_its_command() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    records = read_records(ROOT / "results").values()
    with_records = [study for study in read_studies() if any(map(study.holds, records))]
    assert {"smoke", "conditions", "dataset_size"} <= {study.name for study in with_records}
    for study in with_records:
        assert f"`{study.command}`" in text, study.name
