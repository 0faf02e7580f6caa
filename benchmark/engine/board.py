"""The board as data: records that may be compared, in order, with rank groups, and runs that differ in seeds alone."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmark.base.files import canonical_json
from benchmark.contracts.records import Anchored, Failure, Invalidated, Record, Score
from benchmark.numbers.efficiency import Needed, needed
from benchmark.numbers.onsets import Onsets, onsets
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
        return self.recipe if not self.training else family_of(self.record.training or {}, self.record.method)

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
    recipe = {key: value for key, value in same["recipe"].items() if key not in ("seeds", *but)}
    return canonical_json({**same, "recipe": recipe, **({} if "method" in but else {"method": method_of(same, method)})})


def method_of(training: dict[str, Any], named: str) -> Any:
    """Return how control is attached with every parameter, or the name of the method where no more is recorded."""
    return training.get("method", named)


def family_of(training: dict[str, Any], method: str) -> bytes:
    """Return all that decides the weights but the seeds and the data's number and draw."""
    return recipe_of(training, method, but=("num_samples",))


def identity_of(training: dict[str, Any]) -> bytes:
    """Return all that decides the weights: two trainings that share it are one, whatever their folders were called."""
    if "parts" in training:
        return b"+".join(map(identity_of, training["parts"]))
    return canonical_json({key: value for key, value in training.items() if key != "name"})


@dataclass(frozen=True)
class Cell:
    """Runs that differ in their seeds or the draw of their data alone: what the board says of robustness.

    Attributes:
        rows: Those that ended with weights.
        diverged: Those that did not.
    """

    rows: tuple[Row, ...]
    diverged: tuple[Failure, ...] = ()

    @property
    def training(self) -> dict[str, Any]:
        """What the runs share is that of any; empty of a released ControlNet."""
        return self.rows[0].training if self.rows else first_of(self.diverged[0].training)

    @property
    def method(self) -> str:
        """How control is attached, as it is written on the command line."""
        return self.rows[0].record.method if self.rows else self.diverged[0].method

    @property
    def family(self) -> bytes:
        """All that decides the weights but the seeds and the data's number and draw."""
        return self.rows[0].family if self.rows else family_of(self.diverged[0].training, self.method)

    @property
    def runs(self) -> list[tuple[str, float]] | None:
        """Seeds and draw of the data, and normalised control, of every run, 0 if it diverged; None if one has none."""
        scores = [(_draw(row.record.training or {}), row.control.normalised) for row in self.rows]
        known = [(draw, score.estimate) for draw, score in scores if score]
        lost = [(_draw(failure.training), 0.0) for failure in self.diverged]
        return [*known, *lost] if len(known) == len(scores) else None

    @property
    def control(self) -> Spread | None:
        """Normalised control over the runs, 0 for one that diverged; None where a run has none."""
        return spread([value for _, value in self.runs]) if self.runs is not None else None

    @property
    def pairs(self) -> int | None:
        """How many pairs a run was trained on; None for a released ControlNet."""
        return self.training.get("num_samples")

    @property
    def epochs(self) -> float | None:
        """Images seen over images there are."""
        return epochs(self.training)

    @property
    def single_pass(self) -> bool:
        """Whether the runs saw less than one epoch, so that they say nothing about size."""
        return (self.epochs or 0) < 1

    @property
    def changes(self) -> dict[str, Spread]:
        """What steering changed of the base: every image score less that of the base alone, over the runs."""
        names = [score.name for row in self.rows[:1] for score in row.record.scores]
        return {name: spread([row.change(name) for row in self.rows]) for name in names}

    @property
    def onsets(self) -> Onsets:
        """When control began; a run in which it never did, or that diverged, is censored at the end of training."""
        began = [row.onset for row in self.rows if row.onset is not None]
        return onsets(began, len(self.rows) + len(self.diverged))

    @property
    def failures(self) -> Share:
        """Runs that diverged or never followed the condition, of all; one that was not probed counts as none."""
        never = sum(row.outcome == "never followed" for row in self.rows)
        return share(len(self.diverged) + never, len(self.rows) + len(self.diverged))


def _draw(training: dict[str, Any]) -> str:
    parts = training.get("parts", [training])
    return "; ".join(f"{seed_of(part)}, draw {part.get('replicate', 0)}" for part in parts)


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
class Aside:
    """A row that is shown and counted nowhere.

    Attributes:
        row: The row, without a group.
        why: In words.
        struck: Whether it was invalidated; if not, its training is counted by another row.
    """

    row: Row
    why: str
    struck: bool = False


