"""The board as data: records that may be compared, in order, with rank groups, and runs that differ in seeds alone."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.base.files import canonical_json
from benchmark.contracts.records import Anchored, Failure, Record, Score
from benchmark.numbers.seeds import Share, Spread, onset, share, spread

if TYPE_CHECKING:
    import pandas as pd

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
        """Updates, seeds and data of the run; empty for a released ControlNet."""
        return self.record.training or {}

    @property
    def seed(self) -> str:
        """The seed that set all others, or the names of those that differ."""
        seeds = self.training.get("recipe", {}).get("seeds", {})
        values = sorted(set(seeds.values()))
        return str(values[0]) if len(values) == 1 else ", ".join(f"{name} {value}" for name, value in seeds.items())

    @property
    def recipe(self) -> bytes:
        """All that decides the weights but the seeds and which draw of the data it was."""
        if not self.training:
            return canonical_json(self.record.evaluation_id)
        return recipe_of(self.training, self.record.method)

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
    def epochs(self) -> float | None:
        """Images seen over images there are."""
        if not self.training:
            return None
        recipe = self.training["recipe"]
        return float(recipe["steps"] * recipe["batch"] / self.training["num_samples"])


def recipe_of(training: dict[str, Any], method: str) -> bytes:
    """Return what two trainings share that differ in seeds and the draw of their data alone."""
    same = {key: value for key, value in training.items() if key not in ("name", "step", "replicate")}
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
        """Normalised control over the runs; None where a run has none."""
        scores = [row.control.normalised for row in self.rows]
        known = [score.estimate for score in scores if score]
        return spread(known) if len(known) == len(scores) else None

    @property
    def onsets(self) -> list[int]:
        """The updates at which control began, ascending, of the runs in which it did."""
        return sorted(row.onset for row in self.rows if row.onset is not None)

    @property
    def failures(self) -> Share:
        """Runs that diverged or never followed the condition, of all; one that was not probed counts as none."""
        never = sum(row.onset is None and bool(row.probes) for row in self.rows)
        return share(self.diverged + never, len(self.rows) + self.diverged)


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
    groups = _groups([record.reconstruction[record.headline].normalised for _, record in ordered])
    rows = [Row(p, r, g) for (p, r), g in zip(ordered, groups, strict=True)]
    return Section(key, title, tuple(rows), tuple(here))


def _control(record: Record) -> float:
    score = record.reconstruction[record.headline].normalised
    return score.estimate if score else float("-inf")


def _groups(scores: Sequence[Score | None]) -> list[int | None]:
    """Return rank groups of scores from best to worst: a group ends where an interval lies below its leader's."""
    groups: list[int | None] = []
    leader: Score | None = None
    group = 0
    for score in scores:
        if score is None:
            groups.append(None)
            continue
        if leader is None or score.high < leader.low:
            leader, group = score, group + 1
        groups.append(group)
    return groups


def frame(board: list[Section]) -> "pd.DataFrame":
    """Return the board as one table, a row a record, for pandas."""
    import pandas as pd

    rows = []
    for section in board:
        for row in section.rows:
            record = row.record
            cells: dict[str, Any] = {
                "comparability_key": section.key[:12],
                "dataset": record.dataset["name"],
                "condition": record.condition,
                "method": record.method,
                "base": record.base,
                "group": row.group,
                "seed": row.seed,
                "prompts": record.generation["prompts"],
                "n": record.dataset["n"],
                "pairs": row.training.get("num_samples"),
                "updates": row.training.get("recipe", {}).get("steps"),
                "epochs": row.epochs,
            }
            normalised = row.control.normalised
            cells |= _cells("normalised_control", normalised) if normalised else {}
            cells |= _cells("control_gain", row.control.gain) if row.control.gain else {}
            for name in ANCHORS:
                cells |= _cells(f"{row.headline}_{name}", getattr(row.control, name))
            for prefix, scores in (("", record.scores), ("no_control_", record.floor_scores)):
                for score in scores:
                    cells |= _cells(prefix + score.name, score)
            rows.append(cells | {"record": row.path.name})
    return pd.DataFrame(rows)


def _cells(name: str, score: Score) -> dict[str, float]:
    return {name: score.estimate, f"{name}_low": score.low, f"{name}_high": score.high}
