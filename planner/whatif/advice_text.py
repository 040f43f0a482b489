"""Advice for people, and as JSON values."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from catalog.units import format_bytes, format_seconds, format_tokens
from planner.files import document_json
from planner.importing import summary
from planner.plan import Metrics
from planner.report.plan import BOUNDS
from planner.whatif.advice import METRICS, Advice

_NAMES = {
    "interactions_per_hour": "interactions/h",
    "users": "users",
    "concurrency": "sessions that fit",
    "ttft_full_s": "TTFT, new session",
    "warm_ttft_full_s": "TTFT, later question",
    "itl_full_s": "TPOT, worst step",
    "quality_loss_mean": "quality loss, mean",
    "quality_loss_at_confidence": "quality loss, at confidence",
    "usd_per_interaction": "USD per interaction",
    "gpus_used": "GPUs used",
}
_CHANGE_COLUMNS = ("", "now", "planned", "interact./h", "TPOT", "loss")


def print_advice(advice: Advice) -> None:
    """Print what runs, what it gives, and what the planner would change."""
    console = Console(highlight=False)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    say(summary(advice.imported))
    for note in advice.notes:
        say(f"note: {note}")
    console.print()
    if advice.unpriced is not None or advice.running is None or advice.request is None:
        say(f"Not priced: {advice.unpriced}", "bold")
        return
    for line in _verdict(advice):
        say(line, "bold")
    if advice.running.fits or advice.plan is not None:
        console.print()
        console.print(_metrics(advice))
    if advice.changes:
        console.print()
        console.print(_changes(advice))
    if advice.flags:
        console.print()
        console.print(_flags(advice))
    for line in (*_kept(advice), *_repairs(advice)):
        say(line)


def _verdict(advice: Advice) -> list[str]:
    running, plan = advice.running, advice.plan
    if running is None or plan is None:
        return []
    lines = [*_does_not_fit(advice)]
    if running.fits:
        evaluation = running.evaluation
        metrics = evaluation.metrics
        lines.append(
            f"Gives {_number(metrics.interactions_per_hour)} interactions/h to {_number(metrics.users)} users, limited "
            f"by {BOUNDS.get(evaluation.bounded_by, evaluation.bounded_by)}"
            + (f"; BREAKS {', '.join(advice.broken)}" if advice.broken else "")
        )
        if running.capacity is not None:
            lines.append(
                f"vLLM reports about {running.capacity.tokens:,} KV tokens at start, concurrency "
                f"{running.capacity.concurrency:.2f}x"
            )
    if plan.decision is None:
        lines.append("No plan keeps these limits on these GPUs")
    elif not advice.changes and not advice.flags:
        lines.append("Nothing to change: no plan in the space is better for this request")
    elif advice.planned is not None:
        what = f"{len(advice.changes)} of its choices" if advice.changes else "only flags"
        lines.append(f"The planner would change {what}: {_bought(advice, advice.planned)}")
    return lines


def _does_not_fit(advice: Advice) -> list[str]:
    running = advice.running
    if running is None:
        return []
    lines = []
    if not running.fits:
        needed = running.needed
        parts = (
            ("weights", needed.weights),
            ("workspace", needed.workspace),
            ("overhead", needed.overhead),
            ("KV of one session", needed.kv),
        )
        lines.append(
            f"DOES NOT FIT: per GPU, {', '.join(f'{name} {format_bytes(size)}' for name, size in parts)} are "
            f"{format_bytes(needed.limit + running.missing_bytes)}; it may take {format_bytes(needed.limit)}: "
            f"{format_bytes(max(running.missing_bytes, 0.0))} too much"
        )
        if running.missing_bytes < needed.workspace:
            lines.append(
                "  (workspace is an estimate, and larger than what is missing: it may start, with less to spare)"
            )
    elif running.capacity is not None and not running.capacity.starts:
        capacity = running.capacity
        lines.append(
            f"vLLM WOULDN'T START: one request of --max-model-len takes {capacity.blocks_per_request + 1:,} blocks of "
            f"{capacity.block_tokens} tokens, {capacity.blocks:,} fit"
        )
    return lines


def _bought(advice: Advice, planned: Metrics) -> str:
    running = advice.running
    now = running.evaluation.metrics if running is not None and running.fits else None
    loss = f"quality loss {planned.quality_loss_mean:.2%} expected"
    if now is None or now.interactions_per_hour <= 0:
        return f"{_number(planned.interactions_per_hour)} interactions/h, {_number(planned.users)} users; {loss}"
    more = planned.interactions_per_hour / now.interactions_per_hour - 1.0
    return f"{more:+.0%} interactions/h, {planned.users - now.users:+.3g} users; {loss}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    return table


def _metrics(advice: Advice) -> Table:
    request, running = advice.request, advice.running
    asked = f"{format_tokens(request.ctx)} tokens, {request.rounds} rounds" if request is not None else ""
    table = _table(f"Priced at {asked}", "", "now", "planned", "")
    now = running.evaluation.metrics if running is not None and running.fits else None
    planned = advice.planned
    for name in METRICS:
        before, after = (None if m is None else m.named(name) for m in (now, planned))
        table.add_row(_NAMES[name], _amount(name, before), _amount(name, after), _difference(name, before, after))
    return table


def _changes(advice: Advice) -> Table:
    table = _table("What the planner would change, and what each change gives alone", *_CHANGE_COLUMNS)
    for change in advice.changes:
        alone = change.alone
        shown = ("-", "", "")
        if alone is not None:
            shown = (
                _number(alone.interactions_per_hour),
                "-" if alone.latency.itl_s.full is None else format_seconds(alone.latency.itl_s.full),
                f"{alone.quality_loss_mean:.2%}",
            )
        table.add_row(change.field.removeprefix("compression."), Text(change.now), Text(change.planned), *shown)
    return table


def _flags(advice: Advice) -> Table:
    table = _table("As flags of vllm serve", "", "now", "planned")
    several = len({row.pool for row in advice.flags}) > 1
    for row in advice.flags:
        name = f"{row.pool}: {row.flag}" if several else row.flag
        table.add_row(Text(name), Text(_flag(row.now, "not given")), Text(_flag(row.planned, "drop it")))
    return table


def _flag(value: Any, absent: str) -> str:
    if value is None:
        return absent
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _kept(advice: Advice) -> list[str]:
    """What --emit keeps of the running command as it is, and what goes, each with its reason."""
    if not (advice.changes or advice.flags):
        return []
    lines = []
    for row in advice.fates:
        if row.verdict == "kept":
            lines.append(f"kept: {row.flag} {row.now}" + (f" ({row.reason})" if row.reason else ""))
        elif row.verdict == "dropped":
            lines.append(f"dropped: {row.flag} {row.now}".rstrip() + f" ({row.reason})")
        elif row.reason != "the plan decides it":
            lines.append(f"replaced: {row.flag} {row.now} -> {row.planned} ({row.reason})")
    return ["", *lines] if lines else []


def _repairs(advice: Advice) -> list[str]:
    found = advice.plan.infeasible if advice.plan is not None else None
    if found is None:
        return []
    lines = [f"  clash: {', '.join(clash)}" for clash in found.conflicts]
    return lines + [f"  {row.limit}: {row.from_} -> {row.needed}" for row in found.relaxations]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _amount(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_s"):
        return format_seconds(value)
    if name.startswith("quality"):
        return f"{value:.2%}"
    return f"{value:,.3g}" if name.startswith("usd") else _number(value)


def _difference(name: str, now: Any, planned: Any) -> str:
    if now is None or planned is None:
        return ""
    if name.startswith("quality"):
        return f"{100 * (planned - now):+.2f} points"
    return f"{planned / now - 1.0:+.0%}" if now else ""


def advice_json(advice: Advice) -> dict[str, Any]:
    """Return everything as plain JSON values: what was imported, what it gives, the plan, and the difference."""
    document: dict[str, Any] = {
        **advice.imported.as_json(),
        "priced": None,
        "unpriced": advice.unpriced,
        "plan": None if advice.plan is None else document_json(advice.plan),
        "changes": [
            {
                "field": change.field,
                "now": change.now,
                "planned": change.planned,
                "alone": None if change.alone is None else _chosen(change.alone),
            }
            for change in advice.changes
        ],
        "gain": {},
        "flags": [{"flag": row.flag, "now": row.now, "planned": row.planned, "pool": row.pool} for row in advice.flags],
        "becomes": [dataclasses.asdict(row) for row in advice.fates],
        "notes": [*advice.imported.notes, *advice.notes],
    }
    running = advice.running
    if running is None or advice.request is None:
        return document
    evaluation, capacity = running.evaluation, running.capacity
    document["priced"] = {
        "request": advice.request.model_dump(mode="json", exclude_none=True),
        "decision": evaluation.decision.model_dump(mode="json"),
        "fits": running.fits,
        "metrics": evaluation.metrics.model_dump(mode="json") if running.fits else None,
        "constraints": [row.model_dump(mode="json") for row in evaluation.constraints],
        "broken": list(advice.broken),
        "bounded_by": evaluation.bounded_by,
        "one_session_hbm_bytes_per_gpu": running.needed.model_dump(mode="json"),
        "missing_bytes_per_gpu": max(0.0, running.missing_bytes),
        "engine_reports": None
        if capacity is None
        else {
            "kv_tokens": capacity.tokens,
            "concurrency": capacity.concurrency,
            "blocks": capacity.blocks,
            "starts": capacity.starts,
        },
    }
    if advice.planned is not None:
        now = _chosen(evaluation.metrics) if running.fits else dict.fromkeys(METRICS)
        planned = _chosen(advice.planned)
        document["gain"] = {name: {"now": now[name], "planned": planned[name]} for name in METRICS}
    return document


def _chosen(metrics: Metrics) -> dict[str, Any]:
    return {name: metrics.named(name) for name in METRICS}
