import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark import registry, study
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Method
from benchmark.engine.board import sections
from benchmark.engine.imagesets import PROMPTS
from benchmark.engine.records import read_failures, read_records
from benchmark.engine.runs import RUN, begin, finish
from benchmark.engine.studies import STUDIES, combinations
from benchmark.study import main, read_design, run_side_by_side
from benchmark.train import Train, named_seeds

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


def test_the_status_of_a_study_says_how_far_its_trainings_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, runs = tmp_path / "tiny.toml", tmp_path / "out" / "runs"
    file.write_text(TINY)
    for seed, curve in ((0, '{"step": 1, "loss": 0.5}\n{"step": 2, "lo'), (1, None)):
        folder = runs / f"seed-{seed}"
        folder.mkdir(parents=True)
        begin(folder, RUN, {}, {"command": "a command"})
        if curve:
            (folder / "curve.jsonl").write_text(curve)
    assert main(["status", str(file), "--out", str(tmp_path / "out")]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*seed-0: open, 1 of 2 updates, the last noted \d+ s ago", first)
    assert second.endswith("seed-1: open")
    assert last == "0 of 2 trainings ended"


def test_an_answer_that_nobody_reads_to_its_end_is_no_error() -> None:
    """As behind `| head -1`: a line that says nothing would otherwise be followed by a traceback."""
    command = [sys.executable, "-m", "benchmark.study", "status", "dirty_data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('[generate]\ntier = "quick"', "--tier quick is of 1000 samples"),
        ('[evaluate]\nmetric = ["fid:nowhere"]\n[generate]', "the weights of Inception are missing"),
        ('[evaluate]\nreferee = "openpose"\n[generate]', "the referee openpose makes pose maps"),
    ],
)
def test_what_a_study_cannot_be_judged_by_is_told_before_it_trains(
    table: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace("num_inference_steps = 2\n", "").replace("[generate]", table))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("field", ["cond", "images", "results"])
