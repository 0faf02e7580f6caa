"""Which records a study made: those whose settings its file names, and that change nothing it does not name."""

import itertools
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.base.errors import UserError
from benchmark.base.forms import read_toml
from benchmark.contracts.records import Failure, Record
from benchmark.engine.tiers import expanded

STUDIES = Path(__file__).parents[1] / "studies"
_MOST = 10_000  # combinations of a grid
_PLACES = {"dataset", "out", "cache"}
_UNSAID = {"prompts": "full"}  # what `generate` takes where a study does not say


@dataclass(frozen=True)
class StudyFile:
    """A study as its file says it.

    Attributes:
        name: The file's name.
        description: In a sentence.
        build: Options of `build`.
        trainings: Options of `train`, of every run.
        drawings: Options of `generate`, of every set of images of a run.
    """

    name: str
    description: str
    build: Mapping[str, Any]
    trainings: tuple[Mapping[str, Any], ...]
    drawings: tuple[Mapping[str, Any], ...]

    @property
    def command(self) -> str:
        """What makes its records."""
        return f"python -m benchmark.study run {self.name}"

    @property
    def build_command(self) -> str:
        """What makes its dataset."""
        listed = {name: value if isinstance(value, list) else [value] for name, value in self.build.items()}
        words = [word for name, values in listed.items() for value in values for word in (f"--{name}", str(value))]
        return shlex.join(["python", "-m", "benchmark.build", *words])

    def holds(self, kept: Record | Failure) -> bool:
        """Whether a record or a failure is of the study, in whatever folder it ran; one that does not say is not."""
        training, provenance = kept.training, kept.environment
        if isinstance(kept, Record):
            provenance = provenance.get("training") or {}
        if not training:
            return False
        parts, made_by = training.get("parts", [training]), provenance.get("parts", [provenance])
        if not all(map(self._builds, parts)):  # before the drawings: it rules out most, for the least
            return False
        if isinstance(kept, Record) and not self._draws(kept):
            return False
        return all(self._trains(part, by.get("command")) for part, by in zip(parts, made_by, strict=True))

    def _draws(self, record: Record) -> bool:
        generation = record.generation
        said = {"prompts": generation["prompts"], "limit": record.dataset["n"], **generation.get("sampling", {})}
        return any(all(said.get(name) == value for name, value in drawing.items()) for drawing in self.drawings)

    def _builds(self, training: dict[str, Any]) -> bool:
        return re.fullmatch(self._dataset, training.get("dataset", {}).get("name", "")) is not None

    def _trains(self, training: dict[str, Any], command: str | None) -> bool:
        if command is None:
            return False
        whole, given = {"num_samples": self.build["size"]}, _given(command)
        return any(_is({**whole, **wanted}, training, given) for wanted in self.trainings)

    @cached_property
    def _dataset(self) -> str:
        """The pattern of the names `build` gives the dataset."""
        source = re.split("[:,]", self.build.get("source", "scenes"))[0]
        conditions = "-".join(cond.partition(",")[0] for cond in self.build["cond"])
        return rf"{re.escape(source)}-{conditions}-\d+"


def _given(command: str) -> dict[str, str]:
    """Return the options of a recorded command, which leaves out those at their default, but for places."""
    words = shlex.split(command)
    options = {word[2:].replace("-", "_"): value for word, value in itertools.pairwise(words) if word.startswith("--")}
    return {name: value for name, value in options.items() if name not in _PLACES}


def _is(wanted: Mapping[str, Any], training: dict[str, Any], given: Mapping[str, str]) -> bool:
    """Whether a training has every setting that is wanted, and was given no other."""
    recipe = training["recipe"]
    seeds = {f"{name}_seed": seed for name, seed in recipe["seeds"].items()}
    common = {seed for name, seed in seeds.items() if name not in wanted}
    said = {**recipe, **training, **seeds, "seed": next(iter(common)) if len(common) == 1 else None}
    said |= {
        name: given.get(name, training[kind]["name"]) for name, kind in (("cond", "condition"), ("method", "method"))
    }
    said["referee"] = given.get("referee")
    return given.keys() <= wanted.keys() and all(said[name] == value for name, value in wanted.items())


def read_studies(folder: Path = STUDIES) -> list[StudyFile]:
    """Return the studies of a folder by name."""
    return [_read(path) for path in sorted(folder.glob("*.toml"))]


def _read(path: Path) -> StudyFile:
    document = read_toml(path)
    grid = dict(document.get("grid", {}))
    drawn = grid.pop("generate", {})
    runs = itertools.product(combinations(grid, path), combinations(document.get("together", {}), path))
    trainings = tuple({**document.get("train", {}), **chosen, **part} for chosen, part in runs)
    drawings = tuple(
        {**_UNSAID, **expanded({**document.get("generate", {}), **chosen})} for chosen in combinations(drawn, path)
    )
    return StudyFile(path.stem, document.get("description", ""), document.get("build", {}), trainings, drawings)


def combinations(grid: dict[str, list[Any]], path: Path) -> Iterator[dict[str, Any]]:
    """Yield every combination of a grid's values; a key of several fields, as in "replicate seed", ties them.

    Raises:
        UserError: Values that are no lists, or not as many as their key has fields, or too many combinations.
    """
    choices = []
    for key, values in grid.items():
        names = key.split()
        rows = [[value] for value in values] if isinstance(values, list) and len(names) == 1 else values
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(names) for row in rows):
            raise UserError(f'{path}: the grid\'s "{key}" needs a list of values, or of {len(names)} values each')
        choices.append([dict(zip(names, row, strict=True)) for row in rows])
    if (count := math.prod(map(len, choices))) > _MOST:
        raise UserError(f"{path}: the grid has {count} combinations; at most {_MOST} are allowed")
    for parts in itertools.product(*choices):
        yield {name: value for part in parts for name, value in part.items()}
