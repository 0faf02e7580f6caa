"""Which records a study made, from the real forms of every study that ships; and what is said of them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmark import registry
from benchmark.base.files import canonical_json
from benchmark.cli import command_line
from benchmark.contracts.plugins import Method
from benchmark.contracts.records import Record
from benchmark.engine.studies import StudyFile, read_studies
from benchmark.generate import Generate
from benchmark.study import Design, read_design
from benchmark.train import Train, make_recipe
from tests.commands.test_leaderboard import made_up

FILES = {file.name: file for file in read_studies()}
Control = Callable[[Train, Generate], float]


def records_of(design: Design, control: Control = lambda _train, _generate: 0.5) -> Iterator[tuple[Train, Record]]:
    """Yield a made-up record of every run of a study that steers alone, as `train` and `evaluate` would describe it."""
    for cell in design.cells:
        for drawing in cell.drawings:
            forms = [form for form in cell.trains if form.out in drawing.generate.run]
            if len(forms) == 1:
                yield forms[0], record_of(design, forms[0], drawing.generate, control(forms[0], drawing.generate))


def record_of(design: Design, form: Train, drawing: Generate, control: float) -> Record:
    assert design.build.out is not None
    method = registry.make(Method, form.method)
    name, dataset = design.build.out.name, {"name": design.build.out.name, "plan_hash": "p"}
    assert form.out is not None
    training = {
        "name": form.out.name,
        "step": form.steps,
        "base": form.base,
        "condition": {"name": form.cond},
        "corrupt": list(form.corrupt),
        "dataset": dataset,
        "method": registry.describe(method),
        "num_samples": form.num_samples or design.build.size,
        "recipe": asdict(make_recipe(form)),
        "replicate": form.replicate,
    }
    identity = f"{design.name}-{form.out.name}-{drawing.prompts}".translate(str.maketrans("/=,", "---"))
    record = made_up(identity, control, key=f"{name} {form.cond} {drawing.prompts}", method=registry.spec(method))
    changes: dict[str, Any] = {
        "condition": form.cond,
        "dataset": {**dataset, "n": drawing.limit or 256},
        "training": training,
        "generation": {"prompts": drawing.prompts, "sampling": {"num_inference_steps": drawing.num_inference_steps}},
        "environment": {"command": "evaluate", "training": {"command": command_line(form)}},
    }
    return record.model_copy(update=changes)


def held(file: StudyFile, *records: Record) -> list[bool]:
    return [file.holds(record) for record in records]


@cache
def made(name: str) -> tuple[Record, ...]:
    return tuple(record for _, record in records_of(read_design(name, Path("elsewhere"))))


def run_of(record: Record) -> bytes:
    """Return all that tells a run and its images from others but its name."""
    training = {key: value for key, value in (record.training or {}).items() if key != "name"}
    return canonical_json([record.generation, record.dataset, training])


@pytest.mark.parametrize("name", FILES)
def test_a_study_holds_its_own_runs_wherever_they_ran_and_of_others_only_the_same(name: str) -> None:
    assert made(name)
    assert all(held(FILES[name], *made(name)))
    own = {run_of(record) for record in made(name)}
    for other in FILES:
        assert {run_of(record) for record in made(other) if FILES[name].holds(record)} <= own, other


def test_studies_share_runs() -> None:
    shared = {name for name in FILES if any(held(FILES[name], *made("seeds")))}
    assert shared == {"ablation", "dirty_data", "hyperparameters", "seeds"}


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 1e-3}, {"seed": 11}, {"num_samples": 1000}, {"init_seed": 5}, {"method": "t2i_adapter"}],
)
def test_a_run_with_another_setting_is_of_no_study(change: dict[str, Any], tmp_path: Path) -> None:
    design = read_design("seeds", tmp_path)
    cell = design.cells[0]
    assert FILES["seeds"].holds(record_of(design, cell.trains[0], cell.drawings[0].generate, 0.5))
    other = record_of(design, replace(cell.trains[0], **change), cell.drawings[0].generate, 0.5)
    assert not FILES["seeds"].holds(other)
    assert not FILES["seeds"].holds(
        record_of(design, cell.trains[0], replace(cell.drawings[0].generate, num_inference_steps=50), 0.5)
    )


def test_runs_that_steer_together_are_of_the_study_of_both(tmp_path: Path) -> None:
    one, other = [record for _, record in records_of(read_design("multi_condition", tmp_path))][:2]
    parts, commands = [one.training, other.training], [r.environment["training"] for r in (one, other)]
    both = one.model_copy(update={"training": {"parts": parts}, "environment": {"training": {"parts": commands}}})
    assert FILES["multi_condition"].holds(both)
    foreign = {**(other.training or {}), "num_samples": 7}
    assert not FILES["multi_condition"].holds(both.model_copy(update={"training": {"parts": [parts[0], foreign]}}))


def test_a_record_that_does_not_say_how_it_was_trained_is_of_no_study() -> None:
    record = made_up("a", 0.5)
    assert not any(file.holds(record) for file in FILES.values())
    assert not any(file.holds(record.model_copy(update={"training": None})) for file in FILES.values())


def test_the_command_of_its_dataset_builds_what_the_study_builds() -> None:
    assert FILES["multi_condition"].build_command == "python -m benchmark.build --cond pose --cond depth --size 4000"
