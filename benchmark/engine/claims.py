"""What others claim of ControlNet, judged on the runs of a board: supported, refuted or undecided."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from benchmark.base.errors import UserError
from benchmark.base.forms import read_toml
from benchmark.numbers.seeds import share

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
_CONTROL = "normalised_control"
_OF_DRAWING = ("prompts", "n")  # columns that a training which drew nothing may lack
Limit = dict[Literal["at_least", "at_most"], float]
Where = dict[str, str | float | Limit]


class Claim(BaseModel):
    """One sentence that can be tested, and how.

    Attributes:
        id: Its name.
        text: The sentence, or what it comes to here.
        source: Where it is said.
        study: The study whose runs can decide it; none where nothing here measures it.
        statistic: What is computed of the runs that `where` picks: `failures`, the share that diverged or never
            followed the condition; `mean` of a column; `difference` of a column to the runs of the same seed that
            `than` picks; or `none`, with `why`.
        column: A column of the board's table.
        where: Values of columns, or limits to them.
        than: Columns in which the other side of a difference differs from `where`.
        above: The claim holds if the statistic lies above this,
        below: or below this.
        why: Why no run decides it, and what is known instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str
    source: str
    study: str | None = None
    statistic: Literal["failures", "mean", "difference", "none"]
    column: str = "normalised_control"
    where: Where = {}
    than: Where = {}
    above: float | None = None
    below: float | None = None
    why: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "Claim":
        if (self.statistic == "none") != (self.why is not None):
            raise ValueError(f'claim "{self.id}": a claim without a statistic says why, and no other does')
        if self.statistic != "none" and (self.above is None) == (self.below is None):
            raise ValueError(f'claim "{self.id}" needs one of above and below')
        return self

    @property
    def limit(self) -> float:
        """The value on one side of which the claim holds."""
        return float(self.above if self.above is not None else self.below or 0.0)

    @property
    def test(self) -> str:
        """What is tested, in words."""
        return f"{'above' if self.above is not None else 'below'} {self.limit:g}"


class _Register(BaseModel):
    model_config = ConfigDict(extra="forbid")

    claim: list[Claim]


@dataclass(frozen=True)
class Finding:
    """What the runs say of a claim before it is set beside the others.

    Attributes:
        numbers: In words, with the count of runs.
        toward: Whether the estimate lies on the side on which the claim holds.
        p: Two-sided probability of an estimate as far from the limit if the truth lay on it; None of no runs.
    """

    numbers: str
    toward: bool = False
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim with its finding and the word on it."""

    claim: Claim
    finding: Finding
    word: Literal["supported", "refuted", "undecided"]


def read_claims(path: Path) -> list[Claim]:
    """Return the claims of a register.

    Raises:
        UserError: A file that is no register.
    """
    try:
        return _Register.model_validate(read_toml(path)).claim
    except ValidationError as error:
        raise UserError(f"{path} is no register of claims: {str(error)!r:.300}") from None


def judge(claims: Sequence[Claim], table: "pd.DataFrame") -> list[Verdict]:
    """Return the verdict on each claim; all of one register are one family, held to 5 % together (Holm, 1979).

    Args:
        claims: A register.
        table: `frame` of a board.
    """
    findings = [_finding(claim, table) for claim in claims]
    adjusted = holm([finding.p for finding in findings])
    return [Verdict(c, f, _word(f, p)) for c, f, p in zip(claims, findings, adjusted, strict=True)]


def _word(finding: Finding, p: float | None) -> Literal["supported", "refuted", "undecided"]:
    if p is None or p >= LEVEL:
        return "undecided"
    return "supported" if finding.toward else "refuted"


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p values so raised that any false verdict among all is as rare as its level; None is no test and stays."""
    order = sorted((i for i, p in enumerate(values) if p is not None), key=lambda i: values[i] or 0.0)
    adjusted: list[float | None] = [None] * len(values)
    reached = 0.0
    for rank, i in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - rank) * (values[i] or 0.0)))
        adjusted[i] = reached
    return adjusted


def _finding(claim: Claim, table: "pd.DataFrame") -> Finding:
    if claim.statistic == "none":
        return Finding(f"not tested by any record; {claim.why}")
    mine = _picked(table, claim.where)
    sides = [mine, _picked(table, {**claim.where, **claim.than})] if claim.statistic == "difference" else [mine]
    if not all(len(side) for side in sides):
        return Finding("no runs")
    if "pairs" in {**claim.where, **claim.than}:
        sides = [side[~(side["epochs"] < 1)] for side in sides]
        if not all(len(side) for side in sides):
            return Finding("all runs saw less than one epoch: they say nothing about size")
    if claim.statistic == "failures":
        return _failures(claim, sides[0])
    if claim.statistic == "mean":
        return _whole_mean(claim, sides[0])
    return _difference(claim, *sides)


