"""The board as data: records that may be compared, in order, with rank groups, and runs that differ in seeds alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.base.files import canonical_json
from benchmark.contracts.records import Anchored, Record, Score
from benchmark.numbers.seeds import Spread, onset, spread

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
        same = {key: value for key, value in self.training.items() if key not in ("name", "step", "replicate")}
        recipe = {key: value for key, value in same["recipe"].items() if key != "seeds"}
        return canonical_json({**same, "recipe": recipe, "method": same.get("method", self.record.method)})

    @cached_property
    def onset(self) -> int | None:
        """The update from which the condition was followed, by the curve beside the record; None if it never was."""
        curve = self.path.with_suffix(".jsonl")
        lines = curve.read_text().splitlines() if curve.exists() else []
        return onset([json.loads(line) for line in lines], self.headline)

    @property
    def epochs(self) -> float | None:
        """Images seen over images there are."""
        if not self.training:
            return None
        recipe = self.training["recipe"]
        return float(recipe["steps"] * recipe["batch"] / self.training["num_samples"])


@dataclass(frozen=True)
class Cell:
    """Runs that differ in their seeds or the draw of their data alone: what the board says of robustness."""

    rows: tuple[Row, ...]

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


@dataclass(frozen=True)
class Section:
    """Rows that may be compared: they share a comparability key."""

    key: str
    title: str
    rows: tuple[Row, ...]

    @property
    def cells(self) -> list[Cell]:
        """The rows by recipe, in the order of their best."""
        groups: dict[bytes, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.recipe, []).append(row)
        return [Cell(tuple(rows)) for rows in groups.values()]


def sections(records: dict[Path, Record]) -> list[Section]:
    """Return the records by comparability key, best normalised control first, with rank groups."""
    keys: dict[str, list[tuple[Path, Record]]] = {}
    for path, record in records.items():
        keys.setdefault(record.comparability_key, []).append((path, record))
    made = [_section(key, items) for key, items in keys.items()]
    return sorted(made, key=lambda section: (section.title, section.key))


def _section(key: str, items: list[tuple[Path, Record]]) -> Section:
    first = items[0][1]
    title = (
        f"{first.condition} on {first.dataset['name']}, base {first.base}, prompts {first.generation['prompts']}, "
        f"n = {first.dataset['n']}"
    )
    ordered = sorted(items, key=lambda item: -_control(item[1]))
    groups = _groups([record.reconstruction[record.headline].normalised for _, record in ordered])
    rows = [Row(p, r, g) for (p, r), g in zip(ordered, groups, strict=True)]
    return Section(key, title, tuple(rows))


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
