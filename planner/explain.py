"""Why there is no plan, and what the next unit of each limit would buy when there is one.

Every sentence rests on a solve: a limit is lifted or moved, the request resolved again, and the answer
asked of the same solver.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from catalog.load import Catalog
from catalog.units import format_seconds
from planner.errors import InputError
from planner.plan import Document, Infeasible, Relaxation
from planner.problem import Problem, resolve
from planner.request import Request
from planner.solve.goal import Goal
from planner.solve.solver import Settings, solve
from planner.space import Space, open_space

UNLIMITED_LOSS = 0.5
"""A loss that nobody would accept: the quality budget counts as lifted [fraction]."""
ASK_SECONDS = 3.0
"""Time for asking whether a changed request has a plan; without an answer it counts as having none [s]."""
MOST_GPUS = 1024
MOST_CONFLICTS = 3
GAIN_SECONDS = 1.2
"""Time for saying what the next unit of each limit buys [s]."""
SMALLEST_GAIN = 0.005
"""Relative gains below this aren't worth a line."""


@dataclass(frozen=True)
class _Limit:
    """A limit of a request as the user wrote it, and how it is lifted."""

    field: str
    option: str
    shown: str
    lifted: dict[str, Any]

    @property
    def text(self) -> str:
        return f"{self.option} {self.shown}"


TIMES = {
    "max_latency": "tpot_s",
    "max_ttft": "ttft_cold_s",
    "max_warm_ttft": "ttft_warm_s",
    "max_switch": "switch_s",
}
"""Limit on a time -> goal that minimises it."""


class _Asker:
    """Asks whether changed requests have a plan, and remembers the answers."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.request = problem.request.model_copy(update={"model": problem.model_id})
        self.catalog = problem.catalog
        self.settings = settings
        self.asking = replace(settings, first=True, time_limit_s=min(settings.time_limit_s, ASK_SECONDS))
        self._known: dict[str, bool] = {}

    def feasible(self, request: Request) -> bool:
        """Whether any plan keeps a request's limits."""
        key = request.model_dump_json()
        if key not in self._known:
            self._known[key] = self._ask(request)
        return self._known[key]

    def _ask(self, request: Request) -> bool:
        try:
            problem = resolve(request, self.catalog)
            space = open_space(problem)
        except InputError:
            return False
        found = solve(problem, space, _any_goal(request), self.asking)
        return found.status in ("optimal", "feasible")

    def least(self, request: Request, goal: Goal) -> float | None:
        """The smallest value of a goal under a request's limits; None without a plan."""
        problem = resolve(request, self.catalog)
        found = solve(problem, open_space(problem), goal, self.settings)
        return found.value if found.status in ("optimal", "feasible") else None


def _any_goal(request: Request) -> Goal:
    return Goal("throughput", request.output_tokens)


def explain_infeasible(problem: Problem, space: Space, settings: Settings) -> Infeasible:
    """Say which limits clash, and what the cheapest change of each one alone would be.

    Every conflict is impossible on its own and possible without any one of its members; every
    relaxation is possible, and one printed unit less isn't.
    """
    del space
    asker = _Asker(problem, settings)
    limits = limits_of(asker.request)
    return Infeasible(conflicts=tuple(_conflicts(asker, limits)), relaxations=tuple(_relaxations(asker, limits)))


def limits_of(request: Request) -> list[_Limit]:
    """The limits and restrictions that a request states, in the user's words."""
    found = [
        _Limit(field, f"--{field.replace('_', '-')}", format_seconds(getattr(request, field)), {field: None})
        for field in TIMES
        if getattr(request, field) is not None
    ]
    if request.users is not None and request.objective in ("throughput", "cost"):
        found.append(_Limit("users", "--users", str(request.users), {"users": None}))
    elif request.users is not None:
        found.append(_Limit("users", "--users", str(request.users), {"users": None, "objective": "throughput"}))
    loss = f"{request.max_quality_loss * 100:g}%"
    found.append(_Limit("max_quality_loss", "--max-quality-loss", loss, {"max_quality_loss": UNLIMITED_LOSS}))
    if request.engine != "any":
        found.append(_Limit("engine", "--engine", request.engine, {"engine": "any"}))
    if request.weights != "any":
        found.append(_Limit("weights", "--weights", request.weights, {"weights": "any"}))
    return found


