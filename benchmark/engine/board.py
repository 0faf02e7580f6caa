"""The board as data: records that may be compared, in order, with rank groups, and those that count nowhere."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmark.contracts.records import Failure, Invalidated, Record, Score
from benchmark.engine.cells import Cell, Family, Row, names, told_apart
from benchmark.engine.trainings import base_of, identity_of, recipe_of, training_of
from benchmark.numbers.seeds import Spread


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

    @cached_property
    def cells(self) -> list[Cell]:
        """The rows by recipe, in the order of their best, then recipes of which no run ended with weights."""
        rows, diverged = (defaultdict[bytes, list[Any]](list) for _ in range(2))
        for row in self.rows:
            rows[row.recipe].append(row)
        for failure in self.failures:
            diverged[recipe_of(training_of(failure), failure.method)].append(failure)
        return [Cell(tuple(rows[recipe]), tuple(diverged[recipe])) for recipe in dict.fromkeys([*rows, *diverged])]

    def method(self, runs: Row | Cell) -> str:
        """Return the method of runs, and what else tells their recipe apart here and has no column of its own."""
        named = runs.method if isinstance(runs, Cell) else runs.record.method
        return ", ".join([named, *self._apart.get(runs.recipe, [])])

    @cached_property
    def _apart(self) -> dict[bytes, list[str]]:
        apart = told_apart(self.cells, but=("pairs", "steps"))
        return {cell.recipe: words for cell, words in zip(self.cells, apart, strict=True)}

    @cached_property
    def families(self) -> list[Family]:
        """The cells by recipe but for the number of pairs, best normalised control first.

        Rank groups are of those that were trained on as many pairs.
        """
        kinds: dict[bytes, list[Cell]] = {}
        for cell in self.cells:
            kinds.setdefault(cell.family, []).append(cell)
        made = [Family(tuple(sorted(cells, key=lambda cell: cell.pairs or 0))) for cells in kinds.values()]
        controls = [family.budget.control for family in made]
        order = sorted(range(len(made)), key=lambda i: -(c.iqm if (c := controls[i]) else float("-inf")))
        groups: dict[int, int | None] = {}
        for pairs in {family.budget.pairs for family in made}:
            alike = [i for i in order if made[i].budget.pairs == pairs]
            groups |= zip(alike, _groups([_interval(controls[i]) for i in alike]), strict=True)
        return [replace(made[i], group=groups[i]) for i in order]

    @cached_property
    def pictured(self) -> list[tuple[str, Row]]:
        """A run of each cell with what tells the cell apart, in words: method by method, fewest pairs first."""
        cells = [cell for family in self.families for cell in family.cells if cell.middle]
        return [(name, cell.middle) for name, cell in zip(names(cells), cells, strict=True) if cell.middle]


def counted(failures: Iterable[Failure], invalidated: Mapping[str, Invalidated]) -> list[Failure]:
    """Return the failures that were not invalidated, one of each training."""
    found: dict[bytes, Failure] = {}
    for failure in failures:
        if failure.failure_id not in invalidated:
            identity = identity_of(training_of(failure), failure.method)
            found[identity] = _for_both(found[identity], failure) if identity in found else failure
    return list(found.values())


def _for_both(first: Failure, second: Failure) -> Failure:
    """Return the failure of one training that two studies wrote down, meant for the prompts of both."""
    prompts = {*first.prompts, *second.prompts} if first.prompts and second.prompts else ()
    return first.model_copy(update={"prompts": tuple(sorted(prompts))})


def sections(
    records: Mapping[Path, Record],
    failures: Iterable[Failure] = (),
    invalidated: Mapping[str, Invalidated] = MappingProxyType({}),
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
    here = [_of_base(failure, first) for failure in failures if _is_of(failure, first)]
    kept, aside = _counted(items, invalidated, here)
    ordered = sorted(kept, key=lambda item: -_control(item[1]))
    groups = _groups([_interval(record.reconstruction[record.headline].normalised) for _, record in ordered])
    rows = [Row(p, r, g) for (p, r), g in zip(ordered, groups, strict=True)]
    return Section(key, title, tuple(rows), aside, tuple(here))


def _is_of(failure: Failure, record: Record) -> bool:
    """Whether a training that failed was meant for the table that a record is in."""
    meant = not failure.prompts or record.generation["prompts"] in failure.prompts
    same_base = base_of(failure) in (base_of(record), record.base)
    return meant and same_base and _place(failure) == _place(record)


def _of_base(failure: Failure, record: Record) -> Failure:
    """Return a failure that says the weights of the base it is about: older ones have its name alone."""
    return failure.model_copy(update={"environment": {"base_sha256": base_of(record), **failure.environment}})


def _place(kept: Record | Failure) -> tuple[str, ...]:
    return (kept.dataset["name"], kept.dataset["plan_hash"], kept.condition)


def _counted(
    items: list[tuple[Path, Record]], invalidated: Mapping[str, Invalidated], failures: list[Failure]
) -> tuple[list[tuple[Path, Record]], tuple[Aside, ...]]:
    """Return the records that count, and those set aside: invalidated, or of a training that counts already.

    One that diverged elsewhere counts as that: it is not told here which of the two had the fault.
    """
    lost = {identity_of(training_of(failure), failure.method): failure.failure_id for failure in failures}
    kept: dict[bytes, tuple[Path, Record]] = {}
    aside: list[Aside] = []
    for path, record in items:
        row = Row(path, record, None)
        if record.evaluation_id in invalidated:
            aside.append(Aside(row, invalidated[record.evaluation_id].text, struck=True))
            continue
        identity = identity_of(training_of(record), record.method) if record.training else record.evaluation_id.encode()
        if identity in lost:
            why = f"the same training diverged, and counts as {lost[identity][:8]}; if that was mended, invalidate it"
            aside.append(Aside(row, why))
            continue
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
