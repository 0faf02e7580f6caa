import json
from pathlib import Path

import pytest

from benchmark.study import main, read_design

TINY = """
description = "Two updates, for the test."
[build]
cond = ["seg"]
source = "scenes,val=4,test=8"
size = 500
workers = 1
[train]
cond = "seg"
steps = 2
batch = 4
[generate]
num_inference_steps = 2
[grid]
seed = [0, 1]
"""


def test_a_study_goes_from_data_to_board_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    arguments = ["run", str(file), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    records = sorted((tmp_path / "out" / "results").rglob("*.json"))
    seeds = sorted(json.loads(path.read_text())["training"]["recipe"]["seeds"]["init"] for path in records)
    assert seeds == [0, 1]
    assert (tmp_path / "out" / "results" / "site" / "index.html").exists()
    before = [path.read_bytes() for path in records]
    capsys.readouterr()
    assert main(arguments) == 0
    assert "is already built" in capsys.readouterr().out
    assert [path.read_bytes() for path in records] == before
    assert main(["status", str(file), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("finished") == 2


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    arguments = ["run", str(file), "--out", str(tmp_path / "out"), "--world", "2"]
    for rank, done in ((0, ["seed-0"]), (1, ["seed-0", "seed-1"])):
        assert main([*arguments, "--rank", str(rank)]) == 0
        assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == done
    assert len(list((tmp_path / "out" / "results").rglob("*.webp"))) >= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "smok"], 'did you mean "smoke"'),
        (["run"], "needs the name of a study"),
        (["walk", "smoke"], 'no action "walk"'),
        (["run", "smoke", "--rank", "2", "--world", "2"], "--rank 2 is not below --world 2"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_an_unknown_field_in_a_study_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "typo.toml"
    file.write_text(TINY.replace("steps = 2\nbatch", "stepz = 2\nbatch"))
    assert main(["show", str(file)]) == 2
    assert 'did you mean "steps"' in capsys.readouterr().err


def test_the_smoke_study_is_the_quickstart_of_the_readme() -> None:
    design = read_design("smoke", Path("somewhere"))
    assert design.build.cond == ("seg",)
    assert design.build.size == 1000
    assert len(design.cells) == 1
