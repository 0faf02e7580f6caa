"""Make the board from result records alone: `python -m benchmark.leaderboard --results results --html results/site`."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from benchmark.base.console import say
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file
from benchmark.cli import main as cli_main
from benchmark.cli import option
from benchmark.contracts.records import Failure, Record, Score
from benchmark.engine.board import Section, sections
from benchmark.engine.cells import ANCHORS, Cell, Row
from benchmark.engine.claims import Verdict, judge, read_claims
from benchmark.engine.records import read_failures, read_records
from benchmark.numbers.efficiency import SHARE, Needed
from benchmark.numbers.seeds import ONSET, Share, Spread

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATES = Path(__file__).parent / "board"
CLAIMS = Path(__file__).parent / "claims.toml"


@dataclass(frozen=True)
class Leaderboard:
    """Render every record below a results folder: a Markdown table, a CSV file and a static site."""

    results: Path = option("results folder", Path("results"), Path)
    html: Path | None = option("folder of the site (default: RESULTS/site)", None, Path)
    check: bool = option("write nothing; exit 1 if the Markdown board is out of date", False)


def shown(score: Score | None) -> str:
    """Return a score as ``0.437 [0.421, 0.453]``, with more decimals where its interval is narrow, or a dash."""
    if score is None:
        return "-"
    low, high = (f"{value:.{score.digits}f}" for value in (score.low, score.high))
    return f"{shown_alone(score)} [{low}, {high}]"


def shown_alone(score: Score) -> str:
    """Return a score without its interval, with the decimals that it would have."""
    return f"{score.estimate:.{score.digits}f}"


def shown_spread(over_seeds: Spread | None) -> str:
    """Return a mean over runs as ``0.51 [0.42, 0.60]``, its t interval left out for one run, or a dash."""
    if over_seeds is None:
        return "-"
    if over_seeds.low is None or over_seeds.high is None:
        return f"{over_seeds.iqm:.3f} (one run)"
    return f"{over_seeds.iqm:.3f} [{over_seeds.low:.3f}, {over_seeds.high:.3f}]"


def shown_needed(found: Needed | None) -> str:
    """Return images needed as ``1,200 [800, 2,100]``, ``at most 100``, or a dash where one size was tried."""
    if found is None:
        return "-"
    interval = f" [{found.low:,.0f}, {found.high:,.0f}]"
    rising = ", best at the largest" if found.rising else ""
    return (
        f"at most {found.images:,.0f}{interval}{rising}" if found.at_most else f"{found.images:,.0f}{interval}{rising}"
    )


def shown_changes(cell: Cell) -> str:
    """Return what steering changed of the base's image scores: ``clip_score -0.5, fd-scenes -0.003``."""
    return ", ".join(f"{name} {change.iqm:+.3g}" for name, change in cell.changes.items())


def shown_onsets(cell: Cell) -> str:
    """Return when control began: ``200, 300 (2 of 3)``."""
    return f"{', '.join(map(str, cell.onsets)) or 'never'} ({len(cell.onsets)} of {len(cell.rows)})"


def shown_failures(failures: Share) -> str:
    """Return failed runs with the interval of their rate: ``0 of 3 [0.00, 0.56]``."""
    return f"{failures.count} of {failures.total} [{failures.low:.2f}, {failures.high:.2f}]"


def shown_pairs(row: Row) -> str:
    """Return how many pairs a run was trained on, and what was done to them on purpose."""
    dirt = ", ".join(row.training.get("corrupt", []))
    return f"{row.training.get('num_samples', '-')}{f' ({dirt})' if dirt else ''}"


def shown_epochs(row: Row) -> str:
    """Return images seen over images there are, with less than one called by its name."""
    if row.epochs is None:
        return "-"
    return f"{row.epochs:.2f}{' (single pass)' if row.epochs < 1 else ''}"


@dataclass(frozen=True)
class Board:
    """What is shown: records that may be compared, and what they say of the claims."""

    sections: list[Section]
    table: "pd.DataFrame"
    verdicts: list[Verdict]


def markdown(board: Board) -> str:
    """Return the board as Markdown, one table for each comparability key."""
    return _environment().get_template("board.md").render(board=board, anchors=ANCHORS)


def _environment() -> jinja2.Environment:
    from benchmark.engine.charts import size_chart, training_chart

    loader = jinja2.FileSystemLoader(_TEMPLATES)
    escaped = jinja2.select_autoescape(enabled_extensions=("html",))
    environment = jinja2.Environment(
        loader=loader, autoescape=escaped, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    numbers = (shown, shown_alone, shown_spread, shown_failures, shown_pairs, shown_epochs, shown_needed, shown_changes)
    helpers = (*numbers, shown_onsets, size_chart, training_chart)
    environment.globals |= {helper.__name__: helper for helper in helpers} | {"onset": ONSET, "share": SHARE}
    return environment


def write_site(board: Board, folder: Path) -> None:
    """Write a page for each record, the pictures, and last of all `index.html`; opens from disk without a network."""
    environment = _environment()
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    page = environment.get_template("record.html")
    for section in board.sections:
        for row in section.rows:
            strip = row.path.with_suffix(".webp")
            if strip.exists():
                shutil.copyfile(strip, folder / "pictures" / strip.name)
            text = row.record.model_dump_json(indent=2)
            # Not forced to disk one by one: ten thousand pages would take a minute, and can be made again.
            (folder / f"{row.record.evaluation_id}.html").write_text(
                page.render(row=row, anchors=ANCHORS, text=text), "utf-8"
            )
    _write_scripts(folder)
    index = environment.get_template("index.html").render(board=board, anchors=ANCHORS)
    replace_file(folder / "index.html", index.encode())


def _write_scripts(folder: Path) -> None:
    """Write what the pages share: their own style and script, and those of plotly and DataTables (from itables)."""
    import itables
    import plotly

    for name in ("board.css", "board.js"):
        shutil.copyfile(_TEMPLATES / name, folder / name)
    bundle = Path(itables.__file__).parent / "html"
    shutil.copyfile(bundle / "dt_bundle.css", folder / "tables.css")
    # A page opened from disk may not import a module file; one made of text in a script it may.
    text = json.dumps((bundle / "dt_bundle.js").read_text("utf-8"))
    blob = f'new Blob([{text}], {{ type: "text/javascript" }})'
    replace_file(folder / "tables.js", f"window.tables = import(URL.createObjectURL({blob}));\n".encode())
    shutil.copyfile(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", folder / "plotly.min.js")


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
    board = _board(records, list(read_failures(form.results).values()))
    text, path = markdown(board).encode(), form.results / "README.md"
    current = path.exists() and path.read_bytes() == text
    if form.check:
        return current
    site = form.html or form.results / "site"
    replace_file(path, text)
    replace_file(form.results / "leaderboard.csv", board.table.to_csv(index=False).encode())
    write_site(board, site)
    say(f"board: {path}, {form.results / 'leaderboard.csv'} and {site / 'index.html'}")
    return current


def _board(records: dict[Path, Record], failures: list[Failure]) -> Board:
    from benchmark.engine.frame import frame

    made = sections(records, failures)
    table = frame(made, failures)
    return Board(made, table, judge(read_claims(CLAIMS), table))


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
