"""More of anything never hurts, less never helps, and one request has one answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog.load import open_catalog
from planner import limits
from planner.problem import Problem
from planner.search.services import services_of
from planner.search.solver import Settings, Solution, solve
from planner.space import Space
from tests.requests import opened, random_request

CATALOG = open_catalog()
QUICK = (8, 10, 32)
MORE = (0, 9, 16, 18, 25, 29, 30, 35, 41, 43, 45, 49, 50, 58, 60, 64, 70, 82, 88, 154, 157)
SLACK = 1e-6
"""Relative: what rounding to integers may do."""
LIMITS = tuple(limit.field for limit in limits.LIMITS)


def solved(found: tuple[Problem, Space] | None) -> Solution:
    assert found is not None
    solution = solve(*found, settings=Settings(60.0))
    assert solution.status in ("optimal", "infeasible")
    return solution


def no_worse(other: Solution, than: Solution) -> bool:
    if than.value is None:
        return True
    return other.value is not None and other.value <= than.value * (1.0 + SLACK) + 1e-9


def changed(seed: int, **fields: Any) -> tuple[Problem, Space] | None:
    return opened(random_request(seed).model_copy(update=fields), CATALOG)


def one_more_gpu(gpus: str) -> str | None:
    count, _, name = gpus.partition("x")
    return None if "x" in name.lower()[:2] or int(count) >= 8 else f"{int(count) + 1}x{name}"


def check(seed: int) -> None:
    request = random_request(seed)
    found = opened(request, CATALOG)
    assert found is not None
    problem, space = found
    now = solved(found)
    more = one_more_gpu(request.gpus)
    if more is not None:
        assert no_worse(solved(changed(seed, gpus=more)), now), more
    for name in LIMITS:
        value = getattr(request, name)
        if value is not None and value > 0:
            looser = (
                max(1, round(value * 0.8)) if name == "users" else min(value * 1.25, 0.99 if "loss" in name else 1e9)
            )
            assert no_worse(solved(changed(seed, **{name: looser})), now), name
    node = problem.cluster.node
    roomy = node.model_copy(update={"host_memory": node.host_memory * 2})
    richer = replace(problem, cluster=replace(problem.cluster, node=roomy))
    assert no_worse(solved((richer, space)), now), "host memory"
    for name, options in space.options.items():
        for option in options[1:3]:
            fewer = {**space.options, name: tuple(o for o in options if o is not option)}
            assert no_worse(now, solved((problem, replace(space, options=fewer)))), option.id


@pytest.mark.parametrize("seed", QUICK)
def test_more_never_hurts_and_less_never_helps(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE)
def test_more_never_hurts_and_less_never_helps_on_more_requests(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*QUICK, *MORE])
def test_one_answer_under_five_seeds_and_one_two_or_eight_workers(seed: int) -> None:
    found = opened(random_request(seed), CATALOG)
    assert found is not None
    plans = [solve(*found, settings=Settings(60.0, workers, s)) for s in range(5) for workers in (1, 2, 8)]
    assert len({(plan.status, plan.value is None) for plan in plans}) == 1
    if plans[0].value is not None:
        assert len({repr(services_of(plan)) for plan in plans}) == 1