def _without(request: Request, limits: Sequence[_Limit]) -> Request:
    changes: dict[str, Any] = {}
    for limit in limits:
        changes.update(limit.lifted)
    return request.model_copy(update=changes)


def _conflicts(asker: _Asker, limits: list[_Limit]) -> list[tuple[str, ...]]:
    """Minimal clashing sets, each found by dropping whatever isn't needed for the clash."""
    gpus = f"--gpus {asker.request.gpus}"
    if not asker.feasible(_without(asker.request, limits)):
        return [(gpus,)]
    found: list[tuple[str, ...]] = []
    for first in [None, *limits]:
        order = [limit for limit in limits if limit is not first]
        kept = order if first is None else [*order, first]
        # Members that come first are dropped first, so each start tends to keep another one.
        core = list(kept)
        for limit in kept:
            fewer = [other for other in core if other is not limit]
            lifted = [other for other in limits if other not in fewer]
            if not asker.feasible(_without(asker.request, lifted)):
                core = fewer
        texts = tuple(limit.text for limit in limits if limit in core)
        if texts and texts not in found:
            found.append(texts)
        if len(found) == MOST_CONFLICTS:
            break
    return found


def _relaxations(asker: _Asker, limits: list[_Limit]) -> list[Relaxation]:
    rows = [_relaxation(asker, limit) for limit in limits]
    if asker.request.techniques == "deployable":
        published = _Limit("techniques", "--techniques", "deployable", {"techniques": "published"})
        rows.append(_relaxation(asker, published))
    return [*rows, _more_gpus(asker)]


def _relaxation(asker: _Asker, limit: _Limit) -> Relaxation:
    def row(to: str | None, note: str | None = None) -> Relaxation:
        return _row(limit.option, limit.shown, to, note)

    if not asker.feasible(_without(asker.request, [limit])):
        return row(None, "even without it the other limits can't hold")
    if limit.field in TIMES:
        return row(f"{_least_ms(asker, limit)}ms")
    if limit.field == "max_quality_loss":
        tenths = _first(lambda k: asker.feasible(_with(asker, max_quality_loss=k / 1000.0)), _tenths(asker) + 1, 999)
        return row(f"{tenths / 10:g}%")
    if limit.field == "users":
        users = _first(lambda k: not asker.feasible(_with(asker, users=k)), 1, int(asker.request.users or 1)) - 1
        return row(str(users)) if users >= 1 else row(None, "not even one user is served within the other limits")
    return row(str(limit.lifted[limit.field]))


def _row(limit: str, now: str, needed: str | None, note: str | None = None) -> Relaxation:
    return Relaxation.model_validate({"limit": limit, "from": now, "to": needed, "note": note})


def _tenths(asker: _Asker) -> int:
    return math.floor(asker.request.max_quality_loss * 1000.0 + 1e-9)


def _with(asker: _Asker, **changes: Any) -> Request:
    return asker.request.model_copy(update=changes)


