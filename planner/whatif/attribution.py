"""Where the difference between two plans comes from: from the base to the other, one change at a time.

First the request changes under the base's decision, field by field, then the decision, part by part, in a fixed
order. Every state in between is priced with the cost model, so the steps multiply and add up to the whole
difference, with nothing left over. A state that can't run (it doesn't fit, no engine runs it, a split
that the cluster doesn't have) has no price: its change is taken together with the fewest later ones
that make it run, and they are named together. A state that only breaks a limit is priced, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from catalog.load import Catalog
from planner.errors import InputError
from planner.limits import LIMITS
from planner.objectives import MEASURES, sought
from planner.plan import Metrics
from planner.price import Evaluation, evaluate
from planner.problem import Problem, resolve
from planner.request import Request
from planner.space import Space, open_space
from planner.verify import LIMIT_TOLERANCE, unavailable
from planner.whatif.compared import Change, Step
from planner.whatif.parts import WHOLE, Services, differing, part_text, serving_text, whole_text, with_part

SESSION = (
    *("model", "ctx", "shared_prefix_tokens", "rounds", "output_tokens", "question_tokens", "think_time"),
    *("gpus", "usd_per_gpu_hour", "efficiency", "utilisation", "spare"),
)
"""Fields of a request that change prices, in the order of their steps."""

PERMISSIONS = (
    *("objective", "engine", "weights", "techniques", "target", "pin", "tolerance"),
    *(limit.field for limit in LIMITS),
    *("confidence", "task"),
)
"""Fields that only permit or forbid: one step together."""

MOST_COMPANIONS = 2
"""So many later changes are tried in every combination; then they are taken in their order."""


@dataclass(frozen=True)
class State:
    """A request with a decision."""

    request: Request
    services: Services
    """Of the decision."""


@dataclass(frozen=True)
class _Move:
    """One change, or several permissions at once."""

    fields: tuple[str, ...]
    """Of the request; empty for a part of the decision."""
    part: str | None


def metric_of(request: Request, metrics: Metrics) -> str:
    """Name of the number that a request asks to optimise."""
    return sought(request).measure(metrics).name


def metric_value(name: str, request: Request, metrics: Metrics) -> float | None:
    """A metric of a priced decision; None where it has none."""
    return MEASURES[name].of(metrics, request.output_tokens)


class Pricer:
    """Prices states, and remembers what requests resolve to."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._opened: dict[str, tuple[Problem, Space] | None] = {}

    def opened(self, request: Request) -> tuple[Problem, Space] | None:
        """The problem and the space of a request; None where it can't be understood."""
        key = request.model_dump_json()
        if key not in self._opened:
            try:
                problem = resolve(request, self.catalog)
                self._opened[key] = (problem, open_space(problem))
            except (InputError, LookupError, ValueError):
                self._opened[key] = None
        return self._opened[key]

    def price(self, state: State) -> tuple[Evaluation | None, tuple[str, ...]]:
        """A state's price, or why it can't run."""
        opened = self.opened(state.request)
        if opened is None:
            return None, ("the request can't be understood with the rest unchanged",)
        problem, space = opened
        try:
            evaluation = evaluate(problem, state.services)
        except InputError as error:
            return None, tuple(text.removeprefix("decision: ") for text in error.problems)
        if evaluation.metrics.concurrency < 1 or evaluation.metrics.interactions_per_hour <= 0:
            return None, (_no_room(evaluation),)
        if any(service.engine != "any" for service in state.services):
            missing = unavailable(problem, space, evaluation)
            if missing:
                return None, tuple(missing)
        return evaluation, ()


def _no_room(evaluation: Evaluation) -> str:
    if evaluation.metrics.concurrency < 1:
        return "not one session fits beside the weights"
    sequences = evaluation.largest.service.batch.decode_sequences
    return f"doesn't fit: {sequences} decoding sessions and one in prefill need more HBM"


def broken(evaluation: Evaluation) -> tuple[str, ...]:
    """Names of the limits that a priced decision breaks."""
    rows = evaluation.constraints
    return tuple(row.name for row in rows if row.slack < -LIMIT_TOLERANCE * max(abs(row.limit), 1e-12))


