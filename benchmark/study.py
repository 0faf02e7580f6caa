"""Plan and run a study: many trainings of one file, from data to board. `python -m benchmark.study run smoke`."""

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from benchmark import registry
from benchmark.base.console import say
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, sha256
from benchmark.build import Build, build, default_folder, make_plan
from benchmark.cli import main as cli_main
from benchmark.cli import non_negative, option, positive
from benchmark.contracts.plugins import Method
from benchmark.contracts.records import Failure
from benchmark.engine.records import write_failure
from benchmark.engine.runs import RUN, read_finished, read_status
from benchmark.evaluate import Evaluate, evaluate
from benchmark.generate import Generate, generate
from benchmark.leaderboard import Leaderboard, leaderboard
from benchmark.train import Train, train

STUDIES = Path(__file__).parent / "studies"
_ACTIONS = ("list", "show", "run", "status")
F = TypeVar("F")


@dataclass(frozen=True)
class Study:
    """Plan and run a study; the same command again goes on where it stopped."""

    action: str = option("list, show, run or status", positional=True)
    name: str | None = option("study: a name from the list, or a .toml file", None, positional=True)
    out: Path | None = option("where everything goes (default: runs/<study>)", None, Path)
    rank: int = option("which share of the runs this process does, when several share a study", 0, non_negative)
    world: int = option("how many processes share the study", 1, positive)


@dataclass(frozen=True)
class Drawing:
    """Images a run is judged by, and the base's own images of the same samples, prompts and noise."""

    generate: Generate
    floor: Generate


@dataclass(frozen=True)
class Cell:
    """One run of a study: its training form and everything it is judged by."""

    train: Train
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Design:
    """A study file, filled in: the dataset and every cell."""

    name: str
    description: str
    root: Path
    build: Build
    cells: tuple[Cell, ...]

    @property
    def results(self) -> Path:
        """Where the records and the board go."""
        return self.root / "results"


def read_design(name: str, out: Path | None) -> Design:
    """Return the design of a named study or a study file.

    Raises:
        UserError: No such study, or a file with unknown fields.
    """
    path = Path(name) if name.endswith(".toml") else STUDIES / f"{name}.toml"
    if not path.exists():
        raise UserError(f'no study "{name}"; {did_you_mean(name, _names())}')
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    root = out or Path("runs") / path.stem
    wanted = _form(Build, document.get("build", {}), path)
    made = _form(
        Build, {**document.get("build", {}), "out": root / "datasets" / default_folder(make_plan(wanted)).name}, path
    )
    cells = tuple(_cells(document, made, root, path))
    return Design(path.stem, document.get("description", ""), root, made, cells)


def _cells(document: dict[str, Any], made: Build, root: Path, path: Path) -> Iterator[Cell]:
    """Yield a cell for every combination of the grid's training fields."""
    grid = {key: values for key, values in document.get("grid", {}).items() if key != "generate"}
    for chosen in combinations(grid, path):
        label = _label(chosen) or "run"
        common = {"dataset": made.out, "cache": root / "cache", "out": root / "runs" / label}
        training = _form(Train, {**document.get("train", {}), **chosen, **common}, path)
        yield Cell(training, tuple(_drawings(document, training, root, label, path)))


def _drawings(document: dict[str, Any], training: Train, root: Path, label: str, path: Path) -> Iterator[Drawing]:
    """Yield the images of a run for every combination of the grid's generating fields."""
    for chosen in combinations(document.get("grid", {}).get("generate", {}), path):
        common = {**document.get("generate", {}), **chosen, "dataset": training.dataset}
        mine, floor = (
            root / "images" / "_".join(filter(None, (name, _label(chosen)))) for name in (label, "no_control")
        )
        yield Drawing(
            generate=_form(Generate, {**common, "run": (training.out,), "out": mine}, path),
            floor=_form(Generate, {**common, "base": training.base, "out": floor}, path),
        )


def combinations(grid: dict[str, list[Any]], path: Path) -> Iterator[dict[str, Any]]:
    """Yield every combination of a grid's values; a key of several fields, as in "replicate seed", ties them.

    Raises:
        UserError: Values that are no lists, or not as many as their key has fields.
    """
    choices = []
    for key, values in grid.items():
        names = key.split()
        rows = [[value] for value in values] if isinstance(values, list) and len(names) == 1 else values
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(names) for row in rows):
            raise UserError(f'{path}: the grid\'s "{key}" needs a list of values, or of {len(names)} values each')
        choices.append([dict(zip(names, row, strict=True)) for row in rows])
    for parts in itertools.product(*choices):
        yield {name: value for part in parts for name, value in part.items()}


