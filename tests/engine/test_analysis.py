"""What is said of a section's runs, where the truth was planted in the records of real studies."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.contracts.records import Failure, Record
from benchmark.engine.analysis import comparisons, dials, dirt, together
from benchmark.engine.board import Section, counted, sections
from benchmark.engine.cells import names
from benchmark.engine.charts import charts, profile_chart
from benchmark.engine.corruptions import CORRUPTIONS
from benchmark.engine.frame import frame
from benchmark.engine.records import read_records
from benchmark.engine.trainings import draw_of, likeness_of, seed_of
from benchmark.generate import Generate
from benchmark.study import Design, read_design
from benchmark.train import Train
from tests.engine.test_studies import records_of

Control = Callable[[Train, Generate], float]


def board_of(study: str, control: Control, *others: Record) -> list[Section]:
    records = [*(record for _, record in records_of(read_design(study, Path("elsewhere")), control)), *others]
    return sections({Path(f"{record.evaluation_id}.json"): record for record in records})


def hill(form: Train, drawing: Generate) -> float:
    """Return control that falls by 0.2 a decade of the learning rate, by 0.1 a unit of the share, and by seed."""
    assert form.learning_rate is not None
    off = abs(math.log10(form.learning_rate / 6e-4))
    return 0.5 - 0.2 * off - 0.1 * abs(form.empty_prompt_rate - 0.5) + 0.001 * form.seed


def test_every_dial_of_the_study_is_found_and_measured() -> None:
    [section] = board_of("hyperparameters", hill)
    rate, batch, empty = dials(section)
    assert [dial.name for dial in (rate, batch, empty)] == ["learning_rate", "batch", "empty_prompt_rate"]
    assert list(rate.cells) == [6e-5, 2e-4, 6e-4, 2e-3, 6e-3]
    assert rate.region is not None
    assert math.log10(rate.region.width) == pytest.approx(
        2 * 0.0501 / 0.2
    )  # a tenth of 0.501 lies 0.25 of a decade away
    assert list(batch.cells) == [8, 32, 128]  # their updates differ, the images seen do not
    assert batch.region is not None
    assert (batch.region.open_below, batch.region.open_above) == (True, True)
    assert empty.region is not None
    assert (empty.region.start, empty.region.end, empty.region.open_below) == (0, 0.9, True)
    assert "Control over learning rate" in [heading for heading, _ in charts(section)]


def test_cells_that_differ_in_the_recipe_have_names_of_their_own() -> None:
    [section] = board_of("hyperparameters", hill)
    assert len(set(names(section.cells))) == len(section.cells) == 9
    assert "controlnet, 1000 updates, batch 32, empty prompt rate 0.5, learning rate 0.0002" in names(section.cells)


FALLS = {"wrong_caption": 0.02, "foreign_map": 0.5, "shifted_map": 0.3, "duplicate": 0.1, "jpeg": 0.2, "blur": 0.4}


def dirty(form: Train, drawing: Generate) -> float:
    kinds = dict(text.split("=") for text in form.corrupt)
    return 0.5 + 0.1 * form.seed - sum(FALLS[kind] * float(rate) for kind, rate in kinds.items())


def test_the_slope_of_every_kind_of_dirt_is_the_planted_one_whatever_the_seeds_differ_in() -> None:
    [section] = board_of("dirty_data", dirty)
    found = {one.name: one.slope for one in dirt(section)}
    assert set(found) == set(FALLS) == set(CORRUPTIONS)
    for kind, fall in FALLS.items():
        slope = found[kind]
        assert slope is not None
        assert (slope.iqm, slope.low, slope.high) == pytest.approx((-fall, -fall, -fall))
        assert len(slope.values) == 3
    assert [heading for heading, _ in charts(section)] == ["Control over dirt"]


def test_a_run_that_diverged_is_a_point_at_zero_on_dials_and_slopes() -> None:
    design = read_design("dirty_data", Path("elsewhere"))
    made = list(records_of(design, dirty))
    lost = [record for form, record in made if form.corrupt == ("shifted_map=1",)]
    kept = {Path(f"{r.evaluation_id}.json"): r for form, r in made if form.corrupt != ("shifted_map=1",)}
    failures = [failure_of(record) for record in lost]
    [section] = sections(kept, failures)
    [shifted] = [one for one in dirt(section) if one.name == "shifted_map"]
    assert list(shifted.cells) == [0, 0.5, 1]
    assert shifted.slope is not None
    lines = [np.polyfit([0, 0.5, 1], [0.5 + 0.1 * seed, 0.35 + 0.1 * seed, 0.0], 1)[0] for seed in range(3)]
    assert shifted.slope.iqm == pytest.approx(np.mean(lines))


def failure_of(record: Record) -> Failure:
    assert record.training is not None
    return Failure(
        failure_id=f"f-{record.evaluation_id}",
        created=record.created,
        dataset={key: record.dataset[key] for key in ("name", "plan_hash")},
        condition=record.condition,
        method=record.method,
        base=record.base,
        training=record.training,
        reason="the loss is nan",
        environment={},
    )


def ranked(form: Train, drawing: Generate) -> float:
    order = ["controlnet_lite", "t2i_adapter", "controlnet"]
    return 0.1 * order.index(form.method.partition(",")[0]) + 0.001 * form.seed - 0.05 * (drawing.prompts == "none")


def test_methods_are_compared_that_share_all_else_and_share_the_error() -> None:
    board = board_of("ablation", ranked)
    assert len(board) == 4  # one table for each prompt setting
    for section in board:
        found = comparisons(section)
        assert len(found) == 15  # each of six against each
        best = {(one.mine, one.other): one for one in found}["controlnet", "t2i_adapter"]
        assert best.found.value == 1
        assert best.found.p == pytest.approx(0.1)
        assert best.p == 1  # of fifteen


def test_sizes_are_compared_with_the_next_smaller_and_only_after_an_epoch() -> None:
    def grows(form: Train, drawing: Generate) -> float:
        return 0.1 * math.log10(form.num_samples or 0) + 0.001 * form.seed

    [section] = board_of("dataset_size", grows)
    found = comparisons(section)
    assert [(one.mine.split(", ")[1], one.other.split(", ")[1]) for one in found] == [
        ("300 pairs", "100 pairs"),
        ("1000 pairs", "300 pairs"),
        ("3000 pairs", "1000 pairs"),
        ("10000 pairs", "3000 pairs"),
        ("30000 pairs", "10000 pairs"),
    ]
    assert {one.found.value for one in found} == {1}
    assert not dials(section)
    assert not dirt(section)


def test_methods_are_compared_on_the_most_pairs_that_both_were_trained_on() -> None:
    design = read_design("dataset_size", Path("elsewhere"))
    small = [cell for cell in design.cells if (cell.trains[0].num_samples or 0) < 3000]
    other = [replace(cell, trains=(replace(cell.trains[0], method="t2i_adapter"),)) for cell in small]
    records = [record for _, record in records_of(replace(design, name="other", cells=tuple(other)), lambda *_: 0.4)]
    [section] = board_of("dataset_size", lambda form, _: 0.5 + 0.001 * form.seed, *records)
    found = [(one.mine, one.other) for one in comparisons(section)]
    assert [pair for pair in found if len({name.split(", ")[0] for name in pair}) > 1] == [
        ("controlnet, 1000 pairs", "t2i_adapter, 1000 pairs")
    ]
    assert ("controlnet, 30000 pairs", "controlnet, 10000 pairs") in found
    assert [(family.budget.pairs, family.group) for family in section.families] == [(30000, 1), (1000, 1)]


def test_how_closely_runs_were_watched_is_named_only_where_nothing_else_tells_them_apart() -> None:
    board = board_of("seeds", lambda form, _: 0.5)
    design = read_design("seeds", Path("elsewhere"))
    trains = [replace(cell.trains[0], probe_every=50) for cell in design.cells]
    often = replace(design, cells=tuple(replace(c, trains=(t,)) for c, t in zip(design.cells, trains, strict=True)))
    assert [len(section.cells) for section in board] == [1]
    watched = [record for _, record in records_of(often, lambda form, _: 0.5)]
    both = {Path(f"{i}.json"): record for i, record in enumerate([*watched, *(r.record for r in board[0].rows)])}
    [section] = sections(both)
    assert {section.method(cell) for cell in section.cells} == {
        "controlnet, probe every 200",
        "controlnet, probe every 50",
    }
    precise = [record for _, record in records_of(with_precision(often), lambda form, _: 0.5)]
    [section] = board_of("seeds", lambda form, _: 0.5, *precise)
    assert {section.method(cell) for cell in section.cells} == {
        "controlnet, mixed precision bf16",
        "controlnet, mixed precision no",
    }


def with_precision(design: Design) -> Design:
    trains = [replace(cell.trains[0], mixed_precision="no") for cell in design.cells]
    cells = tuple(replace(cell, trains=(train,)) for cell, train in zip(design.cells, trains, strict=True))
    return replace(design, name="precise", cells=cells)


def test_draws_of_other_pairs_are_other_runs_though_seeds_and_numbers_are_the_same() -> None:
    pairs = [{"recipe": {"seeds": {"init": 0}}, "replicate": 0, "pairs_sha256": sha} for sha in ("a", "b")]
    assert draw_of(pairs[0]) != draw_of(pairs[1])
    assert draw_of({"parts": pairs}) == f"{draw_of(pairs[0])}; {draw_of(pairs[1])}"


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({"init": 3, "noise": 3}, "3"),
        ({"eval": 2, "init": 2, "noise": 2, "order": 2, "subset": 0}, "2, subset 0"),
        ({"init": 0, "noise": 1}, "init 0, noise 1"),
    ],
)
def test_a_run_is_named_by_the_seed_that_most_share(seeds: dict[str, int], said: str) -> None:
    assert seed_of({"recipe": {"seeds": seeds}}) == said


def test_two_runs_are_too_few_to_compare() -> None:
    design = read_design("ablation", Path("elsewhere"))
    two = [record for form, record in records_of(design, ranked) if form.seed < 2]
    for section in sections({Path(f"{record.evaluation_id}.json"): record for record in two}):
        assert comparisons(section) == []


def test_tasks_are_put_together_only_where_every_one_has_runs() -> None:
    board = board_of("ablation", ranked)
    recipes = together(board)
    assert len(recipes) == 6
    assert all(len(recipe.tasks) == 4 for recipe in recipes)
    assert recipes[-1].name.startswith("controlnet_lite")
    assert recipes[-1].control.worst == pytest.approx(-0.05)
    assert profile_chart(board) is not None
    assert together([*board, replace(board[0], rows=board[0].rows[:3])]) == []


def test_a_training_that_diverged_is_on_the_tables_it_was_meant_for() -> None:
    """Seeds drawn with captions alone say nothing of the other settings when one of them diverges."""
    made = list(records_of(read_design("ablation", Path("elsewhere")), ranked))
    (_, lost), *kept = [(form, record) for form, record in made if record.generation["prompts"] == "full"]
    others = [(form, record) for form, record in made if record.generation["prompts"] != "full"]
    board_records = {Path(f"{r.evaluation_id}.json"): r for _, r in (*kept, *others)}
    for prompts, expected in (((), 4), (("full",), 1), (("full", "none"), 2)):
        failure = failure_of(lost).model_copy(update={"prompts": prompts})
        board = sections(board_records, [failure])
        assert sum(bool(section.failures) for section in board) == expected
        rows = frame(board, [failure])
        rows = rows[rows["outcome"] == "diverged"]
        assert rows["prompts"].dropna().tolist() == list(prompts)
        assert len(rows) == max(1, len(prompts))
    two = [failure_of(lost).model_copy(update={"prompts": (name,), "failure_id": name}) for name in ("none", "full")]
    assert [failure.prompts for failure in counted(two, {})] == [("full", "none")]
    assert [failure.prompts for failure in counted([*two, failure_of(lost)], {})] == [()]


def at(record: Record, base: str, weights: str) -> Record:
    """The same on a base that lies elsewhere, or has other weights."""
    assert record.training is not None
    generation = {**record.generation, "base": {"name": base, "weights_sha256": weights}}
    training = {**record.training, "base": base}
    identity = f"{base}-{weights}-{record.evaluation_id}".replace("/", "_")
    key = f"key-{weights}"
    new = {"base": base, "generation": generation, "training": training, "evaluation_id": identity}
    return record.model_copy(update={**new, "comparability_key": key})


def test_a_base_is_told_by_its_weights_wherever_it_lies() -> None:
    """A run that diverged on another machine, where the base has another path, is charged all the same."""
    made = [record for _, record in records_of(read_design("seeds", Path("elsewhere")))]
    here, there = ([at(record, place, "w") for record in made] for place in ("/here/sd15", "/there/sd15"))
    records = {Path(f"{r.evaluation_id}.json"): r for r in (*here[:6], *there[4:8])}
    [section] = sections(records)
    assert len(section.cells) == 1
    assert len(section.rows) == 8
    assert len(section.aside) == 2  # the two seeds that both have
    for place, weights, charged in (("/there/sd15", "w", 1), ("/here/sd15", "other", 0)):
        lost = failure_of(at(made[9], place, weights)).model_copy(update={"environment": {"base_sha256": weights}})
        assert len(counted([lost, lost.model_copy(update={"base": "/third/sd15"})], {})) == 1
        [section] = sections(records, [lost])
        [cell] = section.cells
        assert len(cell.diverged) == charged
        assert cell.failures is None or cell.failures.count == charged


def test_a_failure_that_does_not_say_its_base_is_of_the_cell_its_name_leads_to() -> None:
    made = [at(record, "sd15", "w") for _, record in records_of(read_design("seeds", Path("elsewhere")))]
    [section] = sections({Path(f"{r.evaluation_id}.json"): r for r in made[1:]}, [failure_of(made[0])])
    assert [(len(cell.rows), len(cell.diverged)) for cell in section.cells] == [(9, 1)]


def test_a_training_that_diverged_and_was_judged_counts_as_diverged() -> None:
    """Otherwise its seed would count twice: once with its score, and once with none."""
    made = [record for _, record in records_of(read_design("seeds", Path("elsewhere")))]
    records = {Path(f"{r.evaluation_id}.json"): r for r in made}
    lost = failure_of(made[3])
    assert made[3].training
    lost = lost.model_copy(update={"training": {key: value for key, value in lost.training.items() if key != "step"}})
    [section] = sections(records, [lost])
    assert [(len(cell.rows), len(cell.diverged)) for cell in section.cells] == [(9, 1)]
    [aside] = section.aside
    assert aside.row.record is made[3]
    assert f"counts as {lost.failure_id[:8]}" in aside.why


def test_the_pictures_of_a_cell_are_of_the_run_in_the_middle_those_that_diverged_below_all() -> None:
    values = iter(range(10))
    design = read_design("seeds", Path("elsewhere"))
    made = [record for _, record in records_of(design, lambda form, drawing: next(values) / 10)]
    shown = [record.model_copy(update={"attached": {".webp": "0" * 64}}) for record in made]
    for kept, lost, expected in ((shown, [], 0.4), (shown[:7], [], 0.3), (shown[4:], made[:4], 0.4), (made, [], None)):
        records = {Path(f"{r.evaluation_id}.json"): r for r in kept}
        [section] = sections(records, [failure_of(record) for record in lost])
        [cell] = section.cells
        normalised = cell.middle.control.normalised if cell.middle else None
        assert (normalised.estimate if normalised else None) == expected
        assert [name for name, _ in section.pictured] == (["controlnet"] if expected else [])


def test_a_training_that_two_studies_made_is_told_by_committed_records() -> None:
    """Of seg with seeds 0 to 2 there are two datasets; records of one are older than some fields of a recipe."""
    records = read_records(Path(__file__).parents[2] / "results").values()
    found: dict[bytes, set[tuple[str, str]]] = {}
    datasets: dict[bytes, set[str]] = {}
    for record in records:
        if record.training and record.condition == "seg" and record.training["num_samples"] == 4000:
            like = likeness_of(record.training, record.method)
            found.setdefault(like, set()).add((record.method, seed_of(record.training)))
            datasets.setdefault(like, set()).add(record.dataset["name"])
    assert all(len(names) == 1 for names in found.values())
    twice = [names for like, names in found.items() if len(datasets[like]) == 2]
    assert sorted(name for names in twice for name in names) == [("controlnet", seed) for seed in "012"]
