"""Choose and prove: branch and bound lists what a best cluster can hold, OR-Tools composes it.

The proof is of both together: no column that was left out can be part of a better cluster, and no composition
of the listed ones is better. Ties are broken by rule, so that one request has one answer whatever the seed, the
number of workers or the order of catalog files.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np

from planner.candidates.combinations import affordable
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Search, open_search
from planner.problem import Problem
from planner.search.columns import Columns
from planner.search.columns_found import Found, find_columns
from planner.search.compose import Asked, Composed, compose
from planner.search.known import TIE, Composition
from planner.search.room import Room
from planner.search.services import services_of
from planner.search.simpler import simplest
from planner.search.solution import Kind, Settings, Solution, read_settings, status_of
from planner.search.ties import engine_of
from planner.space import Space

BOUNDS_SHARE = 0.8
"""Of the time limit, for bounds."""


def solve(
    problem: Problem, space: Space, goal: Goal | None = None, settings: Settings | None = None, tolerance: float = 0.0
) -> Solution:
    """Choose the best decision of a space.

    Raises nothing for an infeasible request: that is an answer, ``status`` says so.
    """
    goal = goal or Goal.of(problem.request)
    settings = settings or Settings()
    starts_s = time.monotonic()
    # Beside replicas in reserve an interaction costs the less the more replicas there are.
    whole = bool(problem.request.spare) and goal.name == "cost"
    search = open_search(problem, affordable(problem, space), whole=whole)
    found = find_columns(
        search,
        goal,
        Limits.of(problem.request),
        Room.of(problem.cluster, problem.most_gpus),
        first=settings.first,
        most_pairs=settings.most_pairs,
        tolerance=tolerance,
        ends_s=starts_s + BOUNDS_SHARE * settings.time_limit_s,
    )
    if settings.first and found.known is not None:
        return _with(found, Composed(found.known, found.known.value, -math.inf, "", True))
    ends_s = starts_s + settings.time_limit_s
    composed = compose(found, Asked(settings.workers, settings.seed, ends_s, tolerance))
    if composed is None:
        # Of what was left out nothing is known.
        return Solution("infeasible" if found.complete else "unknown", search, considered=found.considered)
    return _with(found, simplest(found, composed, tolerance, ends_s))


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


__all__ = ["Kind", "Settings", "Solution", "read_settings", "services_of", "solve"]
