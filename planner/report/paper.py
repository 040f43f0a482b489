"""``plan paper`` in the terminal: what the paper prints, what we compute, and the paper's tables."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from planner.paper.analysis import PAPER, Analysis
from planner.paper.comparison import Comparison, Reading
from planner.paper.tables import Cell, Table

_VERDICT = {True: "closes", False: "doesn't close", None: ""}
_LEGEND = (
    "found: read in the abstract. secondary: read in somebody's copy or digest. recalled: from memory, not verified. "
    "The first line of each value is the paper's stated convention; further lines are other readings of it, or say "
    "more about it. Users are compared as whole numbers."
)


_PIPE_WIDTH = 170
"""Columns where nobody's terminal sets the width; the widest table fits."""


def print_analysis(analysis: Analysis) -> None:
    """Print the analysis to stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    console.print(PaperReport(analysis))


class PaperReport:
    """The whole analysis, for `rich.print` or a `rich.console.Console`."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(f"{PAPER}: printed and computed", style="bold")
        yield _printed(self._analysis.comparisons)
        yield Text(_LEGEND)
        for row in self._analysis.comparisons:
            if row.printed.note:
                yield Text(f"  {row.printed.what}: {row.printed.note}")
        for table in self._analysis.tables:
            yield Text("")
            yield Text(table.title + (" (rebuilt)" if table.origin == "rebuilt" else ""), style="bold")
            yield _table(table)
            yield from (Text(note) for note in table.notes)


def number(value: Cell) -> str:
    """Write a cell: whole numbers in full, others with four significant digits.

    >>> number(1596.41), number(1_720_320), number(0.0915527), number(None)
    ('1596', '1 720 320', '0.09155', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000) or abs(value) >= 10_000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _new_table() -> RichTable:
    return RichTable(box=None, pad_edge=False, header_style="bold", collapse_padding=True)


def _printed(rows: tuple[Comparison, ...]) -> RichTable:
    table = _new_table()
    for title in ("value", "printed", "provenance"):
        table.add_column(title, overflow="fold")
    table.add_column("computed", justify="right", overflow="fold")
    table.add_column("deviation", justify="right", overflow="fold")
    table.add_column("", overflow="fold")
    table.add_column("how", overflow="fold")
    for row in rows:
        head = (row.printed.what, row.printed.text, row.printed.source.provenance)
        for index, reading in enumerate(row.readings):
            table.add_row(*(head if index == 0 else ("", "", "")), *_reading(reading))
    return table


def _reading(reading: Reading) -> tuple[str, str, str, str]:
    deviation = "" if reading.deviation is None else f"{reading.deviation:+.1%}"
    return (f"{number(reading.value)} {reading.unit}", deviation, _VERDICT[reading.closes], reading.label)


def _table(table: Table) -> RichTable:
    made = _new_table()
    for index, column in enumerate(table.columns):
        numeric = any(isinstance(row[index], float | int) for row in table.rows)
        made.add_column(Text(column.title), justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        made.add_row(*(number(cell) for cell in row))
    return made