def _label(chosen: dict[str, Any]) -> str:
    """Return a folder name for a combination of fields."""
    texts = {key: "+".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in chosen.items()}
    return "_".join(f"{key}-{text or 'none'}" for key, text in texts.items())


def _form(form: type[F], values: dict[str, Any], path: Path) -> F:
    """Return a command's form filled from a table of a study file."""
    known = [field.name for field in fields(form)]  # type: ignore[arg-type]
    unknown = next((key for key in values if key not in known), None)
    if unknown:
        raise UserError(f'{path}: {form.__name__.lower()} has no field "{unknown}"; {did_you_mean(unknown, known)}')
    return form(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _names() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def run(design: Design, rank: int = 0, world: int = 1) -> None:
    """Do what is left of a study: dataset, then train, generate and evaluate each cell, then the board.

    A run that diverges keeps that outcome, and the others go on. Of several processes on one folder each does every
    `world`-th cell, from its `rank`; the last to end shows all.
    """
    say(describe(design))
    build(design.build)
    mine, diverged = design.cells[rank::world], []
    for cell in mine:
        if _train(cell.train):
            _judge(cell, design.results)
        else:
            write_failure(design.results, _failure(cell.train))
            diverged.append(str(cell.train.out))
    if diverged:
        say(f"{len(diverged)} of {len(mine)} runs diverged: {', '.join(diverged)}")
    if len(diverged) < len(mine):
        leaderboard(Leaderboard(results=design.results))
        say(f"done: open {design.results / 'site' / 'index.html'}, or read {design.results / 'README.md'}")


def _train(form: Train) -> bool:
    """Train a run, or leave it as it ended; return whether there is something to judge."""
    assert form.out is not None
    try:
        train(form)
    except UserError:
        if read_status(form.out, RUN) != "diverged":
            raise
    return read_status(form.out, RUN) != "diverged"


def _failure(form: Train) -> Failure:
    """Return the record of a run that diverged."""
    assert form.out is not None
    run = read_finished(form.out, RUN)
    config, dataset = run["config"], {k: v for k, v in run["config"]["dataset"].items() if k != "path"}
    training = {**config, "dataset": dataset}
    return Failure(
        failure_id=sha256(canonical_json(training))[:16],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=dataset,
        condition=config["condition"]["name"],
        method=registry.spec(registry.remake(Method, config["method"])),
        base=config["base"],
        training=training,
        reason=run["reason"],
        environment=run["provenance"],
    )


def _judge(cell: Cell, results: Path) -> None:
    """Draw and score a run in every way the study asks for."""
    for drawing in cell.drawings:
        floor = generate(drawing.floor)
        evaluate(Evaluate(images=generate(drawing.generate), no_control=floor, results=results))


def describe(design: Design) -> str:
    """Return what a study will do, in one paragraph."""
    updates = sum(cell.train.steps for cell in design.cells)
    drawings = sum(len(cell.drawings) for cell in design.cells)
    return (
        f"{design.name}: {design.description}\n"
        f"{design.build.size} training pairs, {len(design.cells)} runs, {updates} updates in all, "
        f"{drawings} sets of images; everything goes to {design.root}"
    )


def _status(design: Design) -> str:
    lines = [f"{cell.train.out}: {read_status(cell.train.out or Path(), RUN)}" for cell in design.cells]
    return "\n".join(lines)


def _run(form: Study) -> int:
    if form.action not in _ACTIONS:
        raise UserError(f'no action "{form.action}"; {did_you_mean(form.action, _ACTIONS)}')
    if form.action == "list":
        for name in _names():
            say(f"{name}: {read_design(name, None).description}")
        return 0
    if form.name is None:
        raise UserError(f"{form.action} needs the name of a study; {did_you_mean('', _names())}")
    design = read_design(form.name, form.out)
    if form.rank >= form.world:
        raise UserError(f"--rank {form.rank} is not below --world {form.world}; ranks count from 0")
    if form.action == "run":
        run(design, form.rank, form.world)
    else:
        say(describe(design) if form.action == "show" else _status(design))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return cli_main(Study, _run, argv, "python -m benchmark.study run smoke")


if __name__ == "__main__":
    raise SystemExit(main())
