"""Plan and run a study: many trainings of one file, from data to board. `python -m benchmark.study run smoke`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from benchmark import registry
from benchmark.base.console import say
from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, sha256
from benchmark.base.forms import read_toml
from benchmark.build import Build, build, default_folder, make_plan
from benchmark.cli import main as cli_main
from benchmark.cli import non_negative, option, positive, typed
from benchmark.contracts.plugins import Method
from benchmark.contracts.records import Failure
from benchmark.engine.records import read_records, write_failure
from benchmark.engine.runs import RUN, last_noted, read_finished, read_status
from benchmark.engine.studies import STUDIES, combinations
from benchmark.evaluate import Evaluate, evaluate
from benchmark.generate import Generate, generate
from benchmark.leaderboard import Leaderboard, leaderboard
from benchmark.question import find_scorers
from benchmark.train import RunDiverged, Train, train

_ENTRIES = {"description": str, **dict.fromkeys(("build", "train", "generate", "evaluate", "grid", "together"), dict)}
_PLAIN = (str, int, float, Path)
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
    """Images a run is judged by, and the base's own images of the same samples, prompts and noise.

    Attributes:
        generate: The images.
        floor: The base's own.
        evaluate: How they are scored, one record for each condition that steered.
    """

    generate: Generate
    floor: Generate
    evaluate: tuple[Evaluate, ...]


@dataclass(frozen=True)
class Cell:
    """One run of a study, or several that also steer together, and everything they are judged by."""

    trains: tuple[Train, ...]
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
    document = _document(path)
    if "recipe" in document.get("build", {}):
        raise UserError(f"{path}: build.recipe is not read in a study; write what the recipe says under [build]")
    root = out or Path("runs") / path.stem
    wanted = _form(Build, document.get("build", {}), path)
    made = _form(
        Build, {**document.get("build", {}), "out": root / "datasets" / default_folder(make_plan(wanted)).name}, path
    )
    cells = tuple(_cells(document, made, root, path))
    return Design(path.stem, document.get("description", ""), root, made, cells)


def _document(path: Path) -> dict[str, Any]:
    """Return a study file's text and tables.

    Raises:
        UserError: It holds others, or something else in their place.
    """
    document = read_toml(path)
    for key, value in document.items():
        if key not in _ENTRIES:
            raise UserError(f'{path} has an unknown entry "{key}"; {did_you_mean(key, _ENTRIES)}')
        if not isinstance(value, _ENTRIES[key]):
            raise UserError(f"{path}: {key} has to be {'a text' if _ENTRIES[key] is str else 'a table'}")
    if not isinstance(document.get("grid", {}).get("generate", {}), dict):
        raise UserError(f"{path}: grid.generate has to be a table")
    return document


def _cells(document: dict[str, Any], made: Build, root: Path, path: Path) -> Iterator[Cell]:
    """Yield a cell for every combination of the grid's training fields; a run of it for every value of [together]."""
    grid = {key: values for key, values in document.get("grid", {}).items() if key != "generate"}
    for chosen in combinations(grid, path):
        trains = []
        for part in combinations(document.get("together", {}), path):
            label = _label({**chosen, **part}) or "run"
            common = {"dataset": made.out, "cache": root / "cache", "out": root / "runs" / label}
            trains.append(_form(Train, {**document.get("train", {}), **chosen, **part, **common}, path))
        sets = [(train,) for train in trains] + ([tuple(trains)] if len(trains) > 1 else [])
        yield Cell(tuple(trains), tuple(each for runs in sets for each in _drawings(document, runs, root, path)))


def _drawings(document: dict[str, Any], trains: tuple[Train, ...], root: Path, path: Path) -> Iterator[Drawing]:
    """Yield the images that runs steer together, for every combination of the grid's generating fields.

    What read the probes of a run reads its images too, unless the file names another referee for them.
    """
    outs = [train.out for train in trains if train.out is not None]
    for chosen in combinations(document.get("grid", {}).get("generate", {}), path):
        common = {**document.get("generate", {}), **chosen, "dataset": trains[0].dataset}
        bases = {"base": trains[0].base} if any("base" in key.split() for key in document.get("grid", {})) else {}
        names = ("+".join(out.name for out in outs), "_".join(filter(None, ("no_control", _label(bases)))))
        mine, floor = (root / "images" / "_".join(filter(None, (name, _label(chosen)))) for name in names)
        yield Drawing(
            generate=_form(Generate, {**common, "run": tuple(outs), "out": mine}, path),
            floor=_form(Generate, {**common, "base": trains[0].base, "out": floor}, path),
            evaluate=tuple(_scoring(document, train, mine, floor, root, path) for train in trains),
        )


