"""The board as data: records that may be compared, in order, with rank groups, and runs that differ in seeds alone."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.base.files import canonical_json
from benchmark.contracts.records import Anchored, Failure, Record, Score
from benchmark.numbers.efficiency import Needed, needed
from benchmark.numbers.seeds import Share, Spread, onset, share, spread, steepest

ANCHORS = ("real", "vae", "run", "no_control", "shuffled")


@dataclass(frozen=True)
class Row:
    """One record on the board; `group` is shared by rows whose intervals of normalised control overlap the leader's."""

    path: Path
    record: Record
    group: int | None

    @property
    def headline(self) -> str:
        """Name of the condition's main score."""
        return self.record.headline

    @property
    def control(self) -> Anchored:
        """The condition's headline score with its anchors."""
        return self.record.reconstruction[self.headline]

    @property
    def training(self) -> dict[str, Any]:
        """Updates, seeds and data of the run, of several that steer together of the first; empty of a released one."""
        return first_of(self.record.training or {})

    @property
    def seed(self) -> str:
        """The seed that set all others, or the names of those that differ."""
        return seed_of(self.training)

    def change(self, name: str) -> float:
        """Return an image score less that of the base alone on the same prompts and noise."""
        mine, floor = (
            {s.name: s.estimate for s in scores} for scores in (self.record.scores, self.record.floor_scores)
        )
        return mine[name] - floor[name]

    @property
    def recipe(self) -> bytes:
        """All that decides the weights but the seeds and which draw of the data it was."""
        if not self.training:
            return canonical_json(self.record.evaluation_id)
        return recipe_of(self.record.training or {}, self.record.method)

    @property
    def family(self) -> bytes:
        """All that decides the weights but the seeds and the data's number and draw."""
        if not self.training:
            return self.recipe
        return recipe_of(self.record.training or {}, self.record.method, but=("num_samples",))

    @cached_property
    def probes(self) -> list[dict[str, Any]]:
        """The rows of the curve beside the record that hold a probe; none where there are neither."""
        curve = self.path.with_suffix(".jsonl")
        rows = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
        return [row for row in rows if "probe" in row]

    @cached_property
    def onset(self) -> int | None:
        """The update from which the condition was followed; None if it never was, or was not probed."""
        return onset(self.probes, self.headline)

    @property
    def outcome(self) -> str:
        """How training ended, as the probes saw it: followed, never followed, or not probed."""
        if not self.probes:
            return "not probed"
        return "never followed" if self.onset is None else "followed"

    @property
    def epochs(self) -> float | None:
        """Images seen over images there are."""
        return epochs(self.training)

    @cached_property
    def steepest(self) -> float | None:
        """How much of the last probe's control came within one tenth of training; None if probes lie farther apart."""
        curve = {row["step"]: row["probe"].get(f"{self.headline}.normalised") for row in self.probes}
        known = {step: value for step, value in curve.items() if value is not None}
        return steepest(known, self.training.get("recipe", {}).get("steps", 0) / 10)


def seed_of(training: dict[str, Any]) -> str:
    """Return the seed that set all others, or the names of those that differ."""
    seeds = training.get("recipe", {}).get("seeds", {})
    values = sorted(set(seeds.values()))
    return str(values[0]) if len(values) == 1 else ", ".join(f"{name} {value}" for name, value in seeds.items())


def epochs(training: dict[str, Any]) -> float | None:
    """Return images seen over images there are; None of a released ControlNet."""
    if not training:
        return None
    recipe = training["recipe"]
    return float(recipe["steps"] * recipe["batch"] / training["num_samples"])


def first_of(training: dict[str, Any]) -> dict[str, Any]:
    """Return a training, or the first of several whose runs steer together."""
    first: dict[str, Any] = training["parts"][0] if "parts" in training else training
    return first


def recipe_of(training: dict[str, Any], method: str, but: tuple[str, ...] = ()) -> bytes:
    """Return what two trainings share that differ in seeds, the draw of their data, and fields named, alone."""
    if "parts" in training:
        return b"+".join(recipe_of(part, method, but) for part in training["parts"])
    same = {key: value for key, value in training.items() if key not in ("name", "step", "replicate", *but)}
    recipe = {key: value for key, value in same["recipe"].items() if key != "seeds"}
    return canonical_json({**same, "recipe": recipe, "method": same.get("method", method)})


