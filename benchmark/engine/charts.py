"""The board's curves, drawn by plotly: control over what was varied and over training, its onset, and profiles."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from plotly.colors import qualitative
from plotly.io import to_html, to_json

from benchmark.base.files import canonical_json, sha256
from benchmark.engine.analysis import ENOUGH, Dial, dials, dirt, together
from benchmark.engine.board import Section
from benchmark.engine.cells import Cell, Family, names
from benchmark.numbers.profiles import profile

_COLOURS = qualitative.Plotly
_CONTROL = "normalised control"
_GREY = {"gridcolor": "rgba(128,128,128,.3)", "zerolinecolor": "rgba(128,128,128,.5)", "automargin": True}

Chart = dict[str, Any]  # data and layout as plotly.js takes them; its Python objects take longer to make than to draw
PROBED = ("Control over training", "When control began")  # headings of charts of what probes saw


def size_chart(section: Section) -> str | None:
    """Return control over the number of pairs, a line for each method with its 95 % interval and every run.

    Cells that saw less than one epoch are left out: they say nothing about size.

    Returns:
        A piece of HTML, or None where no method was tried at two sizes.
    """
    lines = [cells for cells in map(_whole, section.families) if len(cells) > 1]
    labels = names([cells[min(cells)] for cells in lines], sized=False)
    return _control_chart(section, "pairs", list(zip(labels, lines, strict=True)), logarithmic=True)


def dial_charts(section: Section) -> list[tuple[str, str | None]]:
    """Return a heading and a chart of control for every setting that was turned while all else stayed."""
    turned: dict[str, list[Dial]] = {}
    for dial in dials(section):
        turned.setdefault(dial.name, []).append(dial)
    return [
        (
            f"Control over {name.replace('_', ' ')}",
            _control_chart(section, name, [(dial.what, dial.cells) for dial in same], logarithmic=same[0].factors),
        )
        for name, same in turned.items()
    ]


def dirt_chart(section: Section) -> str | None:
    """Return control over the share of the pairs that is dirty, a line for each kind of dirt."""
    found = dirt(section)
    methods = len({one.what for one in found})
    lines = [(f"{one.what}, {one.name}" if methods > 1 else one.name, one.cells) for one in found]
    return _control_chart(section, "rate", lines, logarithmic=False)


def _control_chart(
    section: Section, across: str, lines: Sequence[tuple[str, Mapping[float, Cell]]], *, logarithmic: bool
) -> str | None:
    """Return control of cells over one of their settings: interquartile means, 95 % intervals, and every run."""
    if not lines:
        return None
    chart = _chart(f"{across} (logarithmic)" if logarithmic else across, _CONTROL)
    tried = sorted({at for _, cells in lines for at in cells})
    if logarithmic:
        chart["layout"]["xaxis"] |= {"type": "log", "tickvals": tried, "ticktext": [f"{at:,.10g}" for at in tried]}
    for i, (name, cells) in enumerate(lines):
        spreads = {at: cell.control for at, cell in cells.items() if cell.control}
        bounds = [
            (s.low if s.low is not None else s.iqm, s.high if s.high is not None else s.iqm) for s in spreads.values()
        ]
        _line(chart, name, i, list(spreads), [s.iqm for s in spreads.values()], bounds)
        xs, ys = zip(*[(at, value) for at, s in spreads.items() for value in s.values], strict=True)
        marker = {"color": _colour(i), "size": 6, "opacity": 0.5}
        dots = {"mode": "markers", "marker": marker, "showlegend": False, "hoverinfo": "x+y"}
        chart["data"].append({"type": "scatter", "x": xs, "y": ys, **dots})
    return _html(chart, section.key)


def training_chart(section: Section) -> str | None:
    """Return the probes' control over training, a line for each cell: mean, lowest and highest of its runs.

    Returns:
        A piece of HTML, or None where no run was probed.
    """
    curves = [(cell, curve) for cell in _ordered(section) if (curve := _curve(cell, section))]
    if not curves:
        return None
    chart = _chart("updates", f"{_CONTROL} of the probe")
    labels = names([cell for cell, _ in curves])
    for i, (_, curve) in enumerate(curves):
        values = [np.asarray(curve[step]) for step in sorted(curve)]
        bounds = [(float(v.min()), float(v.max())) for v in values]
        _line(chart, labels[i], i, sorted(curve), [float(v.mean()) for v in values], bounds)
    return _html(chart, section.key)


def onset_chart(section: Section) -> str | None:
    """Return the share of runs in which control has begun, over training, with its 95 % Wilson interval.

    A run in which it never began is censored at the end: its line does not reach 1.

    Returns:
        A piece of HTML, or None where no three probed runs differ in their seeds alone.
    """
    cells = [cell for cell in _ordered(section) if len(cell.rows) >= ENOUGH and all(row.probes for row in cell.rows)]
    if not cells:
        return None
    chart = _chart("updates", "share of runs that follow")
    for i, (cell, label) in enumerate(zip(cells, names(cells), strict=True)):
        found, last = cell.onsets, cell.training["recipe"]["steps"]
        reached = [*found.begun, *found.begun[-1:]]
        edges = [0, *found.steps, *([last] if reached else [])]
        shares = [0.0, *(one.count / one.total for one in reached)]
        bounds = [(0.0, 0.0), *((one.low, one.high) for one in reached)]
        _line(chart, f"{label}, median {found.median or 'beyond'}", i, edges, shares, bounds, stepped=True)
    return _html(chart, section.key)


def profile_chart(sections: Iterable[Section]) -> str | None:
    """Return the share of runs above each level of control, the mean over sections, with its 95 % band."""
    board = list(sections)
    recipes = together(board)
    if not recipes:
        return None
    chart = _chart(_CONTROL, "share of runs above")
    levels = np.linspace(0, max(1.0, *(recipe.values.max() for recipe in recipes)), 101)
    for i, recipe in enumerate(sorted(recipes, key=lambda one: _order(one.first))):  # the colours of the other charts
        found = profile(recipe.tasks, levels)
        bounds = list(zip(found.low.tolist(), found.high.tolist(), strict=True))
        _line(chart, recipe.name, i, levels.tolist(), found.shares.tolist(), bounds, stepped=True)
    return _html(chart, *(section.key for section in board))


def charts(section: Section) -> list[tuple[str, str]]:
    """Return a heading and a piece of HTML for every chart that a section has runs for."""
    drawn = [
        ("Control over the number of pairs", size_chart(section)),
        *dial_charts(section),
        ("Control over dirt", dirt_chart(section)),
        *zip(PROBED, (training_chart(section), onset_chart(section)), strict=True),
    ]
    return [(heading, chart) for heading, chart in drawn if chart]


def _whole(family: Family) -> dict[float, Cell]:
    return {cell.pairs: cell for cell in family.cells if cell.pairs and cell.control and not cell.single_pass}


def _ordered(section: Section) -> list[Cell]:
    return sorted(section.cells, key=_order)


def _order(cell: Cell) -> tuple[str, int]:
    return cell.method, cell.pairs or 0


def _curve(cell: Cell, section: Section) -> Mapping[int, list[float]]:
    """Return the probes of a cell's runs by update, where all of them were probed."""
    curve: dict[int, list[float]] = {}
    for row in cell.rows:
        for probe in row.probes:
            value = probe["probe"].get(f"{section.first.headline}.normalised")
            if value is not None:
                curve.setdefault(int(probe["step"]), []).append(float(value))
    return {step: values for step, values in curve.items() if len(values) == len(cell.rows)}