def _picked(table: "pd.DataFrame", where: Where) -> "pd.DataFrame":
    """Return the rows whose columns have the values, or keep the limits.

    A training that diverged drew nothing: where nobody said what it was to draw, it is among its method's always.
    """
    for column, wanted in where.items():
        if column not in table:
            return table.iloc[:0]
        if isinstance(wanted, dict):
            fits = table[column].between(wanted.get("at_least", -np.inf), wanted.get("at_most", np.inf))
        else:
            fits = table[column] == wanted
        if column in _OF_DRAWING:
            fits |= (table["outcome"] == "diverged") & table[column].isna()
        table = table[fits]
    return table


def _values(claim: Claim, rows: "pd.DataFrame") -> "pd.Series[float]":
    """Return a column of runs; the control of one that diverged is 0, as on the board: it draws as the base alone."""
    values: pd.Series[float] = rows[claim.column]
    return values.mask(rows["outcome"] == "diverged", 0.0) if claim.column == _CONTROL else values


def _whole_mean(claim: Claim, rows: "pd.DataFrame") -> Finding:
    """Return the mean over trainings; a released ControlNet, which has none here, is told by its record."""
    told = rows.assign(training=rows["training"].fillna(rows["record"]), value=_values(claim, rows))
    told = told.dropna(subset=["value"])
    if told.duplicated(["training", "dataset", "condition"]).any():
        return Finding("several records of one training fit: the claim must say which")
    return _mean(claim, told["value"].to_numpy())


def _failures(claim: Claim, rows: "pd.DataFrame") -> Finding:
    """Return the share of probed trainings that failed.

    A training counts once, by the worse of its outcomes: judged under several prompts or on several sets of samples, or
    made by two studies of the same samples, each with a dataset of its own. Within a dataset other pairs are another
    training; of two datasets nothing tells, so that each of one stands for one of the other.
    """
    trainings = rows[rows["outcome"] != "not probed"].sort_values("outcome", key=lambda told: told == "followed")
    trainings = trainings.drop_duplicates("training")
    samples = rows.dropna(subset=["samples"]).groupby("dataset")["samples"].first()  # one that diverged drew nothing
    told = trainings["samples"].fillna(trainings["dataset"].map(samples)).fillna(trainings["dataset"])
    alike = ["samples", "likeness", "dataset"]
    trainings = trainings.assign(samples=told).drop_duplicates([*alike, "pairs_sha256"])
    trainings = trainings.assign(place=trainings.groupby(alike, dropna=False).cumcount())
    trainings = trainings.drop_duplicates(["samples", "likeness", "place"])
    if not len(trainings):
        return Finding("no run was probed")
    from scipy import stats  # takes half a second to load, and most boards have no run of a claim

    failed = share(int((trainings["outcome"] != "followed").sum()), len(trainings))
    numbers = f"{failed.count} of {failed.total} [{failed.low:.2f}, {failed.high:.2f}]"
    p = stats.binomtest(failed.count, failed.total, claim.limit).pvalue
    return Finding(numbers, _toward(claim, failed.count / failed.total), float(p))


def _difference(claim: Claim, mine: "pd.DataFrame", other: "pd.DataFrame") -> Finding:
    """Return the difference over the seeds that both sides have: the same draw of the data, start and noise."""
    keys = ["dataset", "condition", "seed"]
    if mine.duplicated(keys).any() or other.duplicated(keys).any():
        return Finding("several runs of one seed fit: the claim must say which")
    first, second = (_values(claim, side.set_index(keys)) for side in (mine, other))
    return _mean(claim, first.sub(second).dropna().to_numpy())


def _mean(claim: Claim, values: Any) -> Finding:
    """Return the mean over runs with its t interval and test."""
    if len(values) < 2:
        return Finding(f"{len(values)} of the 2 runs that a test needs at least")
    from scipy import stats

    if np.ptp(values) == 0:  # as of runs that all diverged: without spread there is no test
        return Finding(f"{float(values[0]):.3g}, {len(values)} runs that do not differ: no test")
    test = stats.ttest_1samp(values, claim.limit)
    low, high = test.confidence_interval(0.95)
    centre = float(np.mean(values))
    text = f"{centre:.3g} [{low:.3g}, {high:.3g}], {len(values)} runs"
    return Finding(text, _toward(claim, centre), float(test.pvalue))


def _toward(claim: Claim, estimate: float) -> bool:
    return estimate > claim.limit if claim.above is not None else estimate < claim.limit
