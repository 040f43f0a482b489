"""A plan for the terminal: what to deploy, what it gives, what binds, how sure that is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from catalog.units import format_bytes, format_seconds, format_tokens
from planner.decision import Decision, Group
from planner.plan import Constraint, Document, Metrics
from planner.report.amounts import TIGHT, amount, field_text, number
from planner.report.hbm import hbm_bars
from planner.request import Request
from planner.service import DIMENSIONS, Choice, Parallel, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
_PROVENANCES = ("found", "secondary", "derived", "recalled", "measured")


def print_plan(document: Document) -> None:
    """Print a document; without colours where nobody looks."""
    console = Console(highlight=False)
    for part in _parts(document):
        console.print(part)


def _parts(document: Document) -> Iterable[RenderableType]:
    for warning in document.warnings:
        yield Text(f"Warning: {warning}", style="bold")
    if document.decision is None or document.metrics is None:
        yield from infeasible(document)
    else:
        metrics = document.metrics
        yield Text(headline(document), style="bold")
        yield from _taken(document)
        parts: list[RenderableType] = [
            *_services(document, document.decision),
            _metrics(document, metrics),
            _times(document, metrics),
            *hbm_bars(document.decision, metrics),
            _constraints(document.constraints),
        ]
        for part in parts:
            yield Text("")
            yield part
        yield Text("")
        yield from _quality(document, metrics)
        yield from _money(metrics)
        yield from _proof(document)
    yield Text("")
    yield from _notes(document)


def _taken(document: Document) -> Iterable[RenderableType]:
    """What was taken where the request leaves it open."""
    told = document.provenance
    for name, text in (
        ("Cluster", told.cluster_choice),
        ("Model", told.model_choice),
        ("Weights", told.weights_choice),
    ):
        if text is not None:
            yield Text(f"{name}: {text}")


def headline(document: Document) -> str:
    """The plan in one sentence."""
    decision, metrics = document.decision, document.metrics
    if decision is None or metrics is None:
        return "no plan"
    verb = "Deploy" if document.status != "evaluated" else "Priced:"
    kinds = " beside ".join(dict.fromkeys(_kind(service) for service in decision.services))
    broken = [row.name for row in document.constraints if _broken(row)]
    return (
        f"{verb} {_asked(document)}: {kinds}; "
        f"{number(metrics.interactions_per_hour)} interactions/h, {number(metrics.users)} users"
        + (f". BREAKS {', '.join(broken)}" if broken else "")
    )


def _kind(service: Service) -> str:
    chosen = [c.point or c.technique for c in _choices(service) if c.technique != "none"]
    cache = f"KV with {' and '.join(chosen)}" if chosen else "uncompressed KV"
    engine = "any engine" if service.engine == "any" else service.engine
    return f"{engine}, {service.weights} weights, {cache}"


def _asked(document: Document) -> str:
    request = document.request
    return f"{request['model']} at {format_tokens(int(request['ctx']))} on {request['gpus']}"


def _broken(row: Constraint) -> bool:
    return row.slack < -TIGHT * max(abs(row.limit), 1e-12)


def _choices(service: Service) -> list[Choice]:
    return [getattr(service.compression, name) for name in DIMENSIONS]


def _rows(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def _why_alone(document: Document) -> str:
    """What more sessions at once could add, where it is prefill that keeps the GPUs busy."""
    decision, metrics = document.decision, document.metrics
    if decision is None or metrics is None or len(decision.services) > 1:
        return ""
    service = decision.service
    if service.pools is not None or service.parallel.pp > 1:
        return ""
    promised = service.parallel.replicas - metrics.groups[0].spare_replicas
    session_s = 3600.0 * promised / metrics.sessions_per_hour if metrics.sessions_per_hour else 0.0
    measured = document.request.get("efficiency", "measured") != "peak"
    working_s = session_s * (float(document.request.get("utilisation", 0.85)) if measured else 1.0)
    if not 0.5 * working_s < metrics.prefill_s <= working_s:
        return ""
    share, more = metrics.prefill_s / working_s, working_s / metrics.prefill_s - 1.0
    return f": prefill is {share:.0%} of it, so serving several at once could add at most {more:.0%}"


def _services(document: Document, decision: Decision) -> Iterable[RenderableType]:
    """Return a table for each service; where there are several, with the groups that it is made of."""
    several = len(decision.services) > 1
    for place, (service, groups) in enumerate(zip(decision.services, decision.groups_of_services, strict=True)):
        title = f"Service of group {' and '.join(group.id for group in groups)}" if several else "Decision"
        told = [*_reserve(document, decision, groups), *(_share(document, place) if several else [])]
        yield _service(document, service, title, told)


def _reserve(document: Document, decision: Decision, groups: Sequence[Group]) -> Iterable[tuple[str, str]]:
    """Return how many replicas of some groups are in reserve, where any is."""
    if document.metrics is None:
        return
    rows = zip(decision.groups, document.metrics.groups, strict=True)
    spare = [(group, found.spare_replicas) for group, found in rows if group in groups and found.spare_replicas]
    roles = {"serve": "", "prefill": " prefill", "decode": " decode"}
    told = [f"{count} of {group.replicas}{roles[group.role]}" for group, count in spare]
    if told:
        yield "in reserve", f"{' and '.join(told)} replicas: their users aren't promised"


def _share(document: Document, place: int) -> list[tuple[str, str]]:
    """Return what one of several services gives."""
    if document.metrics is None:
        return []
    part = document.metrics.services[place]
    served = f"{number(part.interactions_per_hour)} interactions/h, {number(part.users)} users"
    gaps = part.latency.itl_s.full
    return [("gives", served + ("" if gaps is None else f"; full TPOT {format_seconds(gaps)}"))]


def _service(document: Document, service: Service, title: str, gives: list[tuple[str, str]]) -> Table:
    rows = [("engine", service.engine), ("weights", service.weights)]
    for name in DIMENSIONS:
        choice = getattr(service.compression, name)
        strength = "" if choice.strength is None else f" (strength {choice.strength:g})"
        rows.append((name, "none" if choice.technique == "none" else f"{choice.point or choice.technique}{strength}"))
    batch = prefilling = service.batch
    if service.pools is None:
        rows.append(("parallel", _parallel(service.parallel)))
    else:
        rows.append(("prefill pool", _parallel(service.pools.prefill.parallel)))
        rows.append(("decode pool", _parallel(service.pools.decode.parallel)))
        batch, prefilling = service.pools.decode.batch, service.pools.prefill.batch
    size = prefilling.prefill_chunk_tokens
    prefill = f"prefill in chunks of {size} tokens" if size else "prompts in one piece"
    rows.append(("batch", f"{batch.decode_sequences} decoding per replica; {prefill}"))
    if batch.resident_sessions == 1:
        rows.append(("", f"one session at a time{_why_alone(document)}"))
    if prefilling.prefill_throttled:
        rows.append(("", "long prefills yield to questions"))
    caches = {
        "none": "caches stay in HBM",
        "recompute": "caches are dropped and recomputed",
        "swap": f"caches are swapped to {service.offload.tier}",
    }
    where = " in the prefill pool" if service.pools is not None else ""
    rows += [("serving", service.serving), ("between rounds", f"{caches[service.offload.policy]}{where}")]
    return _rows(title, rows + gives)


def _parallel(parallel: Parallel) -> str:
    parts = [f"{name} {getattr(parallel, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
    parts = [part for part in parts if not part.endswith(" 1")] or ["tp 1"]
    return f"{' x '.join(parts)}, {parallel.replicas} replica{'s' if parallel.replicas != 1 else ''}"


def _metrics(document: Document, metrics: Metrics) -> Table:
    table = Table(title="Four metrics", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("metric", "value", "bounded by"):
        table.add_column(name)
    answer = document.request.get("output_tokens", 250)
    decode = _time(document, "decode_s")
    table.add_row("concurrency", f"{metrics.concurrency} sessions fit", "HBM size")
    table.add_row("prefill", _time(document, "prefill_s"), "FLOP/s")
    table.add_row("decode", f"{decode} for {answer} tokens", "HBM bandwidth")
    table.add_row("context switch", _time(document, "switch_s"), "PCIe bandwidth")
    return table


def _worst(document: Document) -> str:
    """What the longest gap between tokens is, which a limit is for."""
    services = () if document.decision is None else document.decision.services
    apart = all(service.pools is not None for service in services)
    what = "no step has a foreign prefill chunk in it" if apart else "a step with a foreign prefill chunk in it"
    return f"--max-latency limits it: {what}"


def _times(document: Document, metrics: Metrics) -> Table:
    bound = document.provenance.bounded_by or ""
    rows = [
        ("interactions/h", f"{_amounts(document, 'interactions_per_hour')}, limited by {BOUNDS.get(bound, bound)}"),
        ("users", f"{_amounts(document, 'users')}; {_amounts(document, 'sessions_per_hour')} sessions/h"),
        *_latencies(document),
        ("GPUs", f"{metrics.gpus_used} used, {metrics.gpus_idle} idle{_power(metrics)}"),
        ("KV per session", f"{format_bytes(metrics.kv_bytes_per_session)}, {metrics.kv_ratio:.3g} x uncompressed"),
    ]
    return _rows("Service", rows)


def _latencies(document: Document) -> list[tuple[str, str]]:
    """Each with every cap full, and of one user alone: neither has queues in it."""

    def both(name: str) -> str:
        return f"full {_time(document, f'{name}_full_s')}, one user alone {_time(document, f'{name}_idle_s')}"

    return [
        ("TTFT", f"new session: {both('ttft')}"),
        ("", f"later question: {both('warm_ttft')}"),
        ("TPOT", both("itl")),
        ("", _worst(document)),
    ]


def _power(metrics: Metrics) -> str:
    return "" if metrics.power_w is None else f"; board power {amount('power_w', metrics.power_w)}"


def _time(document: Document, name: str) -> str:
    """A predicted time with its interval; a dash where there is none."""
    return _with_ends(document, name, format_seconds)


def _amounts(document: Document, name: str) -> str:
    """A predicted throughput with its interval."""
    return _with_ends(document, name, number)


def _with_ends(document: Document, name: str, shown: Callable[[float], str]) -> str:
    value = None if document.metrics is None else document.metrics.named(name)
    if value is None:
        return "-"
    ends = None if document.intervals is None else document.intervals.named(name)
    if ends is None:
        return shown(value)
    texts = [shown(amount) for amount in (value, *ends)]
    if len({text.partition(" ")[2] for text in texts}) == 1:  # One unit is said once.
        texts[1:] = [text.partition(" ")[0] for text in texts[1:]]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def _constraints(rows: tuple[Constraint, ...]) -> Table:
    table = Table(title="Limits", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("limit", "allows", "takes", "slack", ""):
        table.add_column(name)
    for row in rows:
        said = "BROKEN" if _broken(row) else "binds" if row.binding else ""
        shown = [amount(row.name, value) for value in (row.limit, row.value, row.slack)]
        table.add_row(row.name, *shown, said)
    return table


def _quality(document: Document, metrics: Metrics) -> Iterable[RenderableType]:
    confidence = float(document.request.get("confidence", 0.8))
    yield Text(
        f"Quality: {metrics.quality_loss_mean:.2%} loss expected, at most "
        f"{metrics.quality_loss_at_confidence:.2%} with {confidence:.0%} confidence "
        f"(priors of task {document.request.get('task', 'mixed')})"
    )
    if metrics.window_loss_mean > 0:
        yield Text(
            f"Beyond the trained window: {metrics.window_loss_mean:.0%} more loss expected, up to "
            f"{metrics.window_loss_at_confidence:.0%}; no decision changes that, so the budget doesn't hold it"
        )


def _money(metrics: Metrics) -> Iterable[RenderableType]:
    if metrics.usd_per_hour is None:
        yield Text("Cost: no price of this GPU in the catalog; give --usd-per-gpu-hour")
        return
    told = [f"{number(metrics.usd_per_hour)} USD/h"]
    if metrics.usd_per_interaction is not None:
        told.append(f"{metrics.usd_per_interaction:,.3g} USD per interaction")
    if metrics.usd_per_million_output_tokens is not None:
        told.append(f"{number(metrics.usd_per_million_output_tokens)} USD per million output tokens")
    yield Text(f"Cost: {', '.join(told)}")
    if metrics.cost_ratio_vs_4k is not None:
        yield Text(f"Parity: an interaction costs {number(metrics.cost_ratio_vs_4k)} times one at 4K, planned as well")


def _proof(document: Document) -> Iterable[RenderableType]:
    goal = document.objective
    if goal is not None:
        kind = (
            "proved optimal" if document.status == "optimal" else f"best so far, at most {goal.gap:.2%} from the best"
        )
        solver = document.provenance.solver
        yield Text(
            f"Proof: {goal.name} {goal.value:,.6g} {kind}, bound {goal.bound:,.6g} ({solver}); verified in floats"
        )


def infeasible(document: Document) -> Iterable[RenderableType]:
    """Why a request has no plan, and what repairs it."""
    yield Text(f"No plan for {_asked(document)}", style="bold")
    if document.infeasible is None:
        return
    for clash in document.infeasible.conflicts:
        together = "these can't hold together: " if len(clash) > 1 else "this can't hold: "
        yield Text(f"  {together}{', '.join(clash)}")
    yield Text("")
    table = Table(
        title="What repairs it alone", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    table.add_column("limit", no_wrap=True)
    table.add_column("now", no_wrap=True)
    table.add_column("needed")
    for row in document.infeasible.relaxations:
        table.add_row(row.limit, row.from_, row.needed)
    yield table


def defaults_text(request: dict[str, Any]) -> str:
    """The options that have the value that they have when nobody gives them."""
    told = []
    for name, field in Request.model_fields.items():
        if not field.is_required() and field.default is not None and request.get(name) == field.default:
            told.append(f"--{name.replace('_', '-')} {field_text(name, field.default)}")
    return ", ".join(told)


def _notes(document: Document) -> Iterable[RenderableType]:
    provenance = document.provenance
    for text in provenance.assumptions:
        yield Text(f"Assumed: {text}")
    yield Text(f"Defaults: {defaults_text(document.request)}")
    if document.intervals:
        yield Text("In brackets: 80% intervals, from errors on measurements that no fit had seen (docs/accuracy.md)")
    kinds = Counter(source.provenance for source in provenance.sources)
    told = ", ".join(f"{kinds[kind]} {kind}" for kind in _PROVENANCES if kinds[kind])
    yield Text(f"Sources: {told or 'none'}; catalog {provenance.catalog_hash}, efficiency {provenance.efficiency}")
    yield Text("Latencies exclude queueing; speculative decoding isn't priced.")