def _scoring(document: dict[str, Any], train: Train, images: Path, floor: Path, root: Path, path: Path) -> Evaluate:
    """Return how images are scored by the condition of a run."""
    places = {"images": images, "no_control": floor, "results": root / "results", "cache": root / "cache"}
    own, settled = document.get("evaluate", {}), {**places, "cond": train.cond}
    if taken := own.keys() & settled.keys():
        raise UserError(f"{path}: evaluate.{min(taken)} follows from the runs; leave it out")
    referee = {"referee": train.referee} if train.referee else {}
    return _form(Evaluate, {**referee, **own, **settled}, path)


def _label(chosen: dict[str, Any]) -> str:
    """Return a folder name for a combination of fields."""
    texts = {key: "+".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in chosen.items()}
    if ".." in [part for text in texts.values() for part in Path(text).parts]:
        raise UserError(f'"{_joined(texts)}" would lead out of the study\'s folder; name the value without ".."')
    return _joined({key: quote(text, safe=" +,=.:") for key, text in texts.items()})  # a hub id has a slash


def _joined(texts: dict[str, str]) -> str:
    return "_".join(f"{key}-{text or 'none'}" for key, text in texts.items())


def _form(form: type[F], values: dict[str, Any], path: Path) -> F:
    """Return a command's form filled from a table of a study file."""
    known = [field.name for field in fields(form)]  # type: ignore[arg-type]
    unknown = next((key for key in values if key not in known), None)
    if unknown:
        raise UserError(f'{path}: {form.__name__.lower()} has no field "{unknown}"; {did_you_mean(unknown, known)}')
    return form(**{key: _value(form, key, value, path) for key, value in values.items()})


def _value(form: type[Any], name: str, value: Any, path: Path) -> Any:
    """Return a value of a study file as its option has it, held to what could be typed on the command line."""
    if any(field.name == name and field.default is False for field in fields(form)):
        if not isinstance(value, bool):
            raise UserError(f"{path}: {name} is true or false")
        return value
    several = isinstance(value, list | tuple)
    items = tuple(value) if several else (value,)
    texts = [str(item) for item in items]
    if not all(isinstance(item, _PLAIN) and text.isprintable() for item, text in zip(items, texts, strict=True)):
        raise UserError(f"{path}: {name} has to be a plain text or number, or a list of them")
    try:
        parsed = typed(form, {name: texts if several else texts[0]})[name]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    given = items if several else value
    return given if given == parsed else parsed  # a whole number stays one where a fraction could be: ids hold it


def _names() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def run(design: Design, rank: int = 0, world: int = 1) -> None:
    """Do what is left of a study: dataset, then train, generate and evaluate each cell, then the board.

    A run that diverges keeps that outcome, and the others go on; so they do where one cannot be made at all, as where
    its batch is larger than the data or finds no room on the GPU. Of several processes on one folder each does every
    `world`-th cell, from its `rank`; the last to end shows all.

    Raises:
        UserError: Runs that could not be made, after all others.
    """
    say(describe(design))
    build(design.build)
    mine = design.cells[rank::world]
    _prepare(design, rank, world)
    runs = [form for cell in mine for form in cell.trains]
    diverged, unmade = [], []
    for cell in mine:
        try:
            diverged += _do(cell, design.results)
        except UserError as error:
            say(f"left out: {error}")
            unmade.append(str(error))
    if diverged:
        say(f"{len(diverged)} of {len(runs)} runs diverged: {', '.join(diverged)}")
    if read_records(design.results):  # of any process: one whose runs all diverged adds them to the board too
        while not leaderboard(Leaderboard(results=design.results)) and world > 1:
            pass  # until nothing changes: another process may have written its board, of fewer records, after ours
        say(f"done: open {design.results / 'site' / 'index.html'}, or read {design.results / 'README.md'}")
    if unmade:
        raise UserError(
            f"{len(unmade)} of {len(mine)} cells could not be made, the first: {unmade[0]}; the others are done: "
            "mend it and run the command again"
        )


def _do(cell: Cell, results: Path) -> list[str]:
    """Train and judge the runs of a cell; return those that diverged."""
    gone = {form.out for form in cell.trains if form.out is not None and not _train(form)}
    for failure in _failures(cell, gone):
        write_failure(results, failure)
    _judge([drawing for drawing in cell.drawings if not gone & {*drawing.generate.run}])
    return sorted(map(str, gone))


def run_side_by_side(name: str, out: Path, workers: int) -> None:
    """Do a study in processes of one thread each: on a CPU, small models train faster so than one after another.

    Raises:
        UserError: One of them did not end well.
    """
    words = [sys.executable, "-m", "benchmark.study", "run", name, "--out", str(out), "--world", str(workers), "--rank"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([*words, str(rank)], env=environment) for rank in range(workers)]
    failed = sum(code != 0 for code in [process.wait() for process in processes])
    if failed:
        raise UserError(
            f"{failed} of {workers} processes ended with the error above; mend it and run the command again"
        )


