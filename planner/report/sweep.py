"""The rows of a sweep for people: a table in the terminal, and a figure over the first numeric field.

Both read the rows that the results file holds, so that every number is the file's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from catalog.units import format_seconds
from planner.report.amounts import field_text, number
from planner.report.canvas import canvas
from planner.service import DIMENSIONS

Row = dict[str, Any]

MOST_ROWS = 100
"""So many rows are printed; the file has all."""
MOST_REASONS = 10
PIPED_WIDTH = 160
"""Characters of a line where no terminal says how wide it is."""
PANELS = {
    "metrics.interactions_per_hour": "interactions/h",
    "metrics.users": "users",
    "metrics.usd_per_interaction": "USD per interaction",
}
"""What the figure shows, where some plan has it."""
OBJECTIVES = {"latency_s": "latency [s]", "quality_loss_at_confidence": "quality loss at confidence"}
"""Objectives that none of the panels shows."""
MOST_TICKS = 8
MOST_BANDS = 6
"""With more lines, the intervals of one would hide the others."""
MARKERS = "os^Dv<>Pp*hX"


def point_text(row: Row, fields: Sequence[str]) -> str:
    """A point by its fields, as one would type them: ``ctx=1M gpus=8xA100``."""
    return " ".join(f"{field}={field_text(field, row[field])}" for field in fields) or "the point"


def print_sweep(rows: Sequence[Row], fields: Sequence[str]) -> None:
    """Print the plans of a sweep side by side, and why some points have none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH)
    console.print(_table(rows[:MOST_ROWS], fields))
    if len(rows) > MOST_ROWS:
        console.print(f"... and {len(rows) - MOST_ROWS} more rows in the file")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(f"{point_text(row, fields)} ({row['status']})")
    for reason, points in list(reasons.items())[:MOST_REASONS]:
        shown = ", ".join(points[:4]) + (f" and {len(points) - 4} more" if len(points) > 4 else "")
        console.print(Text(f"\n{shown}:\n  {reason}"))
    if len(reasons) > MOST_REASONS:
        console.print(f"\n... and {len(reasons) - MOST_REASONS} more reasons in the file")


