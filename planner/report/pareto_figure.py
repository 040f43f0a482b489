"""A frontier as a picture: two objectives as axes, a third one as colour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.units import format_seconds, format_tokens
from planner.objectives import MEASURES
from planner.report.canvas import canvas
from planner.report.pareto import TITLES

if TYPE_CHECKING:
    from planner.whatif.pareto import FrontierDocument

BIGGER_IS_BETTER = {name for name, measure in MEASURES.items() if measure.higher}
_COLOUR = "#0b5cad"
_WIDE = 8.0
"""An axis is logarithmic where its values span more than this factor."""


def draw_frontier(document: FrontierDocument, path: Path) -> None:
    """Draw a frontier's points; with two objectives also the steps that no plan is beyond.

    Parameters
    ----------
    document
        With at least one point.
    path
        A .png or .svg file; overwritten if it exists.
    """
    names = list(document.points[0].values)
    columns = {name: [point.values[name] for point in document.points] for name in names}
    request = document.request
    with canvas(path, 8.0, 5.4) as figure:
        axes = figure.subplots()
        across, up = names[1], names[0]
        if len(names) == 2:
            _steps(axes, columns[across], columns[up])
            axes.plot(columns[across], columns[up], "o", color=_COLOUR, markersize=5)
        else:
            _coloured(figure, axes, columns, names)
        for name, setter in ((across, axes.set_xlabel), (up, axes.set_ylabel)):
            better = "more is better" if name in BIGGER_IS_BETTER else "less is better"
            setter(f"{TITLES[name]} ({better})")
        _scales(axes, columns[across], columns[up])
        _formats(axes, across, up)
        axes.set_axisbelow(True)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        whole = "" if document.coverage.complete else " (not complete)"
        axes.set_title(
            f"Frontier of {', '.join(document.of)}{whole}: {request['model']} at "
            f"{format_tokens(int(request['ctx']))} on {request['gpus']}, {len(document.points)} plans",
            fontsize=10,
        )


def _steps(axes: Any, across: list[float], up: list[float]) -> None:
    """The border of what is possible: a better value of one objective costs the next plan's of the other."""
    rows = sorted(zip(across, up, strict=True))
    axes.step(*zip(*rows, strict=True), where="post", color=_COLOUR, linewidth=1.0, alpha=0.6)


def _coloured(figure: Any, axes: Any, columns: dict[str, list[float]], names: list[str]) -> None:
    up, across, colour = names
    drawn = axes.scatter(columns[across], columns[up], c=columns[colour], cmap="viridis", s=28, edgecolors="none")
    bar = figure.colorbar(drawn, ax=axes)
    bar.set_label(f"{TITLES[colour]}")
    bar.ax.yaxis.set_major_formatter(lambda value, _: _text(colour, value))


def _scales(axes: Any, across: list[float], up: list[float]) -> None:
    for values, setter in ((across, axes.set_xscale), (up, axes.set_yscale)):
        if min(values) > 0 and max(values) / min(values) > _WIDE:
            setter("log")


def _formats(axes: Any, across: str, up: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for name, axis in ((across, axes.xaxis), (up, axes.yaxis)):
        if axis.get_scale() == "log":
            low, high = sorted(axis.get_view_interval())
            subs = (1.0, 2.0, 5.0) if high / max(low, 1e-300) < 300 else (1.0,)
            axis.set_major_locator(LogLocator(base=10.0, subs=subs))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(lambda value, _, name=name: _text(name, value))


def _text(name: str, value: float) -> str:
    if name.endswith("_s"):
        return format_seconds(value) if value > 0 else "0"
    if name.startswith("quality"):
        return f"{value:.3g}" if value < 0 else f"{value:.2%}"
    return f"{value:,.10g}"
