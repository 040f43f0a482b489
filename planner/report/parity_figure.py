"""Cost per interaction over context length, as a picture with logarithmic axes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.units import format_tokens
from planner.report.canvas import canvas

if TYPE_CHECKING:
    from planner.whatif.parity_document import ParityDocument, Series

_COLOURS = {"uncompressed": "#6b6b6b", "deployable": "#0b5cad", "published": "#2f7d32"}
_MARKERS = {"uncompressed": "s", "deployable": "o", "published": "^"}
_TICKS = (4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_000_000, 2_000_000, 4_000_000, 10_000_000)


def draw_parity(document: ParityDocument, path: Path) -> None:
    """Draw each series, filled where it was asked for and hollow where a crossing was looked for.

    Parameters
    ----------
    document
        With at least one plan.
    path
        A .png or .svg file; overwritten if it exists.
    """
    from matplotlib.ticker import LogLocator

    with canvas(path, 8.6, 5.6) as figure:
        axes = figure.subplots()
        for series in document.series:
            _draw_series(axes, document, series)
        axes.set(xscale="log", yscale="log")
        _draw_thresholds(axes, document)
        axes.set_xlabel("context [tokens]")
        axes.set_ylabel(f"{document.unit} per interaction")
        low, high = axes.get_xlim()
        ticks = [tick for tick in _TICKS if low <= tick <= high]
        axes.set_xticks(ticks, [format_tokens(tick) for tick in ticks])
        axes.yaxis.set_major_locator(LogLocator(base=10.0))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.12f}".rstrip("0").rstrip("."))
        axes.minorticks_off()
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        if document.window_tokens < document.contexts[-1]:
            axes.axvline(document.window_tokens, color="black", linewidth=0.8, linestyle=":")
            axes.annotate(
                "trained window",
                (document.window_tokens, 0.02),
                xycoords=("data", "axes fraction"),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
            )
        axes.legend(loc="upper left", framealpha=1.0, edgecolor="white")
        axes.set_title(f"Cost parity: {document.model} on {document.request['gpus']}", fontsize=11)


def _draw_series(axes: Any, document: ParityDocument, series: Series) -> None:
    colour = _COLOURS[series.name]
    rows = [(point.ctx, point.cost) for point in series.points if point.cost is not None]
    if not rows:
        return
    axes.plot(*zip(*rows, strict=True), color=colour, linewidth=1.2)
    asked = [row for row in rows if row[0] in document.contexts]
    between = [row for row in rows if row[0] not in document.contexts]
    if asked:
        axes.plot(*zip(*asked, strict=True), _MARKERS[series.name], color=colour, markersize=5, label=series.name)
    if between:
        axes.plot(*zip(*between, strict=True), _MARKERS[series.name], color=colour, mfc="white", markersize=3.5)


def _draw_thresholds(axes: Any, document: ParityDocument) -> None:
    """Lines at multiples of the cost at 4K."""
    if document.base_cost is None:
        return
    for multiple in (1.0, *(crossing.threshold for crossing in document.series[0].crossings), 100.0, 1000.0):
        height = document.base_cost * multiple
        if height > axes.get_ylim()[1]:
            continue
        axes.axhline(height, color="#b3450b", linewidth=0.7, linestyle="--", alpha=0.7)
        if multiple == 1.1:  # Too close to the line of 4K itself for a text of its own.
            continue
        axes.annotate(
            "4K uncompressed" if multiple == 1.0 else f"{multiple:g} x",
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color="#b3450b",
        )