def _chart(across: str, up: str) -> Chart:
    clear = "rgba(0,0,0,0)"
    layout = {
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "font": {"color": "grey"},
        "legend": {"yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "xaxis": {"title": {"text": across}, **_GREY},
        # A cut axis makes small differences large.
        "yaxis": {"title": {"text": up}, "rangemode": "tozero", **_GREY},
    }
    return {"data": [], "layout": layout}


def _line(
    chart: Chart,
    name: str,
    i: int,
    xs: Sequence[Any],
    ys: Sequence[float],
    bounds: Sequence[tuple[float, float]],
    *,
    stepped: bool = False,
) -> None:
    """Add a line and its band; both answer to one entry of the legend."""
    if stepped:  # the band too: each value holds until the next
        xs = [x for pair in zip(xs, [*xs[1:], xs[-1]], strict=True) for x in pair]
        ys, bounds = [y for y in ys for _ in range(2)], [ends for ends in bounds for _ in range(2)]
    around = [*xs, *reversed(xs)]
    band = [*(high for _, high in bounds), *(low for low, _ in reversed(bounds))]
    common = {"type": "scatter", "legendgroup": str(i), "name": _text(name)}
    hidden = {"hoverinfo": "skip", "showlegend": False, "mode": "lines", "line": {"width": 0}}
    filled = {"fill": "toself", "fillcolor": _colour(i), "opacity": 0.2}
    mode = "lines" if stepped else "lines+markers"
    chart["data"] += [
        {"x": around, "y": band, **filled, **hidden, **common},
        {"x": list(xs), "y": list(ys), "mode": mode, "line": {"color": _colour(i)}, **common},
    ]


def _colour(i: int) -> str:
    return str(_COLOURS[i % len(_COLOURS)])


def _text(name: str) -> str:
    """Return a name that plotly, which reads tags in labels, shows as it is."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _html(chart: Chart, *keys: str) -> str:
    """Return a chart as HTML; those of one page need other keys or hold other lines."""
    lines = sum(trace.get("showlegend") is not False for trace in chart["data"])
    below = 60 + 20 * (lines if lines > 1 else 0)  # the legend stands below, or many lines would leave no room to draw
    margin = {"l": 60, "r": 10, "t": 30, "b": below}
    chart["layout"] |= {"height": 300 + below, "margin": margin, "showlegend": lines > 1}
    # Its name is not drawn by chance, or no page is made twice alike.
    name = sha256(canonical_json([*keys, to_json(chart, validate=False)]))[:16]
    html: str = to_html(
        chart,
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True},
        validate=False,
        div_id=f"chart-{name}",
    )
    return html
