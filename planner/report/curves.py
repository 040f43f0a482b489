"""The price of every limit as a picture: the best plan over the value of each limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.limits import is_floor
from planner.report.canvas import canvas
from planner.report.compare import WORDS

if TYPE_CHECKING:
    from planner.whatif.explained import Explanation, LimitPrice

_LINE, _NOW, _END = "#0b5cad", "#b3450b", "#555555"
_WIDE = 2
_MOST_LABELS = 4


def draw_curves(explanation: Explanation, path: Path) -> bool:
    """Draw one panel for each limit that has a curve; False where none has one.

    Parameters
    ----------
    explanation
        Of a plan.
    path
        A .png or .svg file; overwritten if it exists.
    """
    curves = [row for row in explanation.limits if len(row.curve) > 1]
    if not curves:
        return False
    columns = min(_WIDE, len(curves))
    rows = -(-len(curves) // columns)
    with canvas(path, 5.2 * columns, 3.4 * rows + 0.5) as figure:
        request = explanation.plan.request
        figure.suptitle(f"The best plan over each limit: {request['model']} on {request['gpus']}", fontsize=11)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, row in zip(grid.flat, curves, strict=False):
            _panel(axes, row, explanation.metric)
        for axes in grid.flat[len(curves) :]:
            axes.set_axis_off()
    return True


def _panel(axes: Any, row: LimitPrice, metric: str) -> None:
    limits, values = [p.limit for p in row.curve], [p.value for p in row.curve]
    # Between two questions the best plan is at least as good as at the tighter one.
    axes.step(limits, values, where="post", color=_LINE, linewidth=1.2, alpha=0.6)
    axes.plot(limits, values, "o", color=_LINE, markersize=4, label="best plan, solved again")
    axes.plot(limits[0], values[0], "o", color=_NOW, markersize=7, label=f"now: {row.now}")
    if row.until is not None:
        after = f", then {row.next.change}" if row.next else ""
        axes.axvline(row.until, color=_END, linestyle="--", linewidth=0.9, label=f"stops helping{after}")
    low, high = min(limits), max(limits)
    wide = low > 0 and high / low > 8
    if wide:
        axes.set_xscale("log")
    if is_floor(row.name):
        axes.invert_xaxis()
    _ticks(axes, row)
    gain = f": {row.gain:.1%} better with {row.lifted}" if row.gain is not None else ""
    axes.set(title=f"{row.now.partition(' ')[0] if row.now.startswith('--') else row.name}{gain}", ylabel=WORDS[metric])
    axes.title.set_fontsize(9)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=7.5, frameon=False)


def _ticks(axes: Any, row: LimitPrice) -> None:
    """Some of the asked values as one types them, far enough apart to be read."""
    import math

    points = [row.curve[0], row.curve[-1], *row.curve[1:-1]]
    span = [math.log(p.limit) if axes.get_xscale() == "log" else p.limit for p in points]
    width = max(span) - min(span)
    kept: list[int] = []
    for index in range(len(points)):
        if len(kept) < _MOST_LABELS and all(abs(span[index] - span[other]) > width / 5 for other in kept):
            kept.append(index)
    axes.set_xticks([points[i].limit for i in kept], [_short(points[i].text) for i in kept])
    axes.minorticks_off()


def _short(text: str) -> str:
    """``80 GiB HBM per GPU`` -> ``80 GiB``."""
    return text.partition(" HBM")[0].partition(" host")[0].partition(" NVMe")[0]
