"""The paper's four metrics over context length, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.paper.analysis import PAPER, Analysis, Curve
from planner.paper.comparison import Comparison
from planner.paper.view import Metrics
from planner.report.canvas import canvas

_COLOURS = ("#b3450b", "#0b5cad", "#2f7d32", "#6a3d9a")


@dataclass(frozen=True, slots=True)
class _Panel:
    """One of the four metrics, and where its printed values are labelled."""

    title: str
    axis: str
    value: Callable[[Metrics], float]
    printed: tuple[tuple[str, int], ...]
    """Ids of values printed for one A100, and their context [tokens]."""
    label_at: tuple[int, int]
    """Offset of the labels [points]."""
    side: str
    """Side of the label that is at the offset."""


_PANELS = (
    _Panel(
        "Concurrency: bound by HBM size",
        "KV caches that fit beside the weights",
        lambda m: m.users,
        (("users-1-4k", 4_000), ("users-1-50k", 50_000)),
        (8, 8),
        "left",
    ),
    _Panel(
        "Prefill: bound by FLOP/s",
        "prefill [s]",
        lambda m: m.prefill_s,
        (("prefill-4k", 4_000), ("prefill-50k", 50_000)),
        (-6, 5),
        "right",
    ),
    _Panel(
        "Decode: bound by HBM bandwidth",
        "decode of one answer [s]",
        lambda m: m.decode_s,
        (("decode-4k", 4_000), ("decode-50k", 50_000)),
        (0, -14),
        "center",
    ),
    _Panel(
        "Context switch: bound by PCIe bandwidth",
        "one cache out, one in [s]",
        lambda m: m.switch_s,
        (("switch-50k", 50_000),),
        (-6, 5),
        "right",
    ),
)
_MARKERS = {"found": "^", "secondary": "o", "derived": "v", "recalled": "s"}
"""How a printed value is drawn, by its provenance."""
_TICKS = {1_000: "1K", 4_000: "4K", 10_000: "10K", 50_000: "50K", 100_000: "100K", 1_000_000: "1M"}


def draw(curves: Sequence[Curve], analysis: Analysis, path: Path) -> None:
    """Draw the four metrics, one line per replica, with the printed values as points.

    Parameters
    ----------
    curves
        From `planner.paper.analysis.curves`.
    analysis
        For the printed values.
    path
        A .png or .svg file; overwritten if it exists.
    """
    with canvas(path, 10.0, 7.4) as figure:
        tokens = analysis.conventions.output_tokens
        figure.suptitle(
            f"Yi-34B at theoretical peak: four metrics over context length\n{PAPER}; answers of {tokens} tokens",
            fontsize=11,
        )
        grid = figure.subplots(2, 2)
        for axes, panel in zip(grid.flat, _PANELS, strict=True):
            _draw_panel(axes, panel, curves, analysis.comparisons)
        _mark_capacity(grid[0, 0])
        figure.supxlabel("context [tokens]", fontsize=9)


def _draw_panel(axes: Any, panel: _Panel, curves: Sequence[Curve], comparisons: Sequence[Comparison]) -> None:
    from matplotlib.ticker import LogLocator

    for curve, colour in zip(curves, _COLOURS, strict=False):
        heights = [panel.value(point) for point in curve.metrics]
        axes.plot(curve.tokens, heights, color=colour, label=f"{curve.gpus}x A100 80 GB")
    printed = {row.printed.id: row.printed for row in comparisons}
    for name, tokens in panel.printed:
        said = printed[name]
        axes.plot(tokens, said.value, _MARKERS[said.source.provenance], color="black", mfc="white")
        axes.annotate(
            said.text,
            (tokens, said.value),
            xytext=panel.label_at,
            textcoords="offset points",
            ha=panel.side,
            fontsize=8,
        )
    for kind in dict.fromkeys(printed[name].source.provenance for name, _ in panel.printed):
        axes.plot([], [], _MARKERS[kind], color="black", mfc="white", label=f"printed, 1x A100 ({kind})")
    axes.set(title=panel.title, ylabel=panel.axis, xscale="log", yscale="log")
    axes.set_xticks(list(_TICKS), list(_TICKS.values()))
    axes.yaxis.set_major_locator(LogLocator(base=10.0, subs=_ticks_per_decade(axes)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda height, _: f"{height:g}")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)


def _ticks_per_decade(axes: Any) -> tuple[float, ...]:
    """1, 2 and 5 of each decade where the axis spans few, else only 1."""
    low, high = axes.get_ylim()
    return (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)


def _mark_capacity(axes: Any) -> None:
    """Mark where not even one cache fits."""
    axes.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axes.text(1_050, 0.55, "below 1: not even one cache fits", fontsize=7.5, color="grey")
