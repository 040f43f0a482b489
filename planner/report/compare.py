"""``plan compare`` in the terminal: the scenarios side by side, and why each differs from the base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from catalog.units import format_bytes, format_seconds
from planner.decision import Decision
from planner.plan import Document, Metrics
from planner.report.amounts import amount, field_text, number
from planner.report.plan import BOUNDS, infeasible
from planner.service import DIMENSIONS, Service

if TYPE_CHECKING:
    from planner.whatif.compared import Bounds, Cause, Change, Comparison, Kept, Step, Variant

LABEL, COLUMN = 14, 22
"""Widths of the first column and the least of a scenario's [characters]."""
SAME = 5e-5
"""Relative: values closer than this are told as equal."""
SMALL = 0.005
"""Relative: smaller gains are told as none."""
ROUNDING = 1e-9
"""Relative: differences below this are floats' rounding."""
WORDS = {
    "interactions_per_hour": "interactions/h",
    "usd_per_interaction": "USD per interaction",
    "gpu_hours_per_interaction": "GPU hours per interaction",
    "usd_per_hour": "USD per hour",
    "gpus_used": "GPUs",
    "latency_s": "latency",
    "quality_loss_at_confidence": "quality loss",
}
PART_WORDS = {"decode_batch": "decode batch", "prefill_chunk": "prefill", "offload": "between rounds"}


def print_comparison(comparison: Comparison) -> None:
    """Print a comparison to stdout; without colours where nobody looks."""
    console = Console(highlight=False)
    for part in _parts(comparison, console.width):
        console.print(part)


