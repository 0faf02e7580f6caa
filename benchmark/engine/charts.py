"""The board's curves, drawn by plotly: control over the size of the data, and over training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative

from benchmark.engine.board import Cell, Family, Section

_COLOURS = qualitative.Plotly
_CONTROL = "normalised control"


def size_chart(section: Section) -> str | None:
    """Return control over the number of pairs, a line for each method with its 95 % interval and every run.

    Cells that saw less than one epoch are left out: they say nothing about size.

    Returns:
        A piece of HTML, or None where no method was tried at two sizes.
    """
    families = [(family, cells) for family in section.families if len(cells := _whole(family)) > 1]
    if not families:
        return None
    figure = _figure("pairs (logarithmic)", _CONTROL)
    sizes_tried = sorted({cell.pairs for _, cells in families for cell in cells if cell.pairs})
    figure.update_xaxes(type="log", tickvals=sizes_tried, ticktext=[f"{size:,}" for size in sizes_tried])
    for i, (family, cells) in enumerate(families):
        sizes = [cell.pairs for cell in cells]
        spreads = [cell.control for cell in cells if cell.control]
        bounds = [(s.low if s.low is not None else s.iqm, s.high if s.high is not None else s.iqm) for s in spreads]
        _line(figure, _name(family), i, sizes, [s.iqm for s in spreads], bounds)
        points = [(cell.pairs, value) for cell in cells if cell.control for value in cell.control.values]
        xs, ys = zip(*points, strict=True)
        marker = {"color": _colour(i), "size": 6, "opacity": 0.5}
        figure.add_scatter(x=xs, y=ys, mode="markers", marker=marker, showlegend=False, hoverinfo="x+y")
    return _html(figure)


def training_chart(section: Section) -> str | None:
    """Return the probes' control over training, a line for each cell: mean, lowest and highest of its runs.

    Returns:
        A piece of HTML, or None where no run was probed.
    """
    cells = sorted(section.cells, key=lambda cell: (cell.rows[0].record.method, cell.pairs or 0))
    curves = [(cell, curve) for cell in cells if (curve := _curve(cell, section))]
    if not curves:
        return None
    figure = _figure("updates", f"{_CONTROL} of the probe")
    for i, (cell, curve) in enumerate(curves):
        values = [np.asarray(curve[step]) for step in sorted(curve)]
        bounds = [(float(v.min()), float(v.max())) for v in values]
        name = f"{cell.rows[0].record.method}, {cell.pairs} pairs"
        _line(figure, name, i, sorted(curve), [float(v.mean()) for v in values], bounds)
    return _html(figure)


def _whole(family: Family) -> list[Cell]:
    return [cell for cell in family.cells if cell.pairs and cell.control and not cell.single_pass]


def _name(family: Family) -> str:
    first = family.cells[0].rows[0]
    dirt = ", ".join(first.training.get("corrupt", []))
    return f"{first.record.method}{f', {dirt}' if dirt else ''}, {first.training['recipe']['steps']} updates"


def _curve(cell: Cell, section: Section) -> Mapping[int, list[float]]:
    """Return the probes of a cell's runs by update, where all of them were probed."""
    curve: dict[int, list[float]] = {}
    for row in cell.rows:
        for probe in row.probes:
            value = probe["probe"].get(f"{section.rows[0].headline}.normalised")
            if value is not None:
                curve.setdefault(int(probe["step"]), []).append(float(value))
    return {step: values for step, values in curve.items() if len(values) == len(cell.rows)}


def _figure(across: str, up: str) -> go.Figure:
    clear = "rgba(0,0,0,0)"
    grey = {"gridcolor": "rgba(128,128,128,.3)", "zerolinecolor": "rgba(128,128,128,.5)"}
    figure = go.Figure()
    figure.update_layout(
        height=380,
        margin={"l": 60, "r": 10, "t": 10, "b": 50},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font_color="grey",
        legend={"orientation": "h", "y": -0.25},
    )
    figure.update_xaxes(title=across, **grey)
    figure.update_yaxes(title=up, rangemode="tozero", **grey)  # a cut axis makes small differences large
    return figure


def _line(
    figure: go.Figure, name: str, i: int, xs: Sequence[Any], ys: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> None:
    """Add a line and its band; both answer to one entry of the legend."""
    around = [*xs, *reversed(xs)]
    band = [*(high for _, high in bounds), *(low for low, _ in reversed(bounds))]
    common = {"legendgroup": str(i), "name": _text(name)}
    hidden = {"hoverinfo": "skip", "showlegend": False, "mode": "lines", "line": {"width": 0}}
    figure.add_scatter(x=around, y=band, fill="toself", fillcolor=_colour(i), opacity=0.2, **hidden, **common)
    figure.add_scatter(x=list(xs), y=list(ys), mode="lines+markers", line={"color": _colour(i)}, **common)


def _colour(i: int) -> str:
    return str(_COLOURS[i % len(_COLOURS)])


def _text(name: str) -> str:
    """Return a name that plotly, which reads tags in labels, shows as it is."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _html(figure: go.Figure) -> str:
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )
    return html
