"""Why a technique that a request names isn't used, and at which quality budget it returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from planner.ask import Asker, Question
from planner.candidates.combinations import affordable
from planner.candidates.goal import Goal
from planner.explain.gains import best_value, better
from planner.limits import BY_FIELD, SLACK, UNLIMITED_LOSS
from planner.plan import Document
from planner.problem import Problem
from planner.search.solver import Settings, Solution
from planner.service import DIMENSIONS
from planner.space import Space, open_space
from planner.space.options import named_techniques


def unused(problem: Problem, document: Document, settings: Settings) -> Iterator[str]:
    """A sentence for each technique that ``--techniques`` names and no service of the plan takes.

    By planning anew with it: what that plan gives, or which quality budget lets it in.
    """
    if document.decision is None or document.objective is None:
        return
    services = document.decision.services
    taken = {getattr(one.compression, name).point for one in services for name in DIMENSIONS}
    taken |= {f"w_{one.weights}" for one in services}
    named = {name: points for name, points in named_techniques(problem).items() if not points & taken}
    if not named:
        return
    space, asker = open_space(problem), Asker(problem, settings)
    for name, points in sorted(named.items()):
        yield f"{name} isn't used: {_reason(problem, document, space, asker, points)}"


def _reason(problem: Problem, document: Document, space: Space, asker: Asker, points: frozenset[str]) -> str:
    with_it = _only_with(space, points)
    if with_it is None:
        return next(
            (space.dropped[point] for point in sorted(points) if point in space.dropped), "nothing runs it here"
        )
    best = asker.solve(problem, with_it, about="the best plan with it") if _fits(problem, with_it) else None
    if best is not None and best.value is not None:
        return _worse(problem, document, best)
    if best is not None and best.status == "unknown":
        return "whether a plan with it keeps the limits isn't decided"
    free = Question({"max_quality_loss": UNLIMITED_LOSS, "objective": "throughput"}).about(problem)
    least = asker.solve(free, with_it, Goal.of(free.request, "quality"), about="the least loss with it")
    if least is None or least.value is None:
        return "no plan with it keeps the other limits"
    limit = BY_FIELD["max_quality_loss"]
    steps = math.ceil(least.value / limit.unit.step * (1.0 - SLACK))
    now = limit.typed(problem.request.max_quality_loss)
    return f"no plan with it keeps {now}; {limit.option} {limit.unit.step_text(steps)} lets it in"


def _only_with(space: Space, points: frozenset[str]) -> Space | None:
    """The space of plans that take one of some points; None where it holds none."""
    for name in DIMENSIONS:
        options = tuple(option for option in space.options[name] if option.id in points)
        if options:
            return replace(space, options={**space.options, name: options})
    weights = tuple(one for one in space.weights if one.point is not None and one.point.id in points)
    return replace(space, weights=weights) if weights else None


def _fits(problem: Problem, space: Space) -> bool:
    """Whether the quality budget leaves something of every dimension."""
    left = affordable(problem, space)
    return all(left.options.values()) and bool(left.weights)


def _worse(problem: Problem, document: Document, best: Solution) -> str:
    share = -better(problem, best_value(problem, document), best.value or 0.0)
    if share <= 1e-6:
        return "the best plan with it is as good"
    least = "" if best.status == "optimal" else "at most "
    return f"the best plan with it is {least}{share:.1%} worse"
