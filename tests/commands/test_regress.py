"""The regression gate: planted faults are caught, honest runs pass, and what it compares is what ran."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import regress
from benchmark.base import provenance
from benchmark.base.errors import UserError
from benchmark.base.files import sealed_json
from benchmark.conditions.seg import Seg
from benchmark.engine import runs as runs_on_disk
from benchmark.numbers.gate import Check
from benchmark.regress import BANDS, Bands, Pins, Run, check_pins, check_runs, main, pins, read_bands
from benchmark.study import Design, read_design, run
from benchmark.train import Train, train
from tests.commands.test_study import TINY


def trained(dataset: Path, out: Path, **changes: Any) -> Pins:
    """Return the pins of eleven updates; the gate's runs have more of them."""
    form = Train(dataset=dataset, steps=11, batch=8, probe_every=0, out=out, cache=dataset.parent / "cache")
    form = replace(form, **changes)
    train(form)
    return pins(form)


@pytest.fixture(scope="module")
def honest(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Pins:
    return trained(tiny_dataset, tmp_path_factory.mktemp("honest") / "run")


def moved(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if check.moved}


@pytest.mark.parametrize("kept", ["runs/mine/run.json", "README.md"])
def test_a_folder_with_other_work_is_refused_and_left_as_it_is(
    kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of other code are deleted from the gate's folder, which must not be anybody else's."""
    file = tmp_path / kept
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    assert main(["--out", str(tmp_path)]) == 2
    assert "holds other work" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_same_run_again_moves_no_pin(tiny_dataset: Path, honest: Pins, tmp_path: Path) -> None:
    assert moved(check_pins(honest, trained(tiny_dataset, tmp_path / "run"))) == set()


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ({"corrupt": ("foreign_map=1",)}, "rendered conditioning"),
        ({"corrupt": ("shifted_map=1",)}, "rendered conditioning"),  # by 4 of 64 pixels
        ({"method": "controlnet,init=gaussian"}, "first losses"),
        ({"empty_prompt_rate": 0.0}, "prompts after dropping"),
        ({"learning_rate": 6e-3}, "first losses"),
    ],
)
def test_a_planted_fault_moves_a_pin(
    tiny_dataset: Path, honest: Pins, tmp_path: Path, fault: dict[str, Any], caught: str
) -> None:
    assert caught in moved(check_pins(honest, trained(tiny_dataset, tmp_path / "run", **fault)))


def test_a_wrong_order_of_channels_moves_a_pin(
    tiny_dataset: Path, honest: Pins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render: Callable[..., Any] = Seg.render
    monkeypatch.setattr(
        Seg, "render", lambda self, map_, size: np.ascontiguousarray(render(self, map_, size)[..., ::-1])
    )
    assert "rendered conditioning" in moved(check_pins(honest, trained(tiny_dataset, tmp_path / "run")))


def runs(generator: np.random.Generator, count: int, shift: float = 0.0, onset: int | None = 100) -> list[Run]:
    def run(seed: int) -> Run:
        values = {
            "control, full prompts": generator.normal(0.4 + shift, 0.02),
            "control, no prompts": generator.normal(0.35, 0.02),
            "CLIP score, full prompts": generator.normal(90, 0.2),
        }
        return Run(seed=str(seed), failed=onset is None, onset=onset, values=values)

    return [run(seed) for seed in range(count)]


def test_honest_runs_pass_and_worse_ones_do_not() -> None:
    generator = np.random.default_rng(0)
    reference = runs(generator, 30)
    assert all(not moved(check_runs(reference, runs(generator, 4))) for _ in range(20))
    assert "control, full prompts" in moved(check_runs(reference, runs(generator, 4, shift=-0.2)))
    assert {"failures", "onset of control"} <= moved(check_runs(reference, runs(generator, 4, onset=None)))


def test_the_committed_bands_pass_honest_draws_of_their_runs() -> None:
    pool = read_bands(BANDS).runs
    assert len(pool) >= 24
    generator = np.random.default_rng(0)
    for _ in range(20):
        order = generator.permutation(len(pool))
        drawn, others = ([pool[i] for i in chosen] for chosen in (order[:4], order[4:]))
        assert moved(check_runs(others, drawn)) == set()


def test_runs_without_weights_are_a_regression() -> None:
    generator = np.random.default_rng(0)
    gone = [Run(seed=str(seed), failed=True, onset=None, values={}) for seed in range(4)]
    assert moved(check_runs(runs(generator, 30), gone)) == {"failures", "control"}


def test_the_reference_differs_from_the_gate_in_its_seeds_alone() -> None:
    gate, reference = (read_design(name, Path("x")) for name in ("regress", "regress_reference"))
    same: dict[str, Any] = {"seed": 0, "out": None}
    assert {replace(cell.trains[0], **same) for cell in gate.cells} == {
        replace(cell.trains[0], **same) for cell in reference.cells
    }
    assert gate.build == reference.build
    seeds = [{cell.trains[0].seed for cell in design.cells} for design in (gate, reference)]
    assert not seeds[0] & seeds[1]
    drawn = [
        {replace(d.generate, run=(), out=None) for c in design.cells for d in c.drawings}
        for design in (gate, reference)
    ]
    assert drawn[0] == drawn[1]


def test_bands_that_are_missing_or_damaged_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bands", str(tmp_path / "none.json")]) == 2
    assert "--learn" in capsys.readouterr().err
    for data, told in ((sealed_json({"runs": []}), "holds no bands"), (b"{}", "is not what was written")):
        (tmp_path / "bad.json").write_bytes(data)
        with pytest.raises(UserError, match=told):
            read_bands(tmp_path / "bad.json")


def test_bands_come_back_from_disk_as_they_were(tmp_path: Path, honest: Pins) -> None:
    bands = Bands(pins=honest, runs=tuple(runs(np.random.default_rng(0), 3)), environment={"commit": "c"})
    path = tmp_path / "bands.json"
    path.write_bytes(sealed_json(bands.model_dump(mode="json")))
    assert read_bands(path) == bands


def test_bands_are_learnt_from_a_study_and_the_gate_holds_its_runs_against_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seeds in (("regress", [0, 1]), ("regress_reference", [2, 3])):
        grid = f'seed = {seeds}\n[grid.generate]\nprompts = ["full", "none"]'
        (tmp_path / f"{name}.toml").write_text(TINY.replace("seed = [0, 1]", grid))

    def here(name: str, out: Path | None) -> Design:
        return read_design(str(tmp_path / f"{name}.toml"), out or tmp_path / name)

    monkeypatch.setattr(regress, "read_design", here)
    bands, words = tmp_path / "bands.json", ["--out", str(tmp_path / "gate"), "--workers", "1"]
    assert main([*words, "--bands", str(bands), "--learn"]) == 2
    assert "study run regress_reference" in capsys.readouterr().err
    run(here("regress_reference", None))
    told = regress._is_of_other_code
    monkeypatch.setattr(regress, "_is_of_other_code", lambda out: True)
    assert main([*words, "--bands", str(bands), "--learn"]) == 2
    assert "regress_reference were made by other code" in capsys.readouterr().err
    monkeypatch.setattr(regress, "_is_of_other_code", lambda out: out.name != "regress_reference" and told(out))
    assert main([*words, "--bands", str(bands), "--learn"]) == 0
    assert [run.seed for run in read_bands(bands).runs] == ["2", "3"]
    assert {len(run.values) for run in read_bands(bands).runs} == {3}
    assert main([*words, "--bands", str(bands)]) in (0, 1)  # two updates teach nothing: only the pins are certain
    lines = capsys.readouterr().out.splitlines()
    (run_file := tmp_path / "gate" / "runs" / "seed-0" / "run.json").touch()
    before = run_file.stat().st_mtime_ns
    monkeypatch.setattr(provenance, "commit", lambda: ("another", False))
    monkeypatch.setattr(runs_on_disk, "commit", lambda: ("another", False))
    assert main([*words, "--bands", str(bands)]) in (0, 1)
    assert "were made by other code" in capsys.readouterr().out
    assert run_file.stat().st_mtime_ns > before
    for name in ("fingerprint of the dataset", "rendered conditioning", "prompts after dropping", "first losses"):
        assert any(line.startswith(f"holds: {name}") for line in lines)
    assert any("false alarms: at most 0.5%" in line for line in lines)
