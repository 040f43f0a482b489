"""``plan explain`` in the terminal: why this plan, what every limit costs, where it stands on the roofline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from catalog.units import format_seconds
from planner.report.amounts import number
from planner.report.compare import PART_WORDS, WORDS, metric_text
from planner.report.plan import BOUNDS, headline

if TYPE_CHECKING:
    from planner.whatif.explained import (
        Alternative,
        Budget,
        DimensionRow,
        Explanation,
        LimitPrice,
        Phase,
    )

SAME = 5e-4
"""Relative: a ratio that would be printed as 1."""
TIE = 5e-5
"""Relative: losses and gains below this are told as none."""


def print_explanation(explanation: Explanation) -> None:
    """Print an explanation to stdout; without colours where nobody looks."""
    console = Console(highlight=False)
    for part in _parts(explanation):
        console.print(part)


def _parts(told: Explanation) -> Iterable[RenderableType]:
    yield Text(headline(told.plan), style="bold")
    for note in told.notes:
        yield Text(f"Note: {note}", style="bold")
    bound = told.plan.provenance.bounded_by or ""
    binding = ", ".join(row.name for row in told.plan.constraints if row.binding)
    yield Text(
        f"{WORDS[told.metric]} {metric_text(told.metric, told.value)}, limited by {BOUNDS.get(bound, bound)}"
        + (f"; binding: {binding}" if binding else "")
    )
    if told.choices:
        yield Text("")
        yield _choices(told)
    yield Text("")
    yield _limits(told)
    yield from (Padding(Text(text), (0, 0, 0, 2)) for text in map(_curve(told.metric), told.limits) if text)
    yield Text("")
    yield _roofline(told.roofline)
    yield Text("")
    yield from _quality(told.quality)
    yield Text("")
    yield from _dimensions(told.dimensions)
    if told.undecided:
        yield Text("")
        yield Text(f"Not decided in the time (give --time-limit more): {'; '.join(told.undecided)}", style="bold")


def _table(title: str, left: Iterable[str], right: Iterable[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", overflow="fold")
    return table


# ------------------------------------------------------------------ choices


def _choices(told: Explanation) -> Table:
    table = _table("Each choice, and the best plan without it", ("choice", "best without it", "gives"), ())
    for row in told.choices:
        table.add_row(row.choice, *_alternative(row, told.metric))
    return table


def _alternative(row: Alternative, metric: str) -> tuple[str, str]:
    """What the best plan without a choice takes instead, and what it loses."""
    mine = [str(change.to) for change in row.changes if change.name == row.part]
    others = [f"{PART_WORDS.get(c.name, c.name)} {c.to}" for c in row.changes if c.name != row.part]
    changes = "; ".join([*mine, *others])
    if row.status == "undecided":
        return "", "not decided in the time"
    if row.status == "infeasible":
        return "", "no plan"
    loss = _share(row.loss, "worse", row.status == "feasible")
    value = metric_text(metric, row.value)
    if row.status == "better" and row.loss is not None:
        return changes, f"{value}, {-row.loss:.2%} better"
    return changes, f"{value}, {loss}"


def _share(share: float | None, word: str, at_most: bool) -> str:
    if share is None:
        return ""
    if abs(share) < TIE:
        return "a tie"
    return f"{'at most ' if at_most else ''}{share:.2%} {word}"


# ------------------------------------------------------------------ limits


def _limits(told: Explanation) -> Table:
    table = _table("What each limit costs", ("limit", "instead", "gains", "stops helping", "then, with"))
    table.columns[0].no_wrap = True
    for row in told.limits:
        table.add_row(row.now, row.lifted, *_price(row))
    return table


def _price(row: LimitPrice) -> tuple[str, str, str]:
    if row.status == "undecided":
        return "not decided", "", ""
    if row.status == "nothing" or row.gain is None:
        return "nothing", "", ""
    gain = f"{'' if row.proved else 'at least '}{row.gain:.1%}"
    if row.amount is None:
        return gain, "", ""
    if row.until_text is None:
        return gain, "not up to there" if row.followed else "not decided", ""
    after = "nothing else" if row.next_decided else "not decided"
    if row.next is not None:
        after = f"{row.next.change}: {row.next.gain:+.1%}"
    return gain, f"at {row.until_text}", after


def _curve(metric: str) -> Callable[[LimitPrice], str]:
    def text(row: LimitPrice) -> str:
        points = [f"{p.text} {metric_text(metric, p.value)}{'' if p.proved else ' at least'}" for p in row.curve]
        return (
            f"{row.now.split(' ')[0] if row.now.startswith('--') else row.name}: {', '.join(points)}" if points else ""
        )

    return text


# ------------------------------------------------------------------ roofline


def _roofline(phases: Iterable[Phase]) -> Table:
    table = _table(
        "On the roofline (the busiest GPU)",
        ("phase", "bound by"),
        ("FLOP/byte", "GPU's", "time", "at peak", "of FLOP/s", "of HBM"),
    )
    for phase in phases:
        table.add_row(
            phase.name,
            "compute" if phase.bound == "compute" else "HBM bandwidth",
            number(phase.intensity),
            number(phase.balance),
            format_seconds(phase.seconds),
            format_seconds(phase.roofline_s),
            f"{phase.share_of_flops:.1%}",
            f"{phase.share_of_bandwidth:.1%}",
        )
    return table


# ------------------------------------------------------------------ quality


def _quality(budget: Budget) -> Iterable[RenderableType]:
    if not budget.spent:
        yield Text("Quality budget: nothing is spent")
        return
    table = _table("Quality budget, as -ln(1 - loss)", ("part", "choice"), ("expected", "uncertain", "of the budget"))
    for row in budget.spent:
        share = "" if row.share is None else f"{row.share:.1%}"
        table.add_row(row.part, row.choice, f"{row.mean:.4f}", f"{row.spread:.4f}", share)
    left = f"{budget.unspent / budget.budget:.1%}" if budget.budget > 0 else ""
    table.add_row("unspent", "", f"{budget.unspent:.4f}", "", left)
    yield table


# ------------------------------------------------------------------ dimensions


def _dimensions(rows: tuple[DimensionRow, ...]) -> Iterable[RenderableType]:
    if len(rows) < 2:
        yield Text("The cache isn't compressed: there is nothing that a dimension contributes")
        return
    table = _table(
        "Four metrics, each dimension alone and together, with the batch and chunk that are best for it",
        ("dimension", "technique"),
        ("sessions", "prefill", "decode", "switch", "interactions/h"),
    )
    base = rows[0]
    for row in rows:
        table.add_row(row.name, row.choice, *_metrics(row, base))
    yield table
    if len({row.decode_sequences for row in rows if row.fits}) > 1:
        told = ", ".join(f"{row.name} {row.decode_sequences}" for row in rows if row.fits)
        yield Padding(Text(f"decoding at once: {told}"), (0, 0, 0, 2))


def _metrics(row: DimensionRow, base: DimensionRow) -> list[str]:
    if not row.fits:
        return ["0", "no plan", "", "", ""]
    if not base.fits:
        return [
            number(row.concurrency),
            *(format_seconds(value) for value in (row.prefill_s, row.decode_s, row.switch_s)),
            number(row.interactions_per_hour),
        ]
    return [
        _against(row.concurrency, base.concurrency, number),
        _against(row.prefill_s, base.prefill_s, format_seconds),
        _against(row.decode_s, base.decode_s, format_seconds),
        _against(row.switch_s, base.switch_s, format_seconds),
        _against(row.interactions_per_hour, base.interactions_per_hour, number),
    ]


def _against(value: float, base: float, text: Callable[[float], str]) -> str:
    if not base or math.isclose(value, base, rel_tol=SAME):
        return text(value)
    return f"{text(value)} (x{number(value / base)})"