def test_what_follows_from_the_runs_is_not_said_again_of_their_scores(field: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(f'{TINY}[evaluate]\n{field} = "canny"\n')
    with pytest.raises(UserError, match=f"evaluate.{field} follows from the runs; leave it out"):
        read_design(str(file), tmp_path / "out")
    file.write_text(f'{TINY}[evaluate]\nmetric = ["kid"]\nreferee = "scenes:seg"\n')
    forms = [form for cell in read_design(str(file), None).cells for each in cell.drawings for form in each.evaluate]
    assert {(form.cond, form.metric, form.referee) for form in forms} == {("seg", ("kid",), "scenes:seg")}


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    arguments = ["run", str(file), "--out", str(tmp_path / "out"), "--world", "2"]
    for rank, done in ((0, ["seed-0"]), (1, ["seed-0", "seed-1"])):
        assert main([*arguments, "--rank", str(rank)]) == 0
        assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == done
    assert len(list((tmp_path / "out" / "results").rglob("*.webp"))) >= 2


def test_runs_side_by_side_make_what_one_process_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "tiny.toml", tmp_path / "out"
    file.write_text(TINY)
    run_side_by_side(str(file), out, 2)
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["seed-0", "seed-1"]
    made = sorted((out / "results").rglob("*.json"))
    assert main(["run", str(file), "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("is already finished") >= 2
    assert sorted((out / "results").rglob("*.json")) == made
    with pytest.raises(UserError, match="2 of 2 processes ended"):
        run_side_by_side(str(tmp_path / "none.toml"), out, 2)


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


def test_each_run_is_drawn_in_every_way_asked_for_beside_a_floor_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "ways.toml"
    file.write_text(TINY.replace("seed = [0, 1]", 'seed = [0]\n[grid.generate]\nprompts = ["full", "none"]'))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "results").rglob("*.json")]
    assert sorted(record["generation"]["prompts"] for record in records) == ["full", "none"]
    folders = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
    assert folders == [
        "no_control_prompts-full",
        "no_control_prompts-none",
        "seed-0_prompts-full",
        "seed-0_prompts-none",
    ]


def test_a_run_that_cannot_be_made_is_told_of_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "large.toml", tmp_path / "out"
    file.write_text(TINY.replace("seed = [0, 1]", "batch = [501, 4]").replace("batch = 4\n", ""))
    assert main(["run", str(file), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert "left out: " in said.out
    assert "1 of 2 cells could not be made" in said.err.splitlines()[-1]
    assert len(read_records(out / "results")) == 1
    assert (out / "results" / "site" / "index.html").exists()


def test_a_run_that_diverges_keeps_its_outcome_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "wild.toml", tmp_path / "out"
    file.write_text(
        TINY.replace("seed = [0, 1]", "learning_rate = [1e30, 1e-4]").replace("steps = 2\nb", "steps = 3\nb")
    )
    for _ in range(2):
        assert main(["run", str(file), "--out", str(out)]) == 0
        assert "1 of 2 runs diverged: " + str(out / "runs" / "learning_rate-1e+30") in capsys.readouterr().out
    assert len(read_records(out / "results")) == len(read_failures(out / "results")) == 1
    [failure] = read_failures(out / "results").values()
    assert "the loss is" in failure.reason
    assert failure.prompts == ("full",)
    assert main(["status", str(file), "--out", str(out)]) == 0
    status = capsys.readouterr().out
    assert "diverged" in status
    assert "finished" in status
    assert "2 of 2 trainings ended" in status
    assert "diverged" in (out / "results" / "leaderboard.csv").read_text()
    file.write_text(file.read_text().replace("batch = 4", "batch = 5"))  # what diverged is no excuse for other runs
    assert main(["run", str(file), "--out", str(out)]) == 2
    assert "was made differently (recipe.batch: 4 -> 5)" in capsys.readouterr().err


def test_a_process_whose_runs_all_diverged_adds_them_to_the_board(tmp_path: Path) -> None:
    file, out = tmp_path / "wild.toml", tmp_path / "out"
    file.write_text(
        TINY.replace("seed = [0, 1]", "learning_rate = [1e-4, 1e30]").replace("steps = 2\nb", "steps = 3\nb")
    )
    for rank in "01":
        assert main(["run", str(file), "--out", str(out), "--rank", rank, "--world", "2"]) == 0
    assert "diverged" in (out / "results" / "leaderboard.csv").read_text()


def test_bases_in_a_grid_have_folders_and_floors_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "bases.toml"
    file.write_text(TINY.replace("seed = [0, 1]", 'seed = [0, 1]\nbase = ["scenes-tiny", "org/model"]'))
    cells = read_design(str(file), tmp_path / "out").cells
    drawn = [drawing for cell in cells for drawing in cell.drawings]
    assert len({drawing.generate.out for drawing in drawn}) == 4
    floors = {(drawing.floor.base, drawing.floor.out) for drawing in drawn}
    assert len(floors) == len({out for _, out in floors}) == 2
    assert {out.parent for _, out in floors if out} == {tmp_path / "out" / "images"}


def test_fields_in_one_key_vary_together() -> None:
    grid: dict[str, list[Any]] = {"num_samples": [10, 20], "replicate seed": [[0, 0], [1, 1]]}
    assert list(combinations(grid, Path("x.toml"))) == [
        {"num_samples": size, "replicate": draw, "seed": draw} for size in (10, 20) for draw in (0, 1)
    ]
    assert list(combinations({}, Path("x.toml"))) == [{}]


@pytest.mark.parametrize("grid", [{"seed": 3}, {"replicate seed": [0, 1]}, {"replicate seed": [[0], [1]]}])
def test_a_grid_without_lists_is_refused(grid: dict[str, list[int]]) -> None:
    with pytest.raises(UserError, match=r"x.toml: the grid's .* needs a list of values"):
        list(combinations(grid, Path("x.toml")))


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.toml")))
def test_every_study_that_ships_is_whole(name: str) -> None:
    """Its fields exist, no two runs share a folder, and its methods, sizes and prompts can be had."""
    design = read_design(name, Path("somewhere"))
    assert design.description
    assert len({cell.trains[0].out for cell in design.cells}) == len(design.cells)
    assert len({drawing.generate.out for cell in design.cells for drawing in cell.drawings}) >= len(design.cells)
    for cell in design.cells:
        assert registry.make(Method, cell.trains[0].method)
        assert cell.trains[0].cond in design.build.cond
        assert (cell.trains[0].replicate + 1) * (cell.trains[0].num_samples or 0) <= design.build.size
        assert {drawing.generate.prompts for drawing in cell.drawings} <= set(PROMPTS)


def test_draws_of_the_size_study_are_disjoint_and_its_largest_size_is_seen_more_than_once() -> None:
    design = read_design("dataset_size", Path("somewhere"))
    forms = [cell.trains[0] for cell in design.cells]
    assert {named_seeds(form)["subset"] for form in forms} == {0}
    draws = {(form.num_samples, form.replicate) for form in forms}
    assert len(draws) == len(forms) == 18
    assert all(form.steps * form.batch > (form.num_samples or 0) for form in forms)
    assert max((form.replicate + 1) * (form.num_samples or 0) for form in forms) == design.build.size


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


TOGETHER = """
description = "Two conditions that steer together, for the test."
[build]
cond = ["seg", "canny"]
source = "scenes,val=4,test=8"
size = 500
workers = 1
[train]
steps = 2
batch = 4
probe_every = 0
[generate]
num_inference_steps = 2
[grid]
seed = [0, 1]
[together]
cond = ["seg", "canny"]
"""


def test_runs_that_steer_together_are_judged_alone_and_at_once(tmp_path: Path) -> None:
    file, out = tmp_path / "both.toml", tmp_path / "out"
    file.write_text(TOGETHER)
    assert main(["run", str(file), "--out", str(out)]) == 0
    made = sorted((r.condition, r.method) for r in read_records(out / "results").values())
    both = "controlnet@seg+controlnet@canny"
    assert made == sorted([(cond, m) for cond in ("seg", "canny") for m in ("controlnet", both)] * 2)
    cells = [cell for section in sections(read_records(out / "results")) for cell in section.cells]
    assert sorted(len(cell.rows) for cell in cells) == [2, 2, 2, 2]  # two seeds are one cell, of the sum as well
    assert {row.seed for cell in cells for row in cell.rows} == {"0", "1"}


def test_a_run_that_diverged_counts_in_the_sums_it_was_to_be_part_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = study._train

    def lost(form: Train) -> bool:
        assert form.out is not None
        assert trained(form)
        if (form.seed, form.cond) != (1, "seg"):
            return True
        finish(form.out, RUN, "diverged", reason="made up")
        return False

    monkeypatch.setattr(study, "_train", lost)
    file, out = tmp_path / "both.toml", tmp_path / "out"
    file.write_text(TOGETHER)
    assert main(["run", str(file), "--out", str(out)]) == 0
    failures = list(read_failures(out / "results").values())
    both = "controlnet@seg+controlnet@canny"
    assert sorted((f.condition, f.method) for f in failures) == [("canny", both), ("seg", "controlnet"), ("seg", both)]
    found = {
        (section.first.record.condition, cell.method): (len(cell.rows), len(cell.diverged))
        for section in sections(read_records(out / "results"), failures)
        for cell in section.cells
    }
    assert found == {
        ("seg", "controlnet"): (1, 1),
        ("canny", "controlnet"): (2, 0),
        ("seg", both): (1, 1),
        ("canny", both): (1, 1),
    }
