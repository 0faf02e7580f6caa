"""Make the board from result records alone: `python -m benchmark.leaderboard --results results --html results/site`."""

import gc
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jinja2
from markupsafe import Markup, escape

from benchmark.base.console import plain, say
from benchmark.base.errors import UserError
from benchmark.base.files import replace_file
from benchmark.cli import main as cli_main
from benchmark.cli import option
from benchmark.contracts.records import Anchored, Failure, Record, Score
from benchmark.engine.analysis import Dial, comparisons, dials, dirt, together
from benchmark.engine.board import Section, counted, sections
from benchmark.engine.cells import ANCHORS, Cell, Row
from benchmark.engine.claims import Verdict, judge, read_claims
from benchmark.engine.executors import beside
from benchmark.engine.pages import DatasetPage, StudyPage, dataset_pages, study_pages
from benchmark.engine.records import read_beside, read_failures, read_invalidated, read_records
from benchmark.engine.studies import read_studies
from benchmark.numbers.efficiency import SHARE, Needed
from benchmark.numbers.improvement import Improvement
from benchmark.numbers.seeds import ONSET, Share, Spread
from benchmark.numbers.sensitivity import Region

if TYPE_CHECKING:
    import pandas as pd

_TEMPLATES = Path(__file__).parent / "board"
_OF_THE_BASE = ("clip_score", "fd-", "fid")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
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
    digits = score.digits
    return f"{score.estimate:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def shown_alone(score: Score) -> str:
    """Return a score without its interval, with the decimals that it would have."""
    return f"{score.estimate:.{score.digits}f}"


def shown_anchors(score: Anchored) -> list[str]:
    """Return a score under every anchor, then normalised and as a gain over other samples' maps."""
    return [shown(getattr(score, name)) for name in (*ANCHORS, "normalised", "gain")]


def shown_scores(row: Row) -> list[str]:
    """Return a run's normalised control, its headline, and every image score with the base's own beside it."""
    images = (shown(score) for pair in row.scores for score in pair)
    return [shown(row.control.normalised), shown(row.control.run), *images]


def as_cells(texts: Iterable[str], tag: str = "td") -> Markup:
    """Return texts as cells of an HTML table: in one piece, since a template takes several times as long."""
    return Markup("".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts))


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
    """Return what steering changed of the base: ``clip_score -0.5 [-0.7, -0.3], fd-scenes -0.003``.

    Of the image scores these are Frechet distances and CLIP scores; pages of runs have them all.
    """
    named = ((name, change) for name, change in cell.changes.items() if name.startswith(_OF_THE_BASE))
    return ", ".join(f"{name} {_signed(change)}" for name, change in named)


def _signed(change: Spread) -> str:
    low, high = change.low, change.high
    return f"{change.iqm:+.3g}" + (f" [{low:+.3g}, {high:+.3g}]" if low is not None and high is not None else "")


def shown_onsets(cell: Cell) -> str:
    """Return when control began in each run: ``200, 300 (2 of 3)``, or a dash where none was probed."""
    if cell.failures is None:
        return "-"
    began = sorted(row.onset for row in cell.rows if row.onset is not None)
    return f"{', '.join(map(str, began)) or 'never'} ({len(began)} of {cell.failures.total})"


def shown_worst(over_seeds: Spread | None) -> str:
    """Return the worst run as ``0.531``, or a dash."""
    return f"{over_seeds.worst:.3f}" if over_seeds else "-"


def shown_improvement(found: Improvement) -> str:
    """Return how often one side beats the other: ``0.89 [0.56, 1.00]``."""
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def shown_values(cells: Mapping[float, Cell]) -> str:
    """Return the values of a setting that were tried, with their runs: ``0.0001 (3), 0.001 (3)``."""
    return ", ".join(f"{value:g} ({cell.num_runs})" for value, cell in cells.items())


def shown_end(found: Region | None, end: Literal["start", "end"]) -> str:
    """Return an end of a region, ``0.00033``, or ``0.001 or beyond`` where it is the last value tried."""
    if found is None:
        return "-"
    is_open = found.open_below if end == "start" else found.open_above
    return f"{getattr(found, end):.3g}{' or beyond' if is_open else ''}"


