"""Verdicts on tables whose answer is known, and the correction of many tests by hand."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from benchmark.base.errors import UserError
from benchmark.engine.claims import Claim, holm, judge, read_claims
from benchmark.engine.studies import STUDIES
from benchmark.leaderboard import CLAIMS


def run(control: float, seed: int = 0, **columns: Any) -> dict[str, Any]:
    common = {
        "dataset": "d",
        "condition": "seg",
        "method": "controlnet",
        "pairs": 1000,
        "pairs_sha256": "p",
        "epochs": 8.0,
        "outcome": "followed",
    }
    made = {**common, "seed": str(seed), "normalised_control": control, **columns}
    apart = ("dataset", "samples", "prompts", "outcome", "pairs_sha256")
    like = {name: value for name, value in made.items() if name not in apart}
    name = repr(sorted(made.items(), key=str))
    return {"training": name, "record": name, "samples": "abc", "likeness": repr(sorted(like.items(), key=str)), **made}


def claim(**fields: Any) -> Claim:
    return Claim.model_validate({"id": "c", "text": "t", "source": "s", "statistic": "mean", "above": 0.25, **fields})


def word(claim: Claim, *rows: dict[str, Any]) -> str:
    return judge([claim], pd.DataFrame(rows))[0].word


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.5, 0.51, 0.52), "supported"), ((0.1, 0.11, 0.1), "refuted"), ((0.2, 0.5, 0.1), "undecided")],
)
def test_a_mean_is_held_against_its_limit(values: tuple[float, ...], expected: str) -> None:
    assert word(claim(), *(run(value, seed) for seed, value in enumerate(values))) == expected


def test_a_mean_is_tested_as_scipy_does() -> None:
    values = [0.3, 0.5, 0.4, 0.28]
    [verdict] = judge([claim()], pd.DataFrame([run(value, seed) for seed, value in enumerate(values)]))
    assert verdict.finding.p == pytest.approx(stats.ttest_1samp(values, 0.25).pvalue)


def test_a_training_that_was_scored_twice_is_no_second_run() -> None:
    rows = [run(value, seed) for seed, value in enumerate((0.35, 0.43, 0.52))]
    again = [{**row, "record": f"again-{i}"} for i, row in enumerate(rows)]
    [verdict] = judge([claim()], pd.DataFrame([*rows, *again]))
    assert (verdict.word, verdict.finding.p) == ("undecided", None)
    assert "the claim must say which" in verdict.finding.numbers


def test_a_released_controlnet_is_told_by_its_record() -> None:
    rows = [{**run(0.5 + i / 100), "training": None, "record": str(i)} for i in range(3)]
    assert word(claim(), *rows) == "supported"


def test_control_of_a_training_that_diverged_is_none_whatever_the_prompts() -> None:
    lost = {**run(0.0, 2), "outcome": "diverged"}
    del lost["normalised_control"]
    mine = [run(0.5, 0, prompts="none"), run(0.52, 1, prompts="none"), run(0.9, 0, prompts="full"), lost]
    [verdict] = judge([claim(where={"prompts": "none"})], pd.DataFrame(mine))
    assert verdict.finding.p == pytest.approx(stats.ttest_1samp([0.5, 0.52, 0.0], 0.25).pvalue)
    than = [run(value, seed, prompts="none", method="lite") for seed, value in enumerate((0.4, 0.45, 0.3))]
    better = claim(statistic="difference", where={"method": "controlnet", "prompts": "none"}, than={"method": "lite"})
    [verdict] = judge([better.model_copy(update={"above": 0.0})], pd.DataFrame([*mine, *than]))
    assert verdict.finding.p == pytest.approx(stats.ttest_rel([0.5, 0.52, 0.0], [0.4, 0.45, 0.3]).pvalue)


def test_a_difference_is_paired_by_seed() -> None:
    more = [run(control + 0.1, seed, pairs=10000) for seed, control in enumerate((0.2, 0.5, 0.81))]
    less = [run(control, seed) for seed, control in enumerate((0.2, 0.5, 0.8))]
    helps = claim(statistic="difference", where={"pairs": 10000}, than={"pairs": 1000}, above=0.0)
    [verdict] = judge([helps], pd.DataFrame([*more, *less]))
    assert verdict.word == "supported"  # unpaired, the seeds' spread of 0.3 would hide a difference of 0.1
    assert verdict.finding.p == pytest.approx(stats.ttest_rel([0.3, 0.6, 0.91], [0.2, 0.5, 0.8]).pvalue)


def test_two_runs_of_one_seed_leave_it_undecided_and_say_so() -> None:
    rows = [run(0.5, 0, pairs=10000), run(0.5, 0, pairs=10000, batch=8), run(0.4, 0)]
    helps = claim(statistic="difference", where={"pairs": 10000}, than={"pairs": 1000}, above=0.0)
    [verdict] = judge([helps], pd.DataFrame(rows))
    assert (verdict.word, verdict.finding.p) == ("undecided", None)
    assert "the claim must say which" in verdict.finding.numbers


def test_less_than_an_epoch_supports_no_claim_about_size() -> None:
    rows = [run(0.9, seed, pairs=100000, epochs=0.3) for seed in range(3)]
    sizes = claim(where={"pairs": {"at_least": 50000}})
    assert word(sizes, *rows) == "undecided"
    assert "less than one epoch" in judge([sizes], pd.DataFrame(rows))[0].finding.numbers
    assert word(claim(), *[{**row, "normalised_control": 0.9 + i / 1000} for i, row in enumerate(rows)]) == "supported"


@pytest.mark.parametrize(
    ("failed", "total", "expected"), [(0, 28, "undecided"), (0, 40, "supported"), (9, 20, "refuted")]
)
def test_failures_are_held_against_a_rate(failed: int, total: int, expected: str) -> None:
    outcomes = ["diverged"] * failed + ["followed"] * (total - failed)
    rows = [run(0.5, seed, outcome=outcome) for seed, outcome in enumerate(outcomes)]
    never = claim(statistic="failures", above=None, below=0.1)
    assert word(never, *rows) == expected


def test_a_training_judged_under_four_prompts_is_one_training() -> None:
    one = run(0.5)
    rows = [{**one, "prompts": prompts} for prompts in ("full", "none", "insufficient", "conflicting")]
    [verdict] = judge([claim(statistic="failures", above=None, below=0.1)], pd.DataFrame(rows))
    assert verdict.finding.numbers.startswith("0 of 1 ")


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]


def test_many_claims_share_five_percent() -> None:
    table = pd.DataFrame([run(value, seed) for seed, value in enumerate((0.3, 0.29, 0.31, 0.36))])
    alone = claim()
    assert judge([alone], table)[0].word == "supported"
    assert {verdict.word for verdict in judge([alone] * 10, table)} == {"undecided"}


def test_no_runs_and_no_measure_are_undecided() -> None:
    table = pd.DataFrame([run(0.5)])
    missing, unmeasured = judge(
        [claim(where={"method": "other"}), claim(statistic="none", above=None, why="no GPU")], table
    )
    assert (missing.word, missing.finding.numbers) == ("undecided", "no runs")
    assert unmeasured.finding.numbers == "not tested by any record; no GPU"


@pytest.mark.parametrize(
    "fields", [{"above": None}, {"below": 0.1}, {"statistic": "none"}, {"where": {"pairs": {"over": 3}}}]
)
def test_a_claim_that_cannot_be_judged_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"claim|at_least"):
        claim(**fields)


def test_a_register_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text("[[claim]]\nid = 3")
    with pytest.raises(UserError, match="no register of claims"):
        read_claims(path)


def test_every_claim_of_the_register_names_studies_that_exist() -> None:
    claims = read_claims(CLAIMS)
    assert len({claim.id for claim in claims}) == len(claims)
    named = {name for claim in claims for name in (claim.study or "").split(", ") if name}
    assert named <= {path.stem for path in STUDIES.glob("*.toml")}


def test_a_training_run_again_on_a_dataset_of_another_name_is_no_second_run() -> None:
    """Built for one condition or for eight, samples are the same; if one of the two runs failed, the training did."""
    never = claim(statistic="failures", above=None, below=0.1)
    rows = [run(0.5, seed, samples="abc") for seed in range(3)]
    again = [run(0.5, seed, samples="abc", dataset="e") for seed in range(3)]
    others = [run(0.5, seed, samples="xyz", dataset="f") for seed in range(3)]
    assert judge([never], pd.DataFrame([*rows, *again]))[0].finding.numbers.startswith("0 of 3 ")
    assert judge([never], pd.DataFrame([*rows, *others]))[0].finding.numbers.startswith("0 of 6 ")
    again[1]["outcome"] = "never followed"
    for table in ([*rows, *again], [*again, *rows]):
        assert judge([never], pd.DataFrame(table))[0].finding.numbers.startswith("1 of 3 ")


def test_a_training_judged_on_two_sets_of_samples_is_one_and_two_that_diverged_are_two() -> None:
    never = claim(statistic="failures", above=None, below=0.1)
    full = run(0.5)
    assert judge([never], pd.DataFrame([full, {**full, "samples": "few"}]))[0].finding.numbers.startswith("0 of 1 ")
    lost = [{**run(0.5, dataset=name), "outcome": "diverged", "samples": None} for name in "ab"]
    assert judge([never], pd.DataFrame([full, *lost]))[0].finding.numbers.startswith("2 of 3 ")


def test_a_training_that_diverged_in_two_studies_diverged_once() -> None:
    """It drew nothing by itself: that both studies judge the same samples is told by their other runs."""
    never = claim(statistic="failures", above=None, below=0.1)
    lost = [{**run(0.5, 9, dataset=name), "outcome": "diverged", "samples": None} for name in "de"]
    kept = [run(0.5, seed, dataset=name, samples="abc") for name in "de" for seed in range(3)]
    for table in ([*lost, *kept], [*kept, *lost]):
        assert judge([never], pd.DataFrame(table))[0].finding.numbers.startswith("1 of 4 ")


def test_other_pairs_of_one_dataset_are_another_training() -> None:
    """As the first 4,000 pairs of a dataset that grew: alike in all that is recorded but for the pairs themselves."""
    never = claim(statistic="failures", above=None, below=0.1)
    rows = [run(0.5, samples="abc"), run(0.5, samples="abc", pairs_sha256="q", outcome="never followed")]
    again = [run(0.5, samples="abc", dataset="e", pairs_sha256="r")]
    for table in ([*rows, *again], [*again, *rows]):
        assert judge([never], pd.DataFrame(table))[0].finding.numbers.startswith("1 of 2 ")


def test_a_run_of_less_than_an_epoch_takes_nothing_from_the_others() -> None:
    rows = [run(0.9 + seed / 1000, seed) for seed in range(3)]
    sizes = claim(where={"pairs": {"at_least": 500}})
    assert word(sizes, *rows, run(0.1, 3, epochs=0.96)) == "supported"


def test_runs_that_do_not_differ_decide_nothing() -> None:
    rows = [{**run(0.0, seed), "outcome": "diverged"} for seed in range(2)]
    [verdict] = judge([claim()], pd.DataFrame(rows))
    assert (verdict.word, verdict.finding.p) == ("undecided", None)
    assert "no test" in verdict.finding.numbers


def test_a_training_that_diverged_is_charged_to_the_prompts_it_was_meant_for() -> None:
    meant = {**run(0.0, 2, prompts="full"), "outcome": "diverged"}
    rows = [run(0.5, 0, prompts="none"), run(0.52, 1, prompts="none"), meant]
    assert judge([claim(where={"prompts": "none"})], pd.DataFrame(rows))[0].finding.numbers.endswith(", 2 runs")
