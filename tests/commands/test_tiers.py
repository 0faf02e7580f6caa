"""Tiers of an evaluation: what they set, what they refuse, and what they say of their cost before they run."""

import re
from pathlib import Path

import pytest

from benchmark import generate, train
from benchmark.cli import command_line
from benchmark.engine import runs
from benchmark.engine.imagesets import read_config
from benchmark.engine.studies import read_studies
from benchmark.engine.tiers import TIERS
from benchmark.generate import Generate, shown_flops


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier that the tests have time for."""
    monkeypatch.setitem(TIERS, "probe", {"limit": 5, "prompts": "full", "num_inference_steps": 3})


def words(dataset: Path, out: Path, *more: str) -> list[str]:
    return ["--dataset", str(dataset), "--device", "cpu", "--batch", "5", "--out", str(out), *more]


def test_tiers_grow_and_the_largest_may_rank_an_fid() -> None:
    assert list(TIERS) == ["probe", "quick", "full"]
    assert [tier["limit"] for tier in TIERS.values()] == sorted(tier["limit"] for tier in TIERS.values())
    assert TIERS["full"]["limit"] >= 4 * 2048


@pytest.mark.usefixtures("short")
def test_a_tier_makes_what_its_settings_make_and_says_first_what_it_costs(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(words(tiny_dataset, tmp_path / "a", "--tier", "probe")) == 0
    cost, done = capsys.readouterr().out.splitlines()
    said = re.fullmatch(r"probe: 5 images of 3 steps, (\S+) GFLOP each, (\S+) GFLOP in all", cost)
    assert said is not None
    assert float(said[2]) == pytest.approx(5 * float(said[1]), rel=0.01)
    assert done.startswith("generated 5 images")
    assert generate.main(words(tiny_dataset, tmp_path / "b", "--limit", "5", "--num-inference-steps", "3")) == 0
    assert read_config(tmp_path / "a") == read_config(tmp_path / "b")
    recorded = (tmp_path / "a" / runs.IMAGES).read_text()
    assert "--tier probe" in recorded
    assert "--limit" not in recorded


@pytest.mark.usefixtures("short")
def test_a_run_is_told_what_share_of_its_training_the_evaluation_costs(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--dataset", str(tiny_dataset), "--cond", "seg", "--batch", "4", "--probe-every", "0", "--device", "cpu"]
    assert train.main([*common, "--steps", "2", "--cache", str(tmp_path / "c"), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert generate.main(words(tiny_dataset, tmp_path / "x", "--tier", "probe", "--run", str(tmp_path / "run"))) == 0
    cost = capsys.readouterr().out.splitlines()[0]
    said = re.fullmatch(r"probe: .* (\S+) GFLOP in all, (\d+)% of the training's (\S+) GFLOP", cost)
    assert said is not None
    assert 100 * float(said[1]) / float(said[3]) == pytest.approx(float(said[2]), abs=1)


@pytest.mark.usefixtures("short")
def test_the_cost_of_two_runs_that_steer_together_is_counted(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--dataset", str(tiny_dataset), "--batch", "4", "--probe-every", "0", "--device", "cpu", "--steps", "2"]
    costs = []
    for cond in ("seg", "canny"):
        run = tmp_path / cond
        assert train.main([*common, "--cond", cond, "--cache", str(tmp_path / "c"), "--out", str(run)]) == 0
    for names in (("seg",), ("seg", "canny")):
        steering = [word for name in names for word in ("--run", str(tmp_path / name))]
        capsys.readouterr()
        assert generate.main(words(tiny_dataset, tmp_path / f"drawn-{len(names)}", "--tier", "probe", *steering)) == 0
        said = re.search(r"(\S+) GFLOP each", capsys.readouterr().out)
        assert said is not None
        costs.append(float(said[1]))
    assert 1.1 < costs[1] / costs[0] < 1.9  # one more control, not one more base


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--tier", "qick"], 'no tier "qick"; did you mean "quick"?'),
        (["--tier", "quick", "--limit", "10"], "--tier quick sets --limit to 1000; give one of the two"),
        (["--tier", "quick", "--prompts", "none"], "--tier quick sets --prompts to full; give one of the two"),
        (
            ["--tier", "probe"],
            "--tier probe is of 64 samples, the test split of .* has 24; build one that holds more out",
        ),
    ],
)
def test_a_tier_that_cannot_be_kept_is_refused(
    more: list[str], line: str, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(words(tiny_dataset, tmp_path / "x", *more)) == 2
    assert re.search(line, capsys.readouterr().err)
    assert not (tmp_path / "x").exists()


def test_a_study_may_name_a_tier_and_knows_its_records(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[build]\ncond = ["seg"]\nsize = 1000\n[generate]\ntier = "quick"\n')
    (study,) = read_studies(tmp_path)
    assert study.drawings == ({"prompts": "full", "limit": 1000, "num_inference_steps": 20},)
    assert command_line(Generate(dataset=Path("d"), tier="quick")).endswith("--dataset d --tier quick")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 FLOP"), (12, "12 FLOP"), (4.31e13, "43.1 TFLOP"), (9.999e14, "1e+03 TFLOP"), (2e20, "200 EFLOP")],
)
def test_operations_are_shown_with_a_unit(count: float, text: str) -> None:
    assert shown_flops(count) == text