def _table(rows: Sequence[Row], fields: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for field in fields:
        table.add_column(field, overflow="fold")
    for name in ("status", "parallel", "cache"):
        table.add_column(name, overflow="fold")
    for name in ("interactions/h", "users", "TTFT", "TPOT", "USD/interaction"):
        table.add_column(name, justify="right")
    for row in rows:
        shown = [Text(field_text(field, row[field])) for field in fields]
        table.add_row(*shown, *([row["status"]] if row.get("decision.groups.0.engine") is None else _plan_cells(row)))
    return table


def _plan_cells(row: Row) -> list[str]:
    usd = row["metrics.usd_per_interaction"]
    return [
        row["status"],
        _parallel_text(row),
        _cache_text(row),
        number(row["metrics.interactions_per_hour"]),
        number(row["metrics.users"]),
        format_seconds(row["metrics.latency.ttft_s.full"]),
        _seconds(row["metrics.latency.itl_s.full"]),
        "-" if usd is None else f"{usd:.3g}",
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else format_seconds(value)


def _parallel_text(row: Row) -> str:
    """How a plan splits the model: ``tp8 x 2`` is two replicas over 8 GPUs each."""
    texts = []
    for path in _groups(row):
        role = row[f"{path}.role"]
        texts.append(_split(row, path) + ("" if role == "serve" else f" {role}"))
    return " + ".join(texts)


def _groups(row: Row) -> list[str]:
    """Paths of a plan's groups."""
    paths: list[str] = []
    while row.get(f"decision.groups.{len(paths)}.role") is not None:
        paths.append(f"decision.groups.{len(paths)}")
    return paths


def _split(row: Row, path: str) -> str:
    parts = [(name, row[f"{path}.parallel.{name}"]) for name in ("tp", "pp", "dcp", "pcp", "ep")]
    text = " ".join(f"{name}{count}" for name, count in parts if count is not None and count > 1) or "tp1"
    return f"{text} x {row[f'{path}.replicas']}"


def _cache_text(row: Row) -> str:
    paths = [f"{group}.compression.{name}" for group in _groups(row) for name in DIMENSIONS]
    chosen = [row[f"{path}.point"] or row[f"{path}.technique"] for path in paths if row[f"{path}.technique"] != "none"]
    return " + ".join(dict.fromkeys(chosen)) or "uncompressed"


def draw_sweep(rows: Sequence[Row], fields: Sequence[str], path: Path) -> None:
    """Draw what the plans give over the first numeric field, one line for each value of the others.

    A point without a plan is a cross on the panel's floor. Without a numeric field, the first field's
    values stand side by side.

    Parameters
    ----------
    rows
        In the order in which lines are drawn.
    fields
        That differ between the rows.
    path
        A .png or .svg file; overwritten if it exists.
    """
    scale = _Scale.of(rows, fields)
    lines: dict[str, list[Row]] = {}
    for row in rows:
        named = [_label(field, row[field]) for field in fields if field != scale.field]
        lines.setdefault(", ".join(named), []).append(row)
    panels = _panels(rows)
    with canvas(path, 4.6 * len(panels) + 0.6, 4.4 + 0.2 * math.ceil(len(lines) / 3)) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, title) in zip(grid, panels.items(), strict=True):
            _draw_panel(axes, name, scale, lines)
            axes.set(title=title, xlabel=scale.field or "")
        handles, labels = grid[0].get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        bars = len(lines) <= MOST_BANDS and any(name.startswith("intervals.") for row in rows for name in row)
        figure.suptitle(_title(rows, fields) + ("; bars: 80 % intervals" if bars else ""), fontsize=10)


@dataclass(frozen=True, slots=True)
class _Scale:
    """The horizontal axis: a numeric field at its values, or any field with its values side by side."""

    field: str | None
    """None: there is but one point."""
    values: list[Any]
    numeric: bool

    @classmethod
    def of(cls, rows: Sequence[Row], fields: Sequence[str]) -> _Scale:
        """The first numeric field, else the first one."""
        field = next((field for field in fields if _is_numeric(rows, field)), fields[0] if fields else None)
        if field is None:
            return cls(None, [None], numeric=False)
        values = list(dict.fromkeys(row[field] for row in rows))
        numeric = _is_numeric(rows, field)
        return cls(field, sorted(values) if numeric else values, numeric)

    def place(self, row: Row) -> float:
        """Where a row stands."""
        if self.field is None:
            return 0.0
        return float(row[self.field]) if self.numeric else float(self.values.index(row[self.field]))

    def set_ticks(self, axes: Any) -> None:
        """Label the values, or some of them where they are many."""
        if self.field is None:
            axes.set_xticks([])
            return
        ticks = self.values
        if self.numeric and len(ticks) > 1 and ticks[0] > 0 and ticks[-1] / ticks[0] > 8:
            axes.set_xscale("log")
            axes.minorticks_off()
        if self.numeric and len(ticks) > MOST_TICKS:
            ticks = [ticks[round(k * (len(ticks) - 1) / (MOST_TICKS - 1))] for k in range(MOST_TICKS)]
        places = [float(tick) if self.numeric else float(self.values.index(tick)) for tick in ticks]
        long = not self.numeric and len(ticks) > 3
        axes.set_xticks(places, [field_text(self.field, tick) for tick in ticks], rotation=40 if long else 0)


def _is_numeric(rows: Sequence[Row], field: str) -> bool:
    return all(isinstance(row[field], int | float) and not isinstance(row[field], bool) for row in rows)


def _label(field: str, value: Any) -> str:
    """A value that speaks for itself, or with its field's name."""
    return value if isinstance(value, str) else f"{field} {field_text(field, value)}"


def _title(rows: Sequence[Row], fields: Sequence[str]) -> str:
    models = list(dict.fromkeys(row["model"] or "the default model" for row in rows))
    shown = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return f"{shown}: best plans{' over ' + ', '.join(fields) if fields else ''}"


def _panels(rows: Sequence[Row]) -> dict[str, str]:
    panels = {name: title for name, title in PANELS.items() if any(row.get(name) is not None for row in rows)}
    goals = {row["objective.name"] for row in rows if row.get("objective.name")}
    goal = next(iter(goals)) if len(goals) == 1 else None
    if goal in OBJECTIVES:
        panels = {"objective.value": OBJECTIVES[goal], **panels}
    return panels or {"metrics.interactions_per_hour": PANELS["metrics.interactions_per_hour"]}


def _draw_intervals(axes: Any, name: str, scale: _Scale, rows: list[Row], colour: Any) -> None:
    """Draw the intervals of predictions as bars behind their points."""
    metric = name.removeprefix("metrics.")
    for row in rows:
        low, high = row.get(f"intervals.{metric}.low"), row.get(f"intervals.{metric}.high")
        if low is not None and high is not None:
            axes.vlines(scale.place(row), low, high, color=colour, alpha=0.3, linewidth=3)


def _draw_panel(axes: Any, name: str, scale: _Scale, lines: dict[str, list[Row]]) -> None:
    from matplotlib import colormaps

    colours = colormaps["tab10" if len(lines) <= 10 else "turbo"]
    drawn: list[float] = []
    missing: list[tuple[float, Any]] = []
    for place, (label, rows) in enumerate(lines.items()):
        colour = colours(place if len(lines) <= 10 else place / (len(lines) - 1))
        points = sorted((scale.place(row), row.get(name)) for row in rows)
        heights = [math.nan if height is None else height for _, height in points]
        style = MARKERS[place % len(MARKERS)] + "-"
        axes.plot(
            [x for x, _ in points], heights, style, color=colour, label=label or None, markersize=4, linewidth=1.2
        )
        if len(lines) <= MOST_BANDS:
            _draw_intervals(axes, name, scale, rows, colour)
        drawn += [height for _, height in points if height is not None]
        missing += [(x, colour) for x, height in points if height is None]
    if drawn and min(drawn) > 0 and max(drawn) / min(drawn) > 20:
        axes.set_yscale("log")
    elif drawn:
        axes.set_ylim(bottom=min(0.0, *drawn))
    stacked: Counter[float] = Counter()
    for x, colour in missing:
        height = 0.02 + 0.03 * stacked[x]
        stacked[x] += 1
        axes.plot(x, height, "x", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
    if missing:
        axes.plot([], [], "x", color="grey", label="no plan")
    scale.set_ticks(axes)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