def attribute(base: State, other: State, metric: str, pricer: Pricer) -> list[Step]:
    """The steps from one plan to another.

    Parameters
    ----------
    base, other
        Plans: both can run.
    metric
        Name of the number whose difference is told.
    pricer
        Of the catalog that both were planned with.

    Returns
    -------
    list of Step
        Each begins where the one before ended; the first begins at the base's value and the last ends
        at the other's. Empty where nothing differs.

    Raises
    ------
    ValueError
        If one of the two can't run.
    """
    state, (evaluation, why) = base, pricer.price(base)
    if evaluation is None:
        raise ValueError(f"the base's decision can't run: {'; '.join(why)}")
    pending = _moves(base, other)
    steps = []
    while pending:
        taken, after, found = _next(state, pending, other, pricer)
        changes = tuple(change for move in taken for change in _changes(move, state, other))
        before_value = metric_value(metric, state.request, evaluation.metrics)
        after_value = metric_value(metric, after.request, found.metrics)
        alone = pricer.price(_moved(state, taken[:1], other))[1] if len(taken) > 1 else ()
        steps.append(_step(changes, before_value, after_value, broken(found), alone))
        pending = [move for move in pending if move not in taken]
        state, evaluation = after, found
    return _with_shares(steps)


def request_changes(base: Request, other: Request) -> tuple[str, ...]:
    """Fields in which two requests differ, those that change prices first."""
    return tuple(name for name in (*SESSION, *PERMISSIONS) if getattr(base, name) != getattr(other, name))


def _moves(base: State, other: State) -> list[_Move]:
    changed = request_changes(base.request, other.request)
    moves = [_Move((name,), None) for name in changed if name in SESSION]
    permissions = tuple(name for name in changed if name in PERMISSIONS)
    if permissions:
        moves.append(_Move(permissions, None))
    return moves + [_Move((), part) for part in differing(base.services, other.services)]


def _next(
    state: State, pending: Sequence[_Move], other: State, pricer: Pricer
) -> tuple[tuple[_Move, ...], State, Evaluation]:
    """The next change with the fewest later ones that make it run."""
    head, later = pending[0], pending[1:]
    groups = [(head, *more) for count in range(MOST_COMPANIONS + 1) for more in combinations(later, count)]
    groups += [(head, *later[:count]) for count in range(MOST_COMPANIONS + 1, len(later) + 1)]
    for taken in groups:
        after = _moved(state, taken, other)
        evaluation, _ = pricer.price(after)
        if evaluation is not None:
            return taken, after, evaluation
    raise ValueError(f"the other plan's decision can't run: {'; '.join(pricer.price(other)[1])}")


def _moved(state: State, moves: Sequence[_Move], other: State) -> State:
    request, services = state.request, state.services
    for move in moves:
        request = request.model_copy(update={name: getattr(other.request, name) for name in move.fields})
        if move.part is not None:
            services = with_part(services, other.services, move.part)
    return State(request, services)


def _changes(move: _Move, state: State, other: State) -> list[Change]:
    if move.part is None:
        return [
            Change.of_what("request", name, getattr(state.request, name), getattr(other.request, name))
            for name in move.fields
        ]
    return [part_change(move.part, state.services, other.services)]


def part_change(part: str, one: Services, other: Services) -> Change:
    """A part of a decision, before and after."""
    if part == WHOLE:
        return Change.of_what("decision", part, whole_text(one), whole_text(other))
    (before,), (after,) = one, other
    pooled = before.pools is not None or after.pools is not None
    text: Any = serving_text if part == "serving" and pooled else lambda service: part_text(service, part)
    return Change.of_what("decision", part, text(before), text(after))


def _step(
    changes: tuple[Change, ...],
    before: float | None,
    after: float | None,
    breaks: tuple[str, ...],
    alone: tuple[str, ...],
) -> Step:
    ratio = difference = None
    if before is not None and after is not None:
        difference = after - before
        ratio = after / before if before > 0 and after > 0 else None
    return Step(
        changes=changes,
        before=before,
        after=after,
        ratio=ratio,
        difference=difference,
        share=None,
        breaks=breaks,
        together_because=alone,
    )


def _with_shares(steps: list[Step]) -> list[Step]:
    """Give each step its share of the logarithm of the whole ratio, where there is one."""
    logs = [math.log(step.ratio) if step.ratio else None for step in steps]
    if not logs or None in logs:
        return steps
    total = math.fsum(log for log in logs if log is not None)
    if abs(total) < 1e-9:
        return steps
    return [
        step.model_copy(update={"share": log / total}) for step, log in zip(steps, logs, strict=True) if log is not None
    ]
