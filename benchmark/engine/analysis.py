"""What runs of a board say of robustness beyond their scores: who beats whom, how wide a dial is, how dirt hurts."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from benchmark.engine.board import Section
from benchmark.engine.cells import Cell, Family, names
from benchmark.engine.claims import holm
from benchmark.engine.corruptions import parse
from benchmark.engine.trainings import family_of, recipe_of
from benchmark.numbers.improvement import Improvement, improvement
from benchmark.numbers.profiles import mean_over_tasks, over_tasks
from benchmark.numbers.seeds import Spread
from benchmark.numbers.sensitivity import Region, region
from benchmark.numbers.slopes import slope

ENOUGH = 3  # runs, below which nothing is said of chance
_DIALS = {"learning_rate": True, "batch": True, "empty_prompt_rate": False}  # whether it is turned by factors


@dataclass(frozen=True)
class Comparison:
    """Two kinds of runs, how often one of the first beats one of the second, and p corrected for all of a section."""

    mine: str
    other: str
    found: Improvement
    p: float


@dataclass(frozen=True)
class Dial:
    """Cells that differ in one setting alone, and the region of it that works.

    Attributes:
        name: As in ``learning_rate``.
        what: The method.
        cells: By the setting's value, ascending.
        factors: Whether it is turned by factors.
        region: None where nothing works.
    """

    name: str
    what: str
    cells: Mapping[float, Cell]
    factors: bool
    region: Region | None


@dataclass(frozen=True)
class Dirt:
    """Cells that differ in the rate of one kind of dirt alone, and the slope of control over it (per rate of 1)."""

    name: str
    what: str
    cells: Mapping[float, Cell]
    slope: Spread | None


def comparisons(section: Section) -> list[Comparison]:
    """Return methods that share all else, each against each, and sizes of one method, each against the next smaller.

    Methods are compared on the most pairs that both were trained on. Only cells of at least three runs are compared;
    of sizes, only those that saw all their pairs.
    """
    sides = [*_methods(section), *(pair for family in section.families for pair in _sizes(family))]
    found = [improvement(_enough(mine), _enough(other)) for mine, other in sides]
    adjusted = holm([one.p for one in found])
    labels = names([cell for pair in sides for cell in pair])
    made = zip(labels[::2], labels[1::2], found, adjusted, strict=True)
    return [Comparison(mine, other, one, p) for mine, other, one, p in made if p is not None]


def _methods(section: Section) -> list[tuple[Cell, Cell]]:
    alike: dict[bytes, list[dict[int | None, Cell]]] = defaultdict(list)
    for family in section.families:
        sizes = {cell.pairs: cell for cell in family.cells if cell.trained and _enough(cell)}
        if sizes:
            alike[family_of(family.cells[0].trained, "", but=("method",))].append(sizes)
    pairs = [pair for families in alike.values() for pair in combinations(families, 2)]
    shared = [(mine, other, [size for size in mine if size in other]) for mine, other in pairs]
    return [(mine[sizes[-1]], other[sizes[-1]]) for mine, other, sizes in shared if sizes]


def _sizes(family: Family) -> list[tuple[Cell, Cell]]:
    whole = [cell for cell in family.cells if not cell.single_pass and _enough(cell)]
    return [(more, less) for less, more in pairwise(whole)]


def _enough(cell: Cell) -> tuple[float, ...]:
    """Return normalised control of a cell's runs; nothing where they are too few."""
    control = cell.control
    return control.values if control and len(control.values) >= ENOUGH else ()


def dials(section: Section) -> list[Dial]:
    """Return every setting that was tried at three values or more while all else stayed.

    Where the batch is turned, the updates may turn with it, so that as many images are seen.
    """
    return [
        Dial(name, cells[low].method, cells, factors, region(_values(cells), factors))
        for name, factors in _DIALS.items()
        for cells in _alike(section, partial(_but, name), partial(_setting, name))
        if len(cells) > 2
        for low in [min(cells)]
    ]


def _but(name: str, cell: Cell) -> bytes:
    """Return what cells share that differ in a setting alone."""
    recipe = cell.training["recipe"]
    if name != "batch":
        return recipe_of(cell.trained, cell.method, but=(name,))
    return recipe_of(cell.trained, cell.method, but=("batch", "steps")) + b"%d" % (recipe["batch"] * recipe["steps"])


def _setting(name: str, cell: Cell) -> float | None:
    value = cell.training["recipe"].get(name)
    return None if value is None else float(value)


def dirt(section: Section) -> list[Dirt]:
    """Return every kind of dirt that was tried at two rates or more, none among them, while all else stayed."""
    found = []
    for name in sorted({parse(text)[0] for cell in section.cells for text in cell.training.get("corrupt", [])}):
        for cells in _alike(section, _but_dirt, partial(_rate, name)):
            if len(cells) > 1:
                runs = {rate: dict(cell.runs or []) for rate, cell in cells.items()}
                found.append(Dirt(name, cells[min(cells)].method, cells, slope(runs)))
    return found


def _but_dirt(cell: Cell) -> bytes:
    return recipe_of(cell.trained, cell.method, but=("corrupt",))


def _rate(name: str, cell: Cell) -> float | None:
    """Return the rate of a kind of dirt in a cell, 0 of clean data; None where there is another kind."""
    kinds = dict(map(parse, cell.training.get("corrupt", [])))
    return kinds.get(name, 0.0) if set(kinds) <= {name} else None


def _alike(
    section: Section, key: Callable[[Cell], bytes], value: Callable[[Cell], float | None]
) -> list[dict[float, Cell]]:
    """Return the cells that share a key, by an ascending value; of those with control, trained here, alone."""
    groups: dict[bytes, dict[float, Cell]] = defaultdict(dict)
    for cell in section.cells:
        if cell.trained and "parts" not in cell.trained and cell.runs and (at := value(cell)) is not None:
            groups[key(cell)][at] = cell
    return [dict(sorted(cells.items())) for cells in groups.values()]


def _values(cells: Mapping[float, Cell]) -> dict[float, tuple[float, ...]]:
    return {at: cell.control.values for at, cell in cells.items() if cell.control}


@dataclass(frozen=True)
class Together:
    """Cells of one recipe on every condition and under every prompt setting of some sections: each is a task.

    Attributes:
        first: One of the cells, to put recipes in an order by.
        name: What is different about it.
        tasks: Control of the runs of every cell.
    """

    first: Cell
    name: str
    tasks: tuple[tuple[float, ...], ...]

    @cached_property
    def control(self) -> Spread:
        """The mean over tasks of their interquartile means, and its interval, which takes 2000 draws of all."""
        return over_tasks(self.tasks)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """All runs of all tasks."""
        return np.concatenate(self.tasks)


def together(sections: Iterable[Section]) -> list[Together]:
    """Return the recipes that every one of the sections has enough runs of; best first."""
    board = list(sections)
    found: dict[bytes, list[Cell]] = defaultdict(list)
    for section in board:
        for cell in section.cells:
            if cell.trained and _enough(cell):
                found[recipe_of(cell.trained, cell.method, but=("condition",))].append(cell)
    whole = [cells for cells in found.values() if len(cells) == len(board)]
    labels = names([cells[0] for cells in whole])
    made = [Together(cells[0], label, tuple(map(_enough, cells))) for label, cells in zip(labels, whole, strict=True)]
    return sorted(made, key=lambda one: -mean_over_tasks(one.tasks))
