"""``plan pareto`` in the terminal: the frontier, and what it covers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from catalog.units import format_seconds, format_tokens
from planner.decision import Decision
from planner.plan import Document
from planner.report.amounts import number
from planner.report.plan import defaults_text, infeasible
from planner.service import DIMENSIONS, Parallel, Service

if TYPE_CHECKING:
    from planner.whatif.pareto import FrontierDocument

TITLES = {
    "interactions_per_hour": "interactions/h",
    "itl_full_s": "TPOT",
    "ttft_full_s": "TTFT",
    "quality_loss_at_confidence": "quality loss",
    "usd_per_interaction": "USD/interaction",
    "gpu_hours_per_interaction": "GPU-h/interaction",
    "gpus_used": "GPUs",
}
"""Metric -> how a table and a figure name it."""


def print_frontier(document: FrontierDocument) -> None:
    """Print a frontier to stdout; without colours where nobody looks."""
    console = Console(highlight=False)
    for part in _parts(document):
        console.print(part)


def _parts(document: FrontierDocument) -> Iterable[RenderableType]:
    request = document.request
    asked = f"{request['model']} at {format_tokens(int(request['ctx']))} on {request['gpus']}"
    if document.infeasible is not None:
        yield from infeasible(
            Document(
                status="infeasible",
                request=request,
                infeasible=document.infeasible,
                warnings=document.warnings,
                provenance=document.provenance,
            )
        )
        return
    if not document.points:
        yield Text(f"Time ran out before a plan was found for {asked}; give --time-limit more", style="bold")
        return
    yield Text(f"The frontier of {', '.join(document.of)}: {asked}", style="bold")
    yield Text("")
    yield _table(document)
    yield Text("")
    yield Text(covered(document))
    for text in (*document.warnings, *document.provenance.assumptions):
        yield Text(f"Note: {text}")
    asked_for = {name: value for name, value in request.items() if name != "objective"}
    yield Text(f"Defaults: {defaults_text(asked_for)}")
    yield Text("Each point is a whole plan, proved and verified: --format json has them. Latencies exclude queueing.")


def _table(document: FrontierDocument) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    names = list(document.points[0].values)
    table.add_column("", justify="right")
    for name in names:
        table.add_column(TITLES[name], justify="right", no_wrap=True)
    table.add_column("plan", overflow="fold")
    for place, point in enumerate(document.points, start=1):
        decision = point.plan.decision
        values = [value_text(name, point.values[name]) for name in names]
        table.add_row(str(place), *values, decided(decision) if decision is not None else "")
    return table


def value_text(name: str, value: float) -> str:
    """An objective in the unit that people read.

    >>> value_text("itl_full_s", 0.0231), value_text("usd_per_interaction", 0.00761), value_text("gpus_used", 4.0)
    ('23.1 ms', '0.00761', '4')
    """
    if name.endswith("_s"):
        return format_seconds(value)
    if name.startswith("quality"):
        return f"{value:.2%}"
    if name == "gpus_used":
        return f"{value:.0f}"
    return number(value)


def decided(decision: Decision) -> str:
    """A decision in one line, service by service."""
    return " + ".join(_decided(service) for service in decision.services)


def _decided(decision: Service) -> str:
    """A service in one line: compression, weights, split, batch, offload, engine."""
    choices = [getattr(decision.compression, name) for name in DIMENSIONS]
    chosen = [choice.point or choice.technique for choice in choices if choice.technique != "none"]
    pools = decision.pools
    split = _split(decision.parallel)
    if pools is not None:
        split = f"prefill {_split(pools.prefill.parallel)}, decode {_split(pools.decode.parallel)}"
    batch = pools.decode.batch if pools else decision.batch
    decoding = f"{batch.decode_sequences} decoding, chunk {batch.prefill_chunk_tokens}"
    offload = {"none": "stay", "recompute": "recompute", "swap": f"swap {decision.offload.tier}"}
    return ", ".join(
        (
            decision.engine,
            decision.weights,
            " + ".join(chosen) or "KV as it is",
            split,
            "one at a time" if batch.resident_sessions == 1 else decoding,
            offload[decision.offload.policy],
        )
    )


def _split(parallel: Parallel) -> str:
    ways = [f"{name} {getattr(parallel, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
    return f"{parallel.replicas} x ({', '.join([way for way in ways if not way.endswith(' 1')] or ['tp 1'])})"


def covered(document: FrontierDocument) -> str:
    """What the listed plans stand for, in words."""
    found = document.coverage
    whole = f"{found.points:,} operating points with every combination of techniques"
    if found.complete:
        told = f"Complete: {whole} were decided, {found.priced:,} decisions of them by pricing, the others by bounds."
    else:
        told = f"NOT complete: time ran out with {found.undecided_points:,} of {whole} undecided"
        if found.undecided_within is not None:
            told += (
                f"; by their bounds none is better than every listed plan by more than "
                f"{found.undecided_within:.1%} in all objectives at once"
            )
        told += ". Give --time-limit more."
    if found.listed < found.on_frontier:
        told += (
            f" {found.listed} of {found.on_frontier} plans are listed; each of the others is at most "
            f"{found.within:.2%} better than a listed one in any objective."
        )
    return told
