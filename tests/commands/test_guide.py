"""The commands of docs/guide.md, run as they stand there."""

import importlib
import json
import shlex
from pathlib import Path

import pytest

from benchmark.cli import fill
from benchmark.train import Train

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text("utf-8")


def commands(text: str) -> list[list[str]]:
    """Return the words of every command in the code blocks of a text, lines that end in a backslash joined."""
    blocks = text.split("```")[1::2]
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
    forms = {module: words for _, _, module, *words in commands(there)}
    assert set(forms) == {"benchmark.build", "benchmark.train"}
    form = fill(Train, forms["benchmark.train"])
    assert form.batch % form.gradient_accumulation_steps == 0
    assert form.gradient_checkpointing
