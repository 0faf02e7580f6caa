"""The help of every command ends with an example, and the examples run one after another, as they stand."""

import importlib
import shlex
from pathlib import Path

import pytest

from benchmark.cli import fill
from benchmark.scenes import sheet
from benchmark.scenes.pretrain import STAGES
from tests.test_house import FORMS


def example(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the words of the example that a command's help ends with, after the command's own."""
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"benchmark.{name}").main(["--help"])
    assert caught.value.code == 0
    _, _, last = capsys.readouterr().out.rpartition("example: ")
    assert last.startswith(f"python -m benchmark.{name}")
    return shlex.split(last)[3:]


@pytest.mark.parametrize("name", FORMS)
def test_help_ends_with_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(FORMS[name], example(name, capsys))


def test_the_sheet_of_scenes_is_drawn_as_its_help_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sheet.main(example("scenes.sheet", capsys)) == 0
    assert (tmp_path / "scenes.png").exists()


def test_the_help_of_the_stages_names_one_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    words = example("scenes.pretrain", capsys)
    assert words[words.index("--stage") + 1] in STAGES


def test_the_examples_run_in_their_order(
    photos: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cut short where they would train and draw for minutes; the study and the gate are shown, not run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "scenes-seg-64").symlink_to(tiny_dataset)
    drawn = ["--limit", "4", "--num-inference-steps", "1", "--batch", "4"]
    short = {
        "build": ["--workers", "1"],
        "train": ["--steps", "1", "--batch", "4", "--probe-every", "0", "--out", "runs/mine"],
        "generate": [*drawn, "--out", "runs/images/mine"],
    }
    words = {name: [*example(name, capsys), *short.get(name, [])] for name in FORMS}
    floor = ["--dataset", "datasets/scenes-seg-64", *drawn]
    for name, line in (
        *((name, words[name]) for name in ("build", "train", "generate")),
        ("generate", floor),
        *((name, words[name]) for name in ("evaluate", "leaderboard")),
        ("study", ["show", *words["study"][1:]]),
    ):
        assert importlib.import_module(f"benchmark.{name}").main(line) == 0, name
    assert (tmp_path / "results" / "site" / "index.html").exists()