def shown_width(dial: Dial) -> str:
    """Return the width of a region: ``a factor of 12 [8.1, 15]``, ``at least 0.4 [0.3, 0.5]``, or a dash."""
    found = dial.region
    if found is None:
        return "-"
    least, unit = "at least " if found.open_below or found.open_above else "", "a factor of " if dial.factors else ""
    return f"{least}{unit}{found.width:.3g} [{found.low:.3g}, {found.high:.3g}]"


def shown_failures(failures: Share | None) -> str:
    """Return failed runs with the interval of their rate: ``0 of 3 [0.00, 0.56]``, or a dash where none was probed."""
    if failures is None:
        return "-"
    return f"{failures.count} of {failures.total} [{failures.low:.2f}, {failures.high:.2f}]"


def shown_pairs(runs: Row | Cell) -> str:
    """Return how many pairs were trained on, and what was done to them on purpose."""
    dirt = ", ".join(runs.training.get("corrupt", []))
    return f"{runs.training.get('num_samples', '-')}{f' ({dirt})' if dirt else ''}"


def shown_updates(runs: Row | Cell) -> str:
    """Return the updates of a training, or a dash for a released ControlNet."""
    return str(runs.training["recipe"]["steps"]) if runs.training else "-"


def shown_epochs(runs: Row | Cell) -> str:
    """Return images seen over images there are, with less than one called by its name."""
    if runs.epochs is None:
        return "-"
    return f"{runs.epochs:.2f}{' (single pass)' if runs.epochs < 1 else ''}"


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def made_by(record: Record) -> list[tuple[str, str]]:
    """Return what was done for a record and by which command, in its order, as far as it is known.

    A released ControlNet was trained by no command of ours.
    """
    environment = record.environment
    training = environment.get("training") or {}
    drawn = zip(("Drawn", "Drawn without control"), environment.get("drawing", ()), strict=False)
    commands = [
        ("Data built", environment.get("building")),
        *(("Trained", part.get("command")) for part in training.get("parts", [training])),
        *drawn,
        (f"Scored {record.created}", environment["command"]),
    ]
    return [(what, command) for what, command in commands if command]


@dataclass(frozen=True)
class Board:
    """What is shown: records that may be compared, what they say of the claims, and the pages besides each run's."""

    sections: list[Section]
    table: "pd.DataFrame"
    verdicts: list[Verdict]
    studies: list[StudyPage]
    datasets: list[DatasetPage]


def markdown(board: Board) -> str:
    """Return the board as Markdown, one table for each comparability key."""
    return _environment(_in_a_cell).get_template("board.md").render(board=board)