@dataclass(frozen=True)
class Section:
    """Rows that may be compared: they share a comparability key.

    Attributes:
        key: The comparability key.
        title: In words.
        rows: Best first.
        aside: Rows that are shown but counted nowhere, with the reason.
        failures: Trainings on the same dataset and condition that ended without weights.
    """

    key: str
    title: str
    rows: tuple[Row, ...]
    aside: tuple[Aside, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def first(self) -> Row:
        """The best row, or one set aside where there is no other: what it says of samples and anchors holds for all."""
        return (*self.rows, *(aside.row for aside in self.aside))[0]

    @property
    def cells(self) -> list[Cell]:
        """The rows by recipe, in the order of their best, then recipes of which no run ended with weights."""
        rows, diverged = (defaultdict[bytes, list[Any]](list) for _ in range(2))
        for row in self.rows:
            rows[row.recipe].append(row)
        for failure in self.failures:
            diverged[recipe_of(failure.training, failure.method)].append(failure)
        return [Cell(tuple(rows[recipe]), tuple(diverged[recipe])) for recipe in dict.fromkeys([*rows, *diverged])]

    @property
    def families(self) -> list[Family]:
        """The cells by recipe but for the number of pairs, best normalised control first, with rank groups."""
        kinds: dict[bytes, list[Cell]] = {}
        for cell in self.cells:
            kinds.setdefault(cell.family, []).append(cell)
        made = [Family(tuple(sorted(cells, key=lambda cell: cell.pairs or 0))) for cells in kinds.values()]
        controls = [family.budget.control for family in made]
        order = sorted(range(len(made)), key=lambda i: -(c.iqm if (c := controls[i]) else float("-inf")))
        groups = _groups([_interval(controls[i]) for i in order])
        return [replace(made[i], group=group) for i, group in zip(order, groups, strict=True)]


def counted(failures: Iterable[Failure], invalidated: Mapping[str, Invalidated]) -> list[Failure]:
    """Return the failures that were not invalidated, one of each training."""
    return list({identity_of(f.training): f for f in failures if f.failure_id not in invalidated}.values())


def sections(
    records: Mapping[Path, Record], failures: Iterable[Failure] = (), invalidated: Mapping[str, Invalidated] = MappingProxyType({}),
) -> list[Section]:
    """Return the records by comparability key, best normalised control first, with rank groups.

    What was invalidated is set aside. So is all but one of the records of one training under several names, as studies
    leave them that have a run in common: counted as several runs they would narrow every interval over seeds.

    Args:
        records: By path.
        failures: Those that count, as `counted` returns them.
        invalidated: By evaluation id.
    """
    failed = list(failures)
    keys: dict[str, list[tuple[Path, Record]]] = {}
    for path, record in records.items():
        keys.setdefault(record.comparability_key, []).append((path, record))
    made = [_section(key, items, failed, invalidated) for key, items in keys.items()]
    return sorted(made, key=lambda section: (section.title, section.key))


def _section(
    key: str, items: list[tuple[Path, Record]], failures: list[Failure], invalidated: Mapping[str, Invalidated]
) -> Section:
    first = items[0][1]
    title = (
        f"{first.condition} on {first.dataset['name']}, base {first.base}, prompts {first.generation['prompts']}, "
        f"n = {first.dataset['n']}"
    )
    kept, aside = _counted(items, invalidated)
    ordered = sorted(kept, key=lambda item: -_control(item[1]))
    groups = _groups([_interval(record.reconstruction[record.headline].normalised) for _, record in ordered])
    rows = [Row(p, r, g) for (p, r), g in zip(ordered, groups, strict=True)]
    here = [failure for failure in failures if _place(failure) == _place(first)]
    return Section(key, title, tuple(rows), aside, tuple(here))


def _place(kept: Record | Failure) -> tuple[str, ...]:
    return (kept.dataset["name"], kept.dataset["fingerprint"], kept.condition, kept.base)


def _counted(
    items: list[tuple[Path, Record]], invalidated: Mapping[str, Invalidated]
) -> tuple[list[tuple[Path, Record]], tuple[Aside, ...]]:
    """Return the records that count, and those set aside: invalidated, or of a training that counts already."""
    kept: dict[bytes, tuple[Path, Record]] = {}
    aside: list[Aside] = []
    for path, record in items:
        row = Row(path, record, None)
        if record.evaluation_id in invalidated:
            aside.append(Aside(row, invalidated[record.evaluation_id].text, struck=True))
            continue
        identity = identity_of(record.training) if record.training else record.evaluation_id.encode()
        _, first = kept.setdefault(identity, (path, record))
        if first is not record:
            aside.append(Aside(row, f"the same training as {first.evaluation_id[:8]}, counted once"))
    return list(kept.values()), tuple(aside)


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