@dataclass(frozen=True)
class Cell:
    """Runs that differ in their seeds or the draw of their data alone: what the board says of robustness.

    Attributes:
        rows: Those that ended with weights.
        diverged: How many did not.
    """

    rows: tuple[Row, ...]
    diverged: int = 0

    @property
    def control(self) -> Spread | None:
        """Normalised control over the runs, 0 for one that diverged; None where a run has none."""
        scores = [row.control.normalised for row in self.rows]
        known = [score.estimate for score in scores if score]
        return spread([*known, *[0.0] * self.diverged]) if len(known) == len(scores) else None

    @property
    def pairs(self) -> int | None:
        """How many pairs a run was trained on; None for a released ControlNet."""
        return self.rows[0].training.get("num_samples")

    @property
    def single_pass(self) -> bool:
        """Whether the runs saw less than one epoch, so that they say nothing about size."""
        return (self.rows[0].epochs or 0) < 1

    @property
    def changes(self) -> dict[str, Spread]:
        """What steering changed of the base: every image score less that of the base alone, over the runs."""
        names = [score.name for score in self.rows[0].record.scores]
        return {name: spread([row.change(name) for row in self.rows]) for name in names}

    @property
    def onsets(self) -> list[int]:
        """The updates at which control began, ascending, of the runs in which it did."""
        return sorted(row.onset for row in self.rows if row.onset is not None)

    @property
    def failures(self) -> Share:
        """Runs that diverged or never followed the condition, of all; one that was not probed counts as none."""
        never = sum(row.outcome == "never followed" for row in self.rows)
        return share(self.diverged + never, len(self.rows) + self.diverged)


@dataclass(frozen=True)
class Family:
    """Cells that differ in their number of pairs alone, fewest first: the headline of a method on a condition.

    Attributes:
        cells: At least one.
        group: Shared by families whose intervals of normalised control overlap the leader's; None without an interval.
    """

    cells: tuple[Cell, ...]
    group: int | None = None

    @property
    def budget(self) -> Cell:
        """The cell that speaks for all: of those that saw all their pairs, if there are, the one with the most."""
        return ([cell for cell in self.cells if not cell.single_pass] or self.cells[:1])[-1]

    @property
    def failures(self) -> Share:
        """Runs of all sizes that diverged or never followed the condition."""
        shares = [cell.failures for cell in self.cells]
        return share(sum(s.count for s in shares), sum(s.total for s in shares))

    @property
    def needed(self) -> Needed | None:
        """Images needed for a share of the best, from the cells that saw all their pairs."""
        known = {c.pairs: c.control.values for c in self.cells if c.pairs and c.control and not c.single_pass}
        return needed(known) if known else None


@dataclass(frozen=True)
class Section:
    """Rows that may be compared: they share a comparability key.

    Attributes:
        key: The comparability key.
        title: In words.
        rows: Best first.
        failures: Trainings on the same dataset and condition that ended without weights.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """The rows by recipe, in the order of their best."""
        groups: dict[bytes, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.recipe, []).append(row)
        failed = Counter(recipe_of(failure.training, failure.method) for failure in self.failures)
        return [Cell(tuple(rows), failed[recipe]) for recipe, rows in groups.items()]

    @property
    def families(self) -> list[Family]:
        """The cells by recipe but for the number of pairs, best normalised control first, with rank groups."""
        kinds: dict[bytes, list[Cell]] = {}
        for cell in self.cells:
            kinds.setdefault(cell.rows[0].family, []).append(cell)
        made = [Family(tuple(sorted(cells, key=lambda cell: cell.pairs or 0))) for cells in kinds.values()]
        controls = [family.budget.control for family in made]
        order = sorted(range(len(made)), key=lambda i: -(c.iqm if (c := controls[i]) else float("-inf")))
        groups = _groups([_interval(controls[i]) for i in order])
        return [replace(made[i], group=group) for i, group in zip(order, groups, strict=True)]


def sections(records: dict[Path, Record], failures: Iterable[Failure] = ()) -> list[Section]:
    """Return the records by comparability key, best normalised control first, with rank groups."""
    failed = list(failures)
    keys: dict[str, list[tuple[Path, Record]]] = {}
    for path, record in records.items():
        keys.setdefault(record.comparability_key, []).append((path, record))
    made = [_section(key, items, failed) for key, items in keys.items()]
    return sorted(made, key=lambda section: (section.title, section.key))


def _section(key: str, items: list[tuple[Path, Record]], failures: list[Failure]) -> Section:
    first = items[0][1]
    here = [f for f in failures if (f.dataset["name"], f.condition) == (first.dataset["name"], first.condition)]
    title = (
        f"{first.condition} on {first.dataset['name']}, base {first.base}, prompts {first.generation['prompts']}, "
        f"n = {first.dataset['n']}"
    )
    ordered = sorted(items, key=lambda item: -_control(item[1]))
    groups = _groups([_interval(record.reconstruction[record.headline].normalised) for _, record in ordered])
    rows = [Row(p, r, g) for (p, r), g in zip(ordered, groups, strict=True)]
    return Section(key, title, tuple(rows), tuple(here))


def _control(record: Record) -> float:
    score = record.reconstruction[record.headline].normalised
    return score.estimate if score else float("-inf")


def _interval(score: Score | Spread | None) -> tuple[float, float] | None:
    return None if score is None or score.low is None or score.high is None else (score.low, score.high)


def _groups(intervals: Sequence[tuple[float, float] | None]) -> list[int | None]:
    """Return rank groups of intervals from best to worst: a group ends where an interval lies below its leader's."""
    groups: list[int | None] = []
    leader, group = float("inf"), 0
    for interval in intervals:
        if interval is None:
            groups.append(None)
            continue
        low, high = interval
        if not group or high < leader:
            leader, group = low, group + 1
        groups.append(group)
    return groups