def _in_a_cell(value: object) -> object:
    """Return what a Markdown template shows: a text ends no cell, and is no tag, no link and nothing unprintable.

    What a macro made is made of such texts already; the template says so with ``safe``.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = plain(" ".join(value.split()) if value.strip() else value)
    return text.replace("|", "\\|").replace("<", "&lt;").replace("](", "]\\(")


def _csv(table: "pd.DataFrame") -> bytes:
    """Return a table as CSV in which no text is a formula of a spreadsheet: one that would be begins with a quote."""

    def inert(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

    words = table.select_dtypes(exclude="number").columns
    tame = table.assign(**{name: table[name].map(inert) for name in words}).rename(columns=inert)
    text: str = tame.to_csv(index=False)
    return text.encode()


def _environment(finalize: Callable[[object], object] | None = None) -> jinja2.Environment:
    from benchmark.engine.charts import PROBED, charts, profile_chart
    from benchmark.engine.pictures import STRIP_SIDE, strip_corner

    loader = jinja2.FileSystemLoader(_TEMPLATES)
    escaped = jinja2.select_autoescape(enabled_extensions=("html",))
    environment = jinja2.Environment(
        loader=loader,
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    numbers = (shown, shown_alone, shown_spread, shown_worst, shown_failures, shown_needed, shown_changes, shown_onsets)
    settings = (shown_pairs, shown_updates, shown_epochs, shown_values, shown_end, shown_width, shown_improvement)
    words = (one_line, made_by, as_cells, shown_anchors, shown_scores)
    helpers = (*numbers, *settings, *words, charts, profile_chart, strip_corner, comparisons, dials, dirt, together)
    environment.globals |= {helper.__name__: helper for helper in helpers}
    environment.globals |= {"onset": ONSET, "share": SHARE, "anchors": ANCHORS, "probed": PROBED, "side": STRIP_SIDE}
    environment.globals["anchor_heads"] = as_cells((name.replace("_", " ") for name in ANCHORS), "th")
    return environment


def write_board(board: Board, path: Path, site: Path) -> bytes:
    """Write the Markdown board, the CSV file beside it, and the site; return the Markdown.

    The site opens from disk, offline; its `index.html` is written last of all.
    """
    (site / "pictures").mkdir(parents=True, exist_ok=True)
    with beside(lambda: _write_records(board, site)):  # a third of the work
        text = markdown(board).encode()
        replace_file(path, text)
        replace_file(path.parent / "leaderboard.csv", _csv(board.table))
        index = _write_pages(board, site)
    replace_file(site / "index.html", index.encode())
    return text


def _write_pages(board: Board, folder: Path) -> str:
    """Write a page for each dataset and study, and what pages share; return the page that leads to them."""
    environment = _environment()
    pages = [("dataset", dataset) for dataset in board.datasets] + [("study", study) for study in board.studies]
    for kind, page in pages:
        html = environment.get_template(f"{kind}.html").render({kind: page})
        replace_file(folder / page.page, html.encode())
    _write_scripts(folder)
    return environment.get_template("index.html").render(board=board)


def _write_records(board: Board, folder: Path) -> None:
    """Write a page for each record."""
    environment = _environment()
    for dataset in board.datasets:
        for section in dataset.sections:
            _write_section(environment, section, dataset, board.studies, folder)


def _write_section(
    environment: jinja2.Environment, section: Section, dataset: DatasetPage, studies: list[StudyPage], folder: Path
) -> None:
    page = environment.get_template("record.html")
    page.globals = dict(page.globals)  # a chain of mappings, which jinja would go through for every page
    rows = [(row, None) for row in section.rows] + [(aside.row, aside.why) for aside in section.aside]
    for row, why in rows:
        strip, name = read_beside(row.path, row.record, ".webp"), row.record.evaluation_id
        if strip is not None:
            _keep(folder / "pictures" / f"{name}.webp", strip)
        text = row.path.read_text("utf-8")
        its = [study for study in studies if name in study.ids]
        html = page.render(row=row, why=why, text=text, dataset=dataset, studies=its)
        _keep(folder / f"{name}.html", html.encode())


def _keep(path: Path, data: bytes) -> None:
    """Write a file that does not hold this already; one that was broken off does not, and is written by the next run.

    Not forced to disk one by one: ten thousand pages would take a minute. To cut an old one off costs milliseconds too.
    """
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


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


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no cycles: every record is kept to the end, and to go through all of them takes a fifth of the time.

    Nor when the process ends: what there is by then is never looked at again, which a caller that goes on has to bear.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@_uncollected()
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
    board = _board(records, list(read_failures(form.results).values()), form.results)
    path, site = form.results / "README.md", form.html or form.results / "site"
    before = path.read_bytes() if path.exists() else None
    if form.check:
        return before == markdown(board).encode()
    after = write_board(board, path, site)
    say(f"board: {path}, {form.results / 'leaderboard.csv'} and {site / 'index.html'}")
    return before == after


def _board(records: dict[Path, Record], failures: list[Failure], results: Path) -> Board:
    from benchmark.engine.frame import frame

    ids = {record.evaluation_id for record in records.values()} | {failure.failure_id for failure in failures}
    invalidated = read_invalidated(results, ids)
    counting = counted(failures, invalidated)
    made = sections(records, counting, invalidated)
    table = frame(made, counting)
    verdicts = judge(read_claims(CLAIMS), table)
    studies = study_pages(read_studies(), records, counting, invalidated, verdicts)
    return Board(made, table, verdicts, studies, dataset_pages(made, studies))


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
