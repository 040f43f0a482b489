"""``plan parity`` in the terminal: cost over context, where it passes multiples of 4K's, what would move it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from catalog.units import format_tokens
from planner.report.amounts import number
from planner.report.plan import defaults_text
from planner.service import DIMENSIONS

if TYPE_CHECKING:
    from planner.whatif.parity_document import Crossing, Mover, ParityDocument, ParityPoint, Series


def print_table(document: ParityDocument) -> None:
    """Print the cost of every series at every context that was asked for."""
    _print(_table_parts(document))


def print_details(document: ParityDocument) -> None:
    """Print where each series passes each threshold, and what would move it."""
    _print(_detail_parts(document))


def _print(parts: Iterable[RenderableType]) -> None:
    console = Console(highlight=False)
    for part in parts:
        console.print(part)


def _table_parts(document: ParityDocument) -> Iterable[RenderableType]:
    yield Text(f"What an interaction costs over context: {document.model} on {document.request['gpus']}", style="bold")
    if document.base_cost is None:
        yield Text("No plan at 4K uncompressed, so there are no ratios to it")
    else:
        unit = document.unit
        yield Text(f"x: times one at 4K uncompressed, which costs {cost_text(document.base_cost)} {unit}")
    yield Text("")
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("context", justify="right", no_wrap=True)
    for series in document.series:
        table.add_column(f"{series.name}\n{document.unit}", justify="right", no_wrap=True)
        table.add_column("\nx", justify="right", no_wrap=True)
    best = document.series[-1]
    table.add_column(f"{best.name}:\nmost of it is")
    for ctx in document.contexts:
        points = [next(point for point in series.points if point.ctx == ctx) for series in document.series]
        cells = [text for point in points for text in cell_texts(point)]
        mark = "*" if points[0].beyond_window else ""
        shares = points[-1].shares
        table.add_row(format_tokens(ctx) + mark, *cells, shares.stopped_by if shares else "")
    yield table
    yield Text("")
    missing = {p.reason for s in document.series for p in s.points if p.plan is None and p.ctx in document.contexts}
    for reason in sorted(text for text in missing if text):
        yield Text(f"-: {reason}")
    for note in document.notes:
        yield Text(note)
    yield Text(f"Defaults: {defaults_text(document.request)}")
    yield Text("Each cost is that of a whole plan, proved cheapest and verified: --format json has them.")


def cell_texts(point: ParityPoint) -> tuple[str, str]:
    """Cost and ratio of a point."""
    if point.cost is None:
        return "-", "-"
    return cost_text(point.cost), "-" if point.ratio is None else number(point.ratio)


def cost_text(cost: float) -> str:
    """A cost with three digits, never an exponent.

    >>> cost_text(0.0001354321), cost_text(0.33049), cost_text(1234.5)
    ('0.000135', '0.330', '1,234')
    """
    if cost >= 100:
        return f"{cost:,.0f}"
    digits = 2
    while cost < 10.0 ** (1 - digits + 1) and digits < 12:
        digits += 1
    return f"{cost:.{digits}f}"


def _detail_parts(document: ParityDocument) -> Iterable[RenderableType]:
    yield Text("")
    yield Text("The longest context whose ratio to 4K stays under", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    thresholds = [crossing.threshold for crossing in document.series[0].crossings]
    for threshold in thresholds:
        table.add_column(f"{threshold:g}", justify="left")
    for series in document.series:
        table.add_row(series.name, *(crossing_text(series, crossing) for crossing in series.crossings))
    yield table
    yield Text("a to b: planned and under at a, planned and over at b; then what most of the GPUs' time is at b")
    movers = document.movers
    if movers is None:
        return
    now = "no plan" if movers.cost is None else f"{cost_text(movers.cost)} {document.unit}"
    times = "" if movers.ratio is None else f", {number(movers.ratio)} x 4K"
    yield Text("")
    yield Text(f"What would move {movers.series} at {format_tokens(movers.ctx)} ({now}{times})", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("change, planned again")
    for title in (document.unit, "x", ""):
        table.add_column(title, justify="right")
    for row in movers.rows:
        cost = "-" if row.cost is None else cost_text(row.cost)
        saved = "no plan" if row.plan is None else "no price" if row.cost is None else "possible"
        if row.cost is not None and movers.cost:
            saved = f"{row.cost / movers.cost - 1.0:+.0%}" if row.helps else "no help"
        table.add_row(
            row.change + _chosen(row),
            cost,
            "-" if row.ratio is None else number(row.ratio),
            saved or (row.reason or ""),
        )
    yield table
    yield Text("x: to 4K uncompressed under the same change")


def _chosen(row: Mover) -> str:
    """The techniques that a plan under a change takes, where techniques are the change."""
    decision = row.plan.decision if row.plan is not None else None
    if decision is None or "techniques" not in row.change:
        return ""
    choices = [getattr(service.compression, name) for service in decision.services for name in DIMENSIONS]
    names = dict.fromkeys(choice.point or choice.technique for choice in choices if choice.technique != "none")
    return f": {' + '.join(names) or 'none'}"


def tokens_text(tokens: int) -> str:
    """A context in thousands or millions.

    >>> tokens_text(4_510), tokens_text(42_200), tokens_text(1_020_000)
    ('4.51K', '42.2K', '1.02M')
    """
    return f"{tokens / 1e6:g}M" if tokens >= 1_000_000 else f"{tokens / 1e3:g}K"


def crossing_text(series: Series, crossing: Crossing) -> str:
    """Where a series passes a threshold, and what stops it there."""
    if crossing.over_from is None:
        return f"all up to {tokens_text(series.points[-1].ctx)}"
    over = tokens_text(crossing.over_from)
    reach = f"over at {over}" if crossing.under_to is None else f"{tokens_text(crossing.under_to)} to {over}"
    return f"{reach}: {crossing.stopped_by}"