def _least_ms(asker: _Asker, limit: _Limit) -> int:
    """The smallest whole milliseconds that make a time's limit possible."""
    goal = Goal(TIMES[limit.field], asker.request.output_tokens)  # type: ignore[arg-type]
    least = asker.least(_without(asker.request, [limit]), goal)
    first = max(1, math.floor((least or 0.0) * 1000.0 * (1.0 - 1e-4)))
    while not asker.feasible(_with(asker, **{limit.field: first / 1000.0})):
        first += max(1, first // 10_000)
    return first


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number from ``low`` to ``high`` for which something holds, if it holds for all larger ones.

    >>> _first(lambda k: k >= 37, 1, 100)
    37
    """
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _more_gpus(asker: _Asker) -> Relaxation:
    """The smallest cluster of the same GPUs that has a plan under all limits."""
    request = asker.request
    cluster = resolve(request, asker.catalog).cluster
    per_node = cluster.gpus_per_node if cluster.nodes > 1 else 1
    name = request.gpus.rpartition("x")[2] if "x" in request.gpus.lower() else request.gpus

    def at(count: int) -> Request:
        text = f"{count}x{per_node}x{name}" if cluster.nodes > 1 else f"{count}x{name}"
        return request.model_copy(update={"gpus": text})

    known = cluster.gpus // per_node
    low, high = known + 1, known * 2
    while high * per_node <= MOST_GPUS and not asker.feasible(at(high)):
        low, high = high + 1, high * 2
    if high * per_node > MOST_GPUS:
        return _row("--gpus", request.gpus, None, f"not even {MOST_GPUS} of these GPUs are enough")
    return _row("--gpus", request.gpus, at(_first(lambda k: asker.feasible(at(k)), low, high)).gpus)


def gains(document: Document, catalog: Catalog, settings: Settings) -> list[str]:
    """What the next unit of each binding limit would add to the objective, and published techniques, in words."""
    if document.decision is None or document.objective is None:
        return []
    started = time.monotonic()
    request = Request.model_validate(document.request)
    now = document.objective.value
    lines = []
    for text, changed in _next_units(document, request, catalog):
        if time.monotonic() - started > GAIN_SECONDS:
            break
        value = _objective(changed, catalog, settings)
        if value is None:
            continue
        gain = value / now - 1.0 if request.objective == "throughput" else 1.0 - value / now if now else 0.0
        if gain >= SMALLEST_GAIN:
            lines.append(f"With {text}: {document.objective.name} {gain:.1%} better")
        elif changed.techniques != request.techniques:
            lines.append(f"With {text}: no better")
    return lines


def _next_units(document: Document, request: Request, catalog: Catalog) -> list[tuple[str, Request]]:
    changes: list[tuple[str, dict[str, Any]]] = []
    if request.techniques == "deployable":
        changes.append(("--techniques published", {"techniques": "published"}))
    binding = {row.name for row in document.constraints if row.binding}
    for field, name in TIMES.items():
        limit = getattr(request, field)
        if name in binding and limit is not None:
            changes.append((f"--{field.replace('_', '-')} {format_seconds(limit * 1.1)}", {field: limit * 1.1}))
    if "quality_loss_at_confidence" in binding or "quality_loss_mean" in binding:
        more = min(request.max_quality_loss + 0.01, UNLIMITED_LOSS)
        changes.append((f"--max-quality-loss {more * 100:g}%", {"max_quality_loss": more}))
    if "gpus" in binding:
        cluster = resolve(request, catalog).cluster
        name = request.gpus.rpartition("x")[2]
        if cluster.nodes == 1 and "x" in request.gpus.lower():
            changes.append((f"--gpus {cluster.gpus * 2}x{name}", {"gpus": f"{cluster.gpus * 2}x{name}"}))
    return [(text, request.model_copy(update=change)) for text, change in changes]


def _objective(request: Request, catalog: Catalog, settings: Settings) -> float | None:
    """The objective of the best plan in the unit that a document shows; None without one."""
    from planner.evaluate import evaluate
    from planner.solve.decision import decision_of

    try:
        problem = resolve(request, catalog)
        found = solve(problem, open_space(problem), None, replace(settings, time_limit_s=GAIN_SECONDS))
    except InputError:
        return None
    if found.points is None or found.engine is None:
        return None
    metrics = evaluate(problem, decision_of(found)).metrics
    if request.objective == "throughput":
        return metrics.interactions_per_hour
    if request.objective == "cost":
        return metrics.usd_per_interaction or (found.value or 0.0)
    if request.objective == "latency":
        return (metrics.ttft_warm_s or 0.0) + (request.output_tokens - 1) * metrics.tpot_s
    return metrics.quality_loss_at_confidence
