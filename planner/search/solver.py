"""Choose and prove: branch and bound lists what a best cluster can hold, OR-Tools composes it.

The proof is of both together: no column that was left out can be part of a better cluster, and no composition
of the listed ones is better. Ties are broken by rule, so that one request has one answer whatever the seed, the
number of workers or the order of catalog files.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from planner.errors import InputError
from planner.problem import Problem
from planner.search.columns import Columns
from planner.search.columns_found import Found, find_columns
from planner.search.compose import Asked, Composed, compose
from planner.search.known import TIE, Composition
from planner.search.room import Room
from planner.search.ties import engine_of
from planner.service import Service
from planner.solve.decision import service_of
from planner.solve.goal import Goal, Limits
from planner.solve.points import Points, Search, open_search
from planner.solve.scope import affordable
from planner.solve.solver import Settings
from planner.solve.solver import Solution as OneKind
from planner.space import Option, Space

BOUNDS_SHARE = 0.8
"""Of the time limit, for bounds."""

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True)
class Kind:
    """One column of a solution, and how often it is there."""

    points: Points
    """One row, with the replicas of all its copies."""
    options: tuple[Option, ...]
    engine: str


@dataclass(frozen=True)
class Solution:
    """What was chosen, and how sure that is."""

    status: Status
    search: Search
    kinds: tuple[Kind, ...] = ()
    """The largest promise first; none without a plan."""
    value: float | None = None
    """Of the goal, as the cost model prices the choice."""
    best: float | None = None
    """Of the best plan that was found; the chosen one is within the tolerance of it."""
    bound: float | None = None
    """No decision of the space has a lower value."""
    chosen_by: Literal["optimum", "tolerance", "time"] = "optimum"
    """Why this plan and not the best."""
    considered: int = 0
    """Operating points of the space."""
    size: dict[str, int] = field(default_factory=dict)
    """Columns, variables and rows of what OR-Tools chose among."""
    by: str = "cpsat"
    """Who composed it: CP-SAT, or ``rules`` where that failed; ``exhaustive`` and ``frontier`` are others' answers."""
    fault: str = ""
    """What went wrong on the way to it, for the user to know; nothing as a rule."""


def status_of(value: float, bound: float) -> Literal["optimal", "feasible"]:
    """Whether a value is proved by a bound: values that differ by less than `TIE` are equal.

    >>> status_of(1.0, 1.0 - 1e-10), status_of(1.0, 0.99)
    ('optimal', 'feasible')
    """
    return "optimal" if bound >= value * (1.0 - 2.0 * TIE) - 1e-12 else "feasible"


def solve(
    problem: Problem, space: Space, goal: Goal | None = None, settings: Settings | None = None, tolerance: float = 0.0
) -> Solution:
    """Choose the best decision of a space.

    Raises nothing for an infeasible request: that is an answer, ``status`` says so.
    """
    goal = goal or Goal(problem.request.objective, problem.request.output_tokens)
    settings = settings or Settings()
    starts_s = time.monotonic()
    _refuse(problem, space)
    search = open_search(problem, affordable(problem, space))
    found = find_columns(
        search,
        goal,
        Limits.of(problem.request),
        Room.of(problem.cluster, problem.most_gpus),
        first=settings.first,
        tolerance=tolerance,
        ends_s=starts_s + BOUNDS_SHARE * settings.time_limit_s,
    )
    if settings.first and found.known is not None:
        return _with(found, Composed(found.known, found.known.value, -math.inf, "", True))
    composed = compose(found, Asked(settings.workers, settings.seed, starts_s + settings.time_limit_s, tolerance))
    if composed is None:
        # Of what was left out nothing is known.
        return Solution("infeasible" if found.complete else "unknown", search, considered=found.considered)
    return _with(found, composed)


def _with(found: Found, composed: Composed) -> Solution:
    """A solution of what was composed, proved for the whole space where nothing was left out."""
    bound = min(composed.bound, found.open_value)
    status = status_of(composed.best, bound)
    shown = composed.composition
    same = abs(shown.value - composed.best) <= 2.0 * TIE * abs(composed.best) + 1e-12
    return Solution(
        status=status,
        search=found.search,
        kinds=kinds_of(found.search, shown),
        value=shown.value,
        best=composed.best,
        bound=min(bound, composed.best),
        chosen_by="time" if status == "feasible" else "optimum" if same else "tolerance",
        considered=found.considered,
        size=composed.size,
        by="rules" if composed.by_rules else "cpsat",
        fault=composed.fault,
    )


def services_of(solution: Solution) -> tuple[Service, ...]:
    """Write a solution as the services of its decision, the largest promise first."""
    return tuple(
        service_of(OneKind("feasible", solution.search, kind.points, kind.options, kind.engine, None, None, 0, 0))
        for kind in solution.kinds
    )


def _refuse(problem: Problem, space: Space) -> None:
    """What compositions don't know yet."""
    if any(space.pins.wanted("replicas", role) for role in ("serve", "prefill", "decode")):
        raise InputError("--solver compose: pins of replicas aren't known to it yet; leave the pin or the solver out")
    if space.emission is not None and not space.emission.mixed:
        raise InputError(
            f"--solver compose: --target {problem.request.target} can't run several kinds of replicas; leave one out"
        )


def kinds_of(search: Search, composition: Composition) -> tuple[Kind, ...]:
    """The kinds of a composition, the one with the most interactions first."""
    columns: Columns = composition.columns
    order = np.lexsort((columns.gpus, -columns.rate * composition.counts)).tolist()
    found = []
    for row in order:
        points = columns.points.take(np.array([row]))
        points = replace(points, replicas=points.replicas * composition.counts[row])
        found.append(Kind(points, columns.chosen(search, row), engine_of(search, int(columns.engines[row]))))
    return tuple(found)
