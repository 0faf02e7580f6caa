"""What a board is made of: a record, runs that differ in their seeds alone, and what such runs say at several sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.base.files import canonical_json
from benchmark.contracts.records import Anchored, Failure, Record, Score
from benchmark.engine.records import read_probes
from benchmark.engine.trainings import WATCHING, draw_of, epochs, family_of, first_of, recipe_of, seed_of, training_of
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
        """The seed that most of the others share, and the names of those that differ from it."""
        return seed_of(self.training)

    @cached_property
    def scores(self) -> list[tuple[Score, Score]]:
        """Every image score and that of the base alone, by name: records hold them in the order they were asked for."""
        both = zip(self.record.scores, self.record.floor_scores, strict=True)
        return sorted(both, key=lambda pair: pair[0].name)

    def change(self, name: str) -> float:
        """Return an image score less that of the base alone on the same prompts and noise."""
        mine, floor = (
            {s.name: s.estimate for s in scores} for scores in (self.record.scores, self.record.floor_scores)
        )
        return mine[name] - floor[name]

    @cached_property
    def recipe(self) -> bytes:
        """All that decides the weights but the seeds and which draw of the data it was."""
        if not self.training:
            return canonical_json(self.record.evaluation_id)
        return recipe_of(training_of(self.record), self.record.method)

    @property
    def family(self) -> bytes:
        """All that decides the weights but the seeds and the data's number and draw."""
        return self.recipe if not self.training else family_of(training_of(self.record), self.record.method)

    @cached_property
    def probes(self) -> list[dict[str, Any]]:
        """The rows of the curve beside the record that hold a probe; none where there are neither."""
        return read_probes(self.path, self.record)

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


