"""Make the board from result records alone: `python -m benchmark.leaderboard --results results --html results/site`."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file
from benchmark.cli import main as cli_main
from benchmark.cli import option
from benchmark.contracts.records import Anchored, Record, Score
from benchmark.engine.records import read_records

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATES = Path(__file__).parent / "board"
_ANCHORS = ("real", "vae", "run", "no_control", "shuffled")


@dataclass(frozen=True)
class Leaderboard:
    """Render every record below a results folder: a Markdown table, a CSV file and a static site."""

    results: Path = option("results folder", Path("results"), Path)
    html: Path | None = option("folder of the site (default: RESULTS/site)", None, Path)
    check: bool = option("write nothing; exit 1 if the Markdown board is out of date", False)


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
    def epochs(self) -> float | None:
        """Images seen over images there are."""
        if not self.training:
            return None
        recipe = self.training["recipe"]
        return float(recipe["steps"] * recipe["batch"] / self.training["num_samples"])


@dataclass(frozen=True)
class Section:
    """Rows that may be compared: they share a comparability key."""

    key: str
    title: str
    rows: tuple[Row, ...]


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


def shown(score: Score | None, digits: int = 3) -> str:
    """Return a score as ``0.437 [0.421, 0.453]``, or a dash."""
    if score is None:
        return "-"
    return f"{score.estimate:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


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
                "n": record.dataset["n"],
                "updates": row.training.get("recipe", {}).get("steps"),
                "epochs": row.epochs,
            }
            normalised = row.control.normalised
            cells |= _cells("normalised_control", normalised) if normalised else {}
            for name in _ANCHORS:
                cells |= _cells(f"{row.headline}_{name}", getattr(row.control, name))
            for prefix, scores in (("", record.scores), ("no_control_", record.floor_scores)):
                for score in scores:
                    cells |= _cells(prefix + score.name, score)
            rows.append(cells | {"record": row.path.name})
    return pd.DataFrame(rows)


def _cells(name: str, score: Score) -> dict[str, float]:
    return {name: score.estimate, f"{name}_low": score.low, f"{name}_high": score.high}


def markdown(board: list[Section]) -> str:
    """Return the board as Markdown, one table for each comparability key."""
    return _environment().get_template("board.md").render(sections=board, shown=shown, anchors=_ANCHORS)


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    escaped = jinja2.select_autoescape(enabled_extensions=("html",))
    return jinja2.Environment(
        loader=loader, autoescape=escaped, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def write_site(board: list[Section], folder: Path) -> None:
    """Write `index.html`, a page for each record and the pictures; opens from disk without a network."""
    environment = _environment()
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    page = environment.get_template("index.html").render(sections=board, shown=shown, anchors=_ANCHORS)
    replace_file(folder / "index.html", page.encode())
    for section in board:
        for row in section.rows:
            strip = row.path.with_suffix(".webp")
            if strip.exists():
                shutil.copyfile(strip, folder / "pictures" / strip.name)
            text = json.dumps(row.record.model_dump(mode="json"), indent=2, ensure_ascii=False)
            page = environment.get_template("record.html").render(row=row, shown=shown, anchors=_ANCHORS, text=text)
            replace_file(folder / f"{row.record.evaluation_id}.html", page.encode())
    shutil.copyfile(_TEMPLATES / "board.css", folder / "board.css")
    shutil.copyfile(_TEMPLATES / "board.js", folder / "board.js")


def leaderboard(form: Leaderboard) -> bool:
    """Render the board, or with --check compare it; return whether the Markdown board was up to date.

    Raises:
        UserError: No records, or one that is damaged.
    """
    records = read_records(form.results)
    if not records:
        raise UserError(
            f"{form.results} holds no record; make one with python -m benchmark.evaluate --results {form.results}"
        )
    board = sections(records)
    text, path = markdown(board).encode(), form.results / "README.md"
    current = path.exists() and path.read_bytes() == text
    if form.check:
        return current
    site = form.html or form.results / "site"
    replace_file(path, text)
    replace_file(form.results / "leaderboard.csv", frame(board).to_csv(index=False).encode())
    write_site(board, site)
    say(f"board: {path}, {form.results / 'leaderboard.csv'} and {site / 'index.html'}")
    return current


def _run(form: Leaderboard) -> int:
    current = leaderboard(form)
    if form.check:
        verdict = "up to date" if current else "out of date: run the command without --check"
        say(f"{form.results / 'README.md'} is {verdict}")
    return int(form.check and not current)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    return cli_main(Leaderboard, _run, argv, "python -m benchmark.leaderboard --results results --html results/site")


if __name__ == "__main__":
    raise SystemExit(main())