def _train(form: Train) -> bool:
    """Train a run, or leave it as it ended; return whether there is something to judge."""
    assert form.out is not None
    try:
        train(form)
    except RunDiverged:
        return False
    return read_status(form.out, RUN) != "diverged"


def _failures(cell: Cell, gone: set[Path]) -> Iterator[Failure]:
    """Yield what is recorded of the runs that diverged: alone, and in every sum they were to steer in."""
    prompts: dict[tuple[Path, ...], set[str]] = {}
    for drawing in cell.drawings:
        prompts.setdefault(drawing.generate.run, set()).add(drawing.generate.prompts)
    for runs, settings in prompts.items():
        if lost := [run for run in runs if run in gone]:
            reason = read_finished(lost[0], RUN)["reason"]
            yield from _failures_of([read_finished(run, RUN) for run in runs], sorted(settings), reason)


def _failures_of(runs: list[dict[str, Any]], prompts: Sequence[str], reason: str) -> Iterator[Failure]:
    """Yield the failure of a run, or of several that were to steer together one for each condition."""
    parts = [{**run["config"], "dataset": {**run["config"]["dataset"]}} for run in runs]
    for part in parts:
        part["dataset"].pop("path")
    methods, conditions = zip(*((_method(part), part["condition"]["name"]) for part in parts), strict=True)
    alone = len(parts) == 1
    training, made_by = (parts[0], runs[0]["provenance"]) if alone else ({"parts": parts}, _together(runs))
    for condition in conditions:
        yield Failure(
            failure_id=sha256(canonical_json([training, condition, *prompts]))[:16],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dataset=parts[0]["dataset"],
            condition=condition,
            method=methods[0] if alone else "+".join(map("@".join, zip(methods, conditions, strict=True))),
            base=parts[0]["base"],
            training=training,
            prompts=tuple(prompts),
            reason=reason,
            environment=made_by,
        )


def _method(config: dict[str, Any]) -> str:
    return registry.spec(registry.remake(Method, config["method"]))


def _together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what made runs that steer together, on one base."""
    made_by = [run["provenance"] for run in runs]
    return {"parts": made_by, **{key: value for key, value in made_by[0].items() if key == "base_sha256"}}


def _prepare(design: Design, rank: int, world: int) -> None:
    """Find what scores need and draw the base's own images, so that what is missing shows before hours of training.

    Raises:
        UserError: A metric, referee or weights that are not there, too few samples, or prompts that cannot be drawn.
    """
    drawings = [drawing for cell in design.cells for drawing in cell.drawings]
    forms = [form for drawing in drawings for form in drawing.evaluate]
    for metric, referee, cond in {(form.metric, form.referee, str(form.cond)) for form in forms}:
        find_scorers(drawings[0].floor.dataset, cond, metric, referee)
    floors = list({drawing.floor.out: drawing.floor for drawing in drawings}.values())
    for floor in floors[rank::world]:
        generate(floor)


def _judge(drawings: list[Drawing]) -> None:
    """Draw and score runs in every way the study asks for."""
    for drawing in drawings:
        generate(drawing.floor)  # that of another process may not be whole yet
        generate(drawing.generate)
        for form in drawing.evaluate:
            evaluate(form)


def describe(design: Design) -> str:
    """Return what a study will do, in one paragraph."""
    trains = [form for cell in design.cells for form in cell.trains]
    updates = sum(form.steps for form in trains)
    drawings = sum(len(cell.drawings) for cell in design.cells)
    return (
        f"{design.name}: {design.description}\n"
        f"{design.build.size} training pairs, {len(trains)} runs, {updates} updates in all, "
        f"{drawings} sets of images; everything goes to {design.root}"
    )


def _status(design: Design) -> str:
    forms = [form for cell in design.cells for form in cell.trains]
    states = [_state(form) for form in forms]
    lines = [f"{form.out}: {state}" for form, state in zip(forms, states, strict=True)]
    ended = sum(state in ("finished", "diverged") for state in states)
    return "\n".join([*lines, f"{ended} of {len(forms)} trainings ended"])


def _state(form: Train) -> str:
    """Return how a training ended or how far it is: ``open, 381 of 1000 updates, the last noted 12 s ago``."""
    assert form.out is not None
    status, noted = read_status(form.out, RUN), last_noted(form.out)
    if status != "open" or noted is None:
        return status
    step, age = noted
    return f"open, {step} of {form.steps} updates, the last noted {age:.0f} s ago"


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