@dataclass(frozen=True)
class Cell:
    """Runs that differ in their seeds or the draw of their data alone: what the board says of robustness.

    Attributes:
        rows: Those that ended with weights.
        diverged: Those that did not.
    """

    rows: tuple[Row, ...]
    diverged: tuple[Failure, ...] = ()

    @cached_property
    def trained(self) -> dict[str, Any]:
        """The training of one run, which shares all but its seeds and draw with the others; empty of a released one."""
        return training_of(self.rows[0].record if self.rows else self.diverged[0])

    @cached_property
    def training(self) -> dict[str, Any]:
        """The same, of several that steer together of the first."""
        return first_of(self.trained)

    @property
    def method(self) -> str:
        """How control is attached, as it is written on the command line."""
        return self.rows[0].record.method if self.rows else self.diverged[0].method

    @cached_property
    def recipe(self) -> bytes:
        """All that decides the weights but the seeds and which draw of the data it was."""
        return self.rows[0].recipe if self.rows else recipe_of(self.trained, self.method)

    @cached_property
    def family(self) -> bytes:
        """All that decides the weights but the seeds and the data's number and draw."""
        return family_of(self.trained, self.method) if self.trained else self.rows[0].recipe

    @cached_property
    def runs(self) -> list[tuple[str, float]] | None:
        """Seeds and draw of the data, and normalised control, of every run, 0 if it diverged; None if one has none."""
        scores = [(draw_of(row.record.training or {}), row.control.normalised) for row in self.rows]
        known = [(draw, score.estimate) for draw, score in scores if score]
        lost = [(draw_of(failure.training), 0.0) for failure in self.diverged]
        return [*known, *lost] if len(known) == len(scores) else None

    @cached_property
    def control(self) -> Spread | None:
        """Normalised control over the runs, 0 for one that diverged; None where a run has none."""
        return spread([value for _, value in self.runs]) if self.runs is not None else None

    @property
    def middle(self) -> Row | None:
        """Of the runs whose pictures were kept the one in the middle by normalised control, the lower of two.

        Runs that diverged have no pictures and count as the lowest. None if no pictures were kept.
        """
        kept = [row for row in self.rows if ".webp" in row.record.attached]
        kept.sort(key=lambda row: score.estimate if (score := row.control.normalised) else 0.0)
        lost = len(self.diverged)
        return kept[max(0, (lost + len(kept) - 1) // 2 - lost)] if kept else None

    @property
    def pairs(self) -> int | None:
        """How many pairs a run was trained on; None for a released ControlNet."""
        return self.training.get("num_samples")

    @cached_property
    def epochs(self) -> float | None:
        """Images seen over images there are."""
        return epochs(self.training)

    @property
    def single_pass(self) -> bool:
        """Whether the runs saw less than one epoch, so that they say nothing about size."""
        return (self.epochs or 0) < 1

    @cached_property
    def changes(self) -> dict[str, Spread]:
        """What steering changed of the base: every image score less that of the base alone, over the runs."""
        names = [score.name for row in self.rows[:1] for score in row.record.scores]
        return {name: spread([row.change(name) for row in self.rows]) for name in names}

    @cached_property
    def onsets(self) -> Onsets:
        """When control began; a run in which it never did, or that diverged, is censored at the end of training."""
        began = [row.onset for row in self.rows if row.onset is not None]
        return onsets(began, len(self.rows) + len(self.diverged))

    @property
    def num_runs(self) -> int:
        """All of them, those that diverged included."""
        return len(self.rows) + len(self.diverged)

    @cached_property
    def failures(self) -> Share | None:
        """Runs that diverged or never followed the condition, of those that diverged or were probed, if any."""
        outcomes = [*(row.outcome for row in self.rows), *("diverged" for _ in self.diverged)]
        watched = [outcome for outcome in outcomes if outcome != "not probed"]
        return share(sum(outcome != "followed" for outcome in watched), len(watched)) if watched else None


@dataclass(frozen=True)
class Family:
    """Cells that differ in their number of pairs alone, fewest first: the headline of a method on a condition.

    Attributes:
        cells: At least one.
        group: Shared by families whose intervals of normalised control overlap the leader's; None without an interval.
    """

    cells: tuple[Cell, ...]
    group: int | None = None

    @cached_property
    def budget(self) -> Cell:
        """The cell that speaks for all: of those that saw all their pairs, if there are, the one with the most."""
        return ([cell for cell in self.cells if not cell.single_pass] or self.cells[:1])[-1]

    @cached_property
    def failures(self) -> Share | None:
        """Runs of all sizes that diverged or never followed the condition, of those that diverged or were probed."""
        shares = [cell.failures for cell in self.cells if cell.failures]
        return share(sum(s.count for s in shares), sum(s.total for s in shares)) if shares else None

    @cached_property
    def needed(self) -> Needed | None:
        """Images needed for a share of the best, from the cells that saw all their pairs."""
        known = {c.pairs: c.control.values for c in self.cells if c.pairs and c.control and not c.single_pass}
        return needed(known) if known else None


def names(cells: Sequence[Cell], *, sized: bool = True) -> list[str]:
    """Return what tells cells from each other, in words: method, dirt, and what not all share of pairs and recipe."""
    apart = told_apart(cells, but=() if sized else ("pairs",))
    return [
        ", ".join([cell.method, *cell.training.get("corrupt", []), *words])
        for cell, words in zip(cells, apart, strict=True)
    ]


def told_apart(cells: Sequence[Cell], but: tuple[str, ...] = ()) -> list[list[str]]:
    """Return for each cell the settings, but for those named, that not all of the cells share, in words.

    How closely runs were watched is said only where nothing else tells cells apart.
    """
    short, whole = _said_apart(cells, (*but, *WATCHING)), _said_apart(cells, but)
    kinds = [(cell.method, *cell.training.get("corrupt", [])) for cell in cells]
    count_short, count_whole = (
        len({(*kind, *words) for kind, words in zip(kinds, each, strict=True)}) for each in (short, whole)
    )
    return short if count_short == count_whole else whole


def _said_apart(cells: Sequence[Cell], but: tuple[str, ...]) -> list[list[str]]:
    said = [{name: text for name, text in _settings(cell).items() if name not in but} for cell in cells]
    fields = dict.fromkeys(field for one in said for field in one)
    varied = [field for field in fields if len({one.get(field) for one in said if one}) > 1]
    return [[one[field] for field in varied if field in one] for one in said]


def _settings(cell: Cell) -> dict[str, str]:
    recipe = cell.training.get("recipe", {})
    said = {"pairs": f"{cell.pairs} pairs", "steps": f"{recipe['steps']} updates"} if recipe else {}
    if "drawn_from" in cell.training:
        said["drawn from"] = f"drawn from {cell.training['drawn_from']}"
    others = sorted(recipe.keys() - {"steps", "seeds"})
    return said | {field: f"{field.replace('_', ' ')} {recipe[field]}" for field in others}