def _parts(comparison: Comparison, width: int) -> Iterable[RenderableType]:
    base, variants = comparison.base, comparison.variants
    planned = [variant for variant in variants if _has_plan(variant)]
    at_once = max((width - LABEL) // COLUMN - 1, 1)
    for start in range(0, max(len(planned), 1), at_once):
        yield _table([base, *planned[start : start + at_once]])
        yield Text("")
    yield Text("* differs from the base; (x) is the ratio to the base's value", style="dim")
    missing = ", ".join(f"{column.name} ({column.status})" for column in (base, *variants) if not _has_plan(column))
    if missing:
        yield Text(f"Without a plan, told below: {missing}", style="bold")
    for variant in (base, *variants):
        if not _has_plan(variant) or variant.notes:
            yield Text("")
            yield from _without(variant)
    if base.gains:
        yield Text("")
        yield Text(f"{base.name}: {_gains(base)}")
    for variant in variants:
        if variant.cause is not None:
            yield Text("")
            yield from _cause(base, variant, variant.cause)
        elif variant.no_cause is not None:
            yield Text("")
            yield Text(f"{variant.name}: no cause is told, since {variant.no_cause}")


def _has_plan(variant: Variant) -> bool:
    return variant.plan is not None and variant.plan.decision is not None


# ------------------------------------------------------------------ side by side


def _table(columns: Sequence[Variant]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", min_width=LABEL, overflow="fold")
    for column in columns:
        table.add_column(Text(column.name), min_width=min(COLUMN - 2, 18), overflow="fold")
    for section, rows in (("Request", _request), ("Decision", _decision), ("Gives", _gives)):
        table.add_row(Text(section, style="bold"))
        for name, cells in rows(columns):
            table.add_row(f" {name}", *(Text(text, style="bold" if marked else "") for text, marked in cells))
    return table


Cells = list[tuple[str, bool]]


def _request(columns: Sequence[Variant]) -> Iterable[tuple[str, Cells]]:
    requests = [column.plan.request if column.plan else None for column in columns]
    known = [request for request in requests if request is not None]
    for name in dict.fromkeys(name for request in known for name in request):
        values = [request.get(name) if request is not None else None for request in requests]
        shown = [field_text(name, v) if r is not None else "?" for v, r in zip(values, requests, strict=True)]
        if len({text for text in shown if text != "?"}) > 1:
            yield name.replace("_", " "), _marked(shown, requests[0] is not None)
    yield "status", [(column.status, False) for column in columns]


def _marked(shown: Sequence[str], has_base: bool = True) -> Cells:
    """Texts with a star where they differ from the first."""
    cells = [(shown[0], False)]
    for text in shown[1:]:
        differs = has_base and text != shown[0] and text not in ("-", "?")
        cells.append((f"* {text}" if differs else text, differs))
    return cells


def _decision(columns: Sequence[Variant]) -> Iterable[tuple[str, Cells]]:
    decisions = [column.plan.decision if column.plan else None for column in columns]
    for name, text in _DECISION_ROWS.items():
        shown = [_of_services(decision, text) if decision is not None else "-" for decision in decisions]
        if name in DIMENSIONS and set(shown) <= {"none", "-"}:
            continue
        yield name, _marked(shown, decisions[0] is not None)


def _of_services(decision: Decision, text: Callable[[Service], str]) -> str:
    """A text of each service, once."""
    return " + ".join(dict.fromkeys(text(service) for service in decision.services))


def _chosen(dimension: str) -> Callable[[Service], str]:
    def text(decision: Service) -> str:
        choice = getattr(decision.compression, dimension)
        return "none" if choice.technique == "none" else str(choice.point or choice.technique)

    return text


def _split(decision: Service) -> str:
    if decision.pools is None:
        return _parallel(decision)
    return f"prefill {_parallel(decision.pools.prefill)}; decode {_parallel(decision.pools.decode)}"


def _parallel(of: object) -> str:
    parallel = of.parallel  # type: ignore[attr-defined]
    sizes = [f"{name} {getattr(parallel, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
    sizes = [size for size in sizes if not size.endswith(" 1")] or ["tp 1"]
    return f"{parallel.replicas} x {' '.join(sizes)}"


def _batch(decision: Service) -> str:
    batch = decision.pools.decode.batch if decision.pools else decision.batch
    return f"{batch.decode_sequences} decoding" + (", alone" if batch.resident_sessions == 1 else "")


def _chunk(decision: Service) -> str:
    batch = decision.pools.decode.batch if decision.pools else decision.batch
    size = f"{batch.prefill_chunk_tokens} tokens" if batch.prefill_chunk_tokens else "in one piece"
    return size + (", yields" if batch.prefill_throttled else "")


def _offload(decision: Service) -> str:
    tier = f" to {decision.offload.tier}" if decision.offload.tier else ""
    return {"none": "in HBM"}.get(decision.offload.policy, f"{decision.offload.policy}{tier}")


_DECISION_ROWS: dict[str, Callable[[Service], str]] = {
    "engine": lambda decision: decision.engine,
    "weights": lambda decision: decision.weights,
    **{name: _chosen(name) for name in DIMENSIONS},
    "parallel": _split,
    "batch": _batch,
    "prefill chunk": _chunk,
    "serving": lambda decision: decision.serving,
    "between rounds": _offload,
}

_GIVES: dict[str, tuple[Callable[[Metrics], float | None], Callable[[float], str]]] = {
    "interactions/h": (lambda m: m.interactions_per_hour, number),
    "users": (lambda m: m.users, number),
    "sessions fit": (lambda m: m.concurrency, number),
    "prefill": (lambda m: m.prefill_s, format_seconds),
    "decode": (lambda m: m.decode_s, format_seconds),
    "switch": (lambda m: m.switch_s, format_seconds),
    "TTFT new": (lambda m: m.latency.ttft_s.full, format_seconds),
    "TTFT later": (lambda m: m.latency.warm_ttft_s.full, format_seconds),
    "TPOT worst": (lambda m: m.latency.itl_s.full, format_seconds),
    "KV/session": (lambda m: m.kv_bytes_per_session, format_bytes),
    "quality loss": (lambda m: m.quality_loss_at_confidence, lambda value: f"{value:.2%}"),
    "USD/interaction": (lambda m: m.usd_per_interaction, lambda value: f"{value:,.3g}"),
    "USD/h": (lambda m: m.usd_per_hour, number),
    "cost vs 4K": (lambda m: m.cost_ratio_vs_4k, number),
    "GPUs used": (lambda m: m.gpus_used, number),
}


def _gives(columns: Sequence[Variant]) -> Iterable[tuple[str, Cells]]:
    metrics = [column.plan.metrics if column.plan else None for column in columns]
    for name, (read, text) in _GIVES.items():
        values = [read(found) if found is not None else None for found in metrics]
        if any(value is not None for value in values):
            first = values[0]
            yield name, [(_with_ratio(value, None if i == 0 else first, text), False) for i, value in enumerate(values)]
        if name == "interactions/h":
            yield from _interval(columns)
    yield "limited by", _marked([_limited(column.plan) for column in columns], metrics[0] is not None)
    yield "binding", _marked([_binding(column.plan) for column in columns], metrics[0] is not None)


def _interval(columns: Sequence[Variant]) -> Iterable[tuple[str, Cells]]:
    """Within which errors on other measurements would put the throughput, 8 times in 10."""
    intervals = [column.plan.intervals if column.plan else None for column in columns]
    ends = [found.interactions_per_hour if found else None for found in intervals]
    if any(end is not None for end in ends):
        yield "80% interval", [(f"{number(end[0])} to {number(end[1])}" if end else "-", False) for end in ends]


def _with_ratio(value: float | None, first: float | None, text: Callable[[float], str]) -> str:
    if value is None:
        return "-"
    ratio = number(value / first) if first else "1"
    return text(value) if ratio == "1" else f"{text(value)} (x{ratio})"


def _limited(plan: Document | None) -> str:
    if plan is None or plan.decision is None:
        return "-"
    bound = plan.provenance.bounded_by or ""
    return BOUNDS.get(bound, bound)


def _binding(plan: Document | None) -> str:
    if plan is None or plan.decision is None:
        return "-"
    return ", ".join(row.name for row in plan.constraints if row.binding) or "none"


# ------------------------------------------------------------------ what isn't planned


def _without(variant: Variant) -> Iterable[RenderableType]:
    for note in variant.notes:
        yield Text(f"{variant.name}: {note}", style="bold")
    if variant.plan is not None and variant.plan.decision is None:
        yield Text(f"{variant.name}: infeasible", style="bold")
        yield from infeasible(variant.plan)
    elif variant.plan is None:
        yield Text(f"{variant.name}: {variant.status}", style="bold")
        yield from (Text(f"  {problem}") for problem in variant.problems)


# ------------------------------------------------------------------ causes


def _cause(base: Variant, variant: Variant, cause: Cause) -> Iterable[RenderableType]:
    metric = cause.metric
    before, after = metric_text(metric, cause.before), metric_text(metric, cause.after)
    ratio = f" (x{number(cause.ratio)})" if cause.ratio is not None else ""
    yield Text(f"{variant.name}: {WORDS[metric]} {before} -> {after}{ratio}", style="bold")
    if cause.bounds_before == cause.bounds_after:
        yield _inside(f"As {base.name}, {_bounds('', cause.bounds_after)}")
    else:
        yield _inside(f"{_bounds(base.name, cause.bounds_before)}; {_bounds('here', cause.bounds_after)}")
    if variant.gains:
        yield _inside(_gains(variant))
    yield _inside(_unchanged(base, cause))
    if cause.steps:
        yield _steps(cause)
        for step in cause.steps:
            if step.together_because:
                first = _change(step.changes[0]).split(" ")[0]
                yield _inside(f"{first} can't run without the rest of its step: {'; '.join(step.together_because)}")
    if cause.kept:
        yield _inside(f"Keeping the choice of {base.name} here, all else as planned:")
        yield from (_inside(_kept(kept, metric), 4) for kept in cause.kept)


def _inside(text: str, by: int = 2) -> Padding:
    """A paragraph under a heading."""
    return Padding(Text(text), (0, 0, 0, by))


def metric_text(metric: str, value: float | None) -> str:
    """A compared metric in its unit."""
    if value is None:
        return "-"
    if metric == "interactions_per_hour":
        return number(value)
    return amount(metric, value) if metric in ("latency_s", "quality_loss_at_confidence") else f"{value:,.4g}"


def _bounds(where: str, bounds: Bounds) -> str:
    bound = BOUNDS.get(bounds.bounded_by or "", bounds.bounded_by or "nothing")
    binding = f", binding: {', '.join(bounds.binding)}" if bounds.binding else ""
    return f"{where} limited by {bound}{binding}".strip()


def _gains(variant: Variant) -> str:
    """What a unit more of what binds would buy there."""
    told = []
    for row in variant.gains:
        if row.proved:
            told.append(f"{row.change} {'no better' if row.gain < SMALL else f'{row.gain:.1%} better'}")
        else:
            most = "how much isn't decided" if row.most is None else f"at most {row.most:.1%}"
            told.append(f"{row.change} at least {row.gain:.1%} better, {most}")
    return f"solved again with {', '.join(told)}"


def _unchanged(base: Variant, cause: Cause) -> str:
    told = cause.unchanged
    if told.impossible:
        return f"The decision of {base.name} can't run here: {'; '.join(told.impossible)}"
    value = metric_text(cause.metric, told.value)
    if told.breaks:
        return f"The decision of {base.name} would give {value} here, but breaks {', '.join(told.breaks)}"
    if told.value is not None and cause.after and abs(told.value / cause.after - 1.0) < SAME:
        return f"The decision of {base.name} would do the same here"
    return f"The decision of {base.name} would give {value} here; planning anew gives the rest"


def _steps(cause: Cause) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("  Steps, in this order", overflow="fold")
    for name in (f"{WORDS[cause.metric]}", "ratio", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in cause.steps:
        table.add_row(*_step(step, cause.metric))
    table.add_row(
        "  together",
        _difference(cause.metric, cause.difference, cause.before),
        "" if cause.ratio is None else f"x{cause.ratio:.4g}",
        "100%" if any(step.share is not None for step in cause.steps) else "",
    )
    return table


def _step(step: Step, metric: str) -> tuple[str, str, str, str]:
    what = " with ".join(_change(change) for change in step.changes)
    breaks = f" (breaks {', '.join(step.breaks)})" if step.breaks else ""
    ratio = "" if step.ratio is None else f"x{step.ratio:.4g}"
    share = "" if step.share is None else f"{step.share:.1%}".replace("-0.0%", "0.0%")
    return f"  {what}{breaks}", _difference(metric, step.difference, step.before), ratio, share


def _difference(metric: str, value: float | None, before: float | None) -> str:
    if value is None:
        return ""
    if abs(value) <= ROUNDING * abs(before or 0.0):
        return "0"
    sign = "+" if value > 0 else "-"
    return f"{sign}{metric_text(metric, abs(value))}"


def _change(change: Change) -> str:
    if change.of == "request":
        before, after = field_text(change.name, change.from_), field_text(change.name, change.to)
        return f"{change.name.replace('_', ' ')} {before} -> {after}"
    return f"{PART_WORDS.get(change.name, change.name)} {change.from_} -> {change.to}"


def _kept(kept: Kept, metric: str) -> str:
    change = kept.change
    name = f"{PART_WORDS.get(change.name, change.name)} {change.from_} instead of {change.to}"
    if kept.impossible:
        return f"{name}: can't run, {'; '.join(kept.impossible)}"
    told = metric_text(metric, kept.value)
    if kept.ratio is not None:
        told = "the same" if abs(kept.ratio - 1.0) < SAME else f"{told} (x{kept.ratio:.4g})"
    breaks = f", but breaks {', '.join(kept.breaks)}" if kept.breaks else ""
    return f"{name}: {told}{breaks}"
