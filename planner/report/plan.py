"""A plan for the terminal: what to deploy, what it gives, what binds, how sure that is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from catalog.units import format_bytes, format_seconds, format_tokens
from planner.plan import DIMENSIONS, Choice, Constraint, Decision, Document, HbmBytes, Metrics, Parallel

if TYPE_CHECKING:
    from collections.abc import Iterable

BAR = 40
"""Characters of the HBM bar."""
BOUNDS = {
    "gpu": "the GPUs' time",
    "hbm": "HBM: sessions that wait between rounds",
    "ddr": "the offload tier",
    "pcie": "PCIe",
    "link": "the link between the pools",
    "serial": "one session at a time",
    "prefill": "the prefill pool",
    "memory": "memory: it doesn't fit",
}


def print_plan(document: Document) -> None:
    """Print a document; without colours where nobody looks."""
    Console(highlight=False).print(Group(*_parts(document)))


def _parts(document: Document) -> Iterable[RenderableType]:
    if document.decision is None or document.metrics is None:
        yield from _infeasible(document)
    else:
        decision, metrics = document.decision, document.metrics
        yield Text(headline(document), style="bold")
        yield _decision(decision)
        yield _metrics(document, metrics)
        yield _times(document, metrics)
        yield _hbm(metrics.hbm_bytes_per_gpu)
        yield _constraints(document.constraints)
        yield from _quality(document, metrics)
        yield from _money(metrics)
        yield from _proof(document)
    yield from _notes(document)


def headline(document: Document) -> str:
    """The plan in one sentence."""
    decision, metrics, request = document.decision, document.metrics, document.request
    if decision is None or metrics is None:
        return "no plan"
    chosen = [c.point or c.technique for c in _choices(decision) if c.technique != "none"]
    cache = f"KV with {' and '.join(chosen)}" if chosen else "uncompressed KV"
    verb = "Deploy" if document.status != "evaluated" else "Priced:"
    return (
        f"{verb} {request['model']} at {format_tokens(int(request['ctx']))} on {request['gpus']}: {decision.engine}, "
        f"{decision.weights} weights, {cache}; {metrics.interactions_per_hour:,.4g} interactions/h, "
        f"{metrics.users:,.3g} users"
    )


def _choices(decision: Decision) -> list[Choice]:
    return [getattr(decision.compression, name) for name in DIMENSIONS]


def _rows(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def _decision(decision: Decision) -> Table:
    rows = [("engine", decision.engine), ("weights", decision.weights)]
    for name in DIMENSIONS:
        choice = getattr(decision.compression, name)
        strength = "" if choice.strength is None else f" (strength {choice.strength:g})"
        rows.append((name, "none" if choice.technique == "none" else f"{choice.point or choice.technique}{strength}"))
    batch = decision.batch
    if decision.pools is None:
        rows.append(("parallel", _parallel(decision.parallel)))
    else:
        rows.append(("prefill pool", _parallel(decision.pools.prefill.parallel)))
        rows.append(("decode pool", _parallel(decision.pools.decode.parallel)))
        batch = decision.pools.decode.batch
    chunk = format_tokens(batch.prefill_chunk_tokens) if batch.prefill_chunk_tokens else "whole prompts"
    rows.append(("batch", f"{batch.decode_sequences} decoding per replica; prefill in chunks of {chunk}"))
    if batch.resident_sessions == 1:
        rows.append(("", "one session at a time"))
    if batch.prefill_throttled:
        rows.append(("", "long prefills yield to questions"))
    tier = f" to {decision.offload.tier}" if decision.offload.tier else ""
    rows += [("serving", decision.serving), ("between rounds", f"{decision.offload.policy}{tier}")]
    return _rows("Decision", rows)


def _parallel(parallel: Parallel) -> str:
    parts = [f"{name} {getattr(parallel, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
    parts = [part for part in parts if not part.endswith(" 1")] or ["tp 1"]
    return f"{' x '.join(parts)}, {parallel.replicas} replica{'s' if parallel.replicas != 1 else ''}"


def _metrics(document: Document, metrics: Metrics) -> Table:
    table = Table(title="Four metrics", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("metric", "value", "bounded by"):
        table.add_column(name)
    answer = document.request.get("output_tokens", 250)
    table.add_row("concurrency", f"{metrics.concurrency} sessions fit", "HBM size")
    table.add_row("prefill", format_seconds(metrics.prefill_s), "FLOP/s")
    table.add_row("decode", f"{format_seconds(metrics.decode_s)} for {answer} tokens", "HBM bandwidth")
    table.add_row("context switch", format_seconds(metrics.switch_s), "PCIe bandwidth")
    return table


def _times(document: Document, metrics: Metrics) -> Table:
    bound = document.provenance.bounded_by or ""
    mean = "-" if metrics.tpot_mean_s is None else format_seconds(metrics.tpot_mean_s)
    warm = "-" if metrics.ttft_warm_s is None else format_seconds(metrics.ttft_warm_s)
    rows = [
        ("interactions/h", f"{metrics.interactions_per_hour:,.5g}, bound by {BOUNDS.get(bound, bound)}"),
        ("users", f"{metrics.users:,.4g}; {metrics.sessions_per_hour:,.4g} sessions/h"),
        ("TTFT", f"{format_seconds(metrics.ttft_cold_s)} for a new session, {warm} for a later question"),
        ("TPOT", f"worst {format_seconds(metrics.tpot_s)}, quiet {format_seconds(metrics.step_s)}, mean {mean}"),
        ("", "worst: a step that carries another session's prefill chunk; --max-latency limits it"),
        ("GPUs", f"{metrics.gpus_used} used, {metrics.gpus_idle} idle"),
        ("KV per session", f"{format_bytes(metrics.kv_bytes_per_session)} (x {metrics.kv_ratio:.3g})"),
    ]
    return _rows("Service", rows)


def _hbm(hbm: HbmBytes) -> Text:
    parts = (
        ("W", "weights", hbm.weights),
        ("K", "KV", hbm.kv),
        ("a", "workspace", hbm.workspace),
        ("o", "engine", hbm.overhead),
    )
    bar, legend, used = "", [], 0.0
    for letter, name, size in parts:
        used += size
        bar += letter * (round(BAR * used / hbm.limit) - len(bar))
        legend.append(f"{letter} {name} {format_bytes(size)}")
    fits = used <= hbm.limit * (1.0 + 1e-9)
    rest = f"free {format_bytes(hbm.limit - used)}" if fits else f"OVER by {format_bytes(used - hbm.limit)}"
    shown = bar[:BAR].ljust(BAR, ".") + ("" if fits else ">")
    return Text(f"HBM per GPU  [{shown}] of {format_bytes(hbm.limit)}\n             {', '.join(legend)}, {rest}")


def _constraints(rows: tuple[Constraint, ...]) -> Table:
    table = Table(title="Limits", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("limit", "allows", "takes", "slack", ""):
        table.add_column(name)
    for row in rows:
        said = "BROKEN" if row.slack < -1e-9 * max(abs(row.limit), 1e-12) else "binds" if row.binding else ""
        shown = [_amount(row.name, value) for value in (row.limit, row.value, row.slack)]
        table.add_row(row.name, *shown, said)
    return table


def _amount(name: str, value: float) -> str:
    if "bytes" in name:
        return format_bytes(value) if value >= 0 else f"-{format_bytes(-value)}"
    if name.endswith("_s"):
        return format_seconds(value)
    if name.startswith("quality"):
        return f"{value:.2%}"
    return f"{value:,.4g}"


def _quality(document: Document, metrics: Metrics) -> Iterable[RenderableType]:
    confidence = float(document.request.get("confidence", 0.8))
    yield Text(
        f"Quality: {metrics.quality_loss_mean:.2%} loss expected, at most {metrics.quality_loss_at_confidence:.2%} with "
        f"{confidence:.0%} confidence (priors of task {document.request.get('task', 'mixed')})"
    )
    if metrics.window_loss_mean > 0:
        yield Text(
            f"Beyond the trained window: {metrics.window_loss_mean:.0%} more loss expected, up to "
            f"{metrics.window_loss_at_confidence:.0%}; no decision changes that, so the budget doesn't hold it"
        )


def _money(metrics: Metrics) -> Iterable[RenderableType]:
    if metrics.usd_per_interaction is None or metrics.usd_per_hour is None:
        yield Text("Cost: no price of this GPU in the catalog; give --usd-per-gpu-hour")
        return
    tokens = metrics.usd_per_million_output_tokens
    parity = "" if metrics.cost_ratio_vs_4k is None else f"; {metrics.cost_ratio_vs_4k:,.3g} times that of 4K tokens"
    per_tokens = "" if tokens is None else f", {tokens:,.4g} USD per million output tokens"
    yield Text(
        f"Cost: {metrics.usd_per_hour:,.4g} USD/h, {metrics.usd_per_interaction:,.3g} USD per interaction{per_tokens}{parity}"
    )


def _proof(document: Document) -> Iterable[RenderableType]:
    goal = document.objective
    if goal is not None:
        kind = (
            "proved optimal" if document.status == "optimal" else f"best so far, at most {goal.gap:.2%} from the best"
        )
        yield Text(f"Proof: {goal.name} {goal.value:,.6g}, {kind} (bound {goal.bound:,.6g}), verified in floats")


def _infeasible(document: Document) -> Iterable[RenderableType]:
    yield Text("No plan: these limits can't hold together.", style="bold")
    if document.infeasible is None:
        return
    for clash in document.infeasible.conflicts:
        yield Text(f"  clash: {' with '.join(clash)}")
    table = Table(title="What alone would repair it", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("limit", "now", "needed", ""):
        table.add_column(name)
    for row in document.infeasible.relaxations:
        table.add_row(row.limit, row.from_, row.to or "can't alone", row.note or "")
    yield table


def _notes(document: Document) -> Iterable[RenderableType]:
    for warning in document.provenance.warnings:
        yield Text(f"Warning: {warning}", style="bold")
    for text in document.provenance.assumptions:
        yield Text(f"Assumed: {text}")
    kinds = Counter(source.provenance for source in document.provenance.sources)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    solver = f", solver {document.provenance.solver}" if document.provenance.solver else ""
    yield Text(
        f"Facts: {told or 'none'}; catalog {document.provenance.catalog_hash}, {document.provenance.efficiency}{solver}"
    )
    yield Text("Latencies exclude queueing; speculative decoding isn't priced.")
