"""Three answers to one request agree: the search's with replicas of one kind, every decision's, and the frontier's end.

They share the space and the cost model, and no step of the way. Requests draw every field.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalog.load import open_catalog
from planner.candidates.goal import Goal
from planner.problem import Problem
from planner.search.exhaustive import solve_exhaustively
from planner.search.frontier import Axis, frontier
from planner.search.solver import Settings, solve
from planner.space import Space
from tests.requests import any_request, count_decisions, opened

CATALOG = open_catalog()
QUICK = (0, 20, 43, 54)
MOST_DECISIONS = 60_000
TOLERANCE = 2e-8
"""Relative: the frontier counts plans that are closer as equal."""
SMALLEST = 3e-10
"""Losses that differ by less are equal: the frontier rounds to 33 bits."""
AXES: dict[str, Axis] = {"throughput": "throughput", "cost": "cost", "quality": "quality"}
"""Goal -> the frontier's objective that is the same number."""


def asked(seed: int) -> tuple[Problem, Space] | None:
    """The problem of a seed with clusters of one kind; None where there is none, or it is too large to list."""
    found = opened(any_request(seed), CATALOG)
    if found is None or count_decisions(*found) > MOST_DECISIONS:
        return None
    return found[0], replace(found[1], one_kind=True)


def answers(problem: Problem, space: Space) -> dict[str, float]:
    """What each comes to; infinite where it finds no plan."""
    solved = solve(problem, space, settings=Settings(time_limit_s=300.0))
    assert solved.status in ("optimal", "infeasible")
    found = {"search": solved.value, "exhaustive": solve_exhaustively(problem, space).value}
    axis = AXES.get(Goal.of(problem.request).name)
    if axis is not None:
        ends = frontier(problem, space, (axis, "tpot"))
        assert ends.complete
        found["frontier"] = min((float(plan.vector[0]) for plan in ends.plans), default=None)
    return {name: np.inf if value is None else value for name, value in found.items()}


def differ(problem: Problem, values: dict[str, float]) -> bool:
    least, most = min(values.values()), max(values.values())
    slack = SMALLEST if problem.request.objective == "quality" else 0.0
    return least != most and not most - least <= TOLERANCE * abs(most) + slack


@pytest.mark.parametrize("seed", QUICK)
def test_three_agree(seed: int) -> None:
    found = asked(seed)
    assert found is not None
    values = answers(*found)
    assert len(values) == 3
    assert not differ(found[0], values), values


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 200))
def test_three_agree_on_more_requests(first: int) -> None:
    compared, wrong = 0, {}
    for seed in range(first, first + 200):
        found = asked(seed)
        if found is not None:
            compared += 1
            values = answers(*found)
            if differ(found[0], values):
                wrong[seed] = values
    assert compared > 20
    assert wrong == {}
