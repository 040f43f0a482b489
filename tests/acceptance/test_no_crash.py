"""Requests that ended the program once end with an answer: a plan, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from catalog.load import open_catalog
from planner import Request
from planner.pipeline import choose, make_plan
from planner.problem import resolve
from planner.request import read_request
from planner.space import open_space

CATALOG = open_catalog()
Plan = Callable[..., Any]

NO_WEIGHTS_LEFT = ("--model", "llama-3.1-70b", "--ctx", "30K", "--gpus", "2xA100", "--weights", "awq4")
"""The only weights that may be taken exceed the quality budget, so that no replica is left."""


def test_where_no_weights_keep_the_budget_the_budget_that_lets_them_in_is_named(plan: Plan) -> None:
    made = plan(*NO_WEIGHTS_LEFT, "--no-gains", "--format", "json")
    assert (made.code, made.stderr) == (3, "")
    answer = made.json["infeasible"]
    assert answer["conflicts"] == [["--max-quality-loss 5%", "--weights awq4"]]
    needed = next(row["to"] for row in answer["relaxations"] if row["limit"] == "--max-quality-loss")
    assert plan(*NO_WEIGHTS_LEFT, "--no-gains", "--max-quality-loss", needed).code == 0


ABORTED = (
    "--model llama-3.1-8b --ctx 50K --gpus 8xA100 --max-latency 50ms --techniques published",
    "--model llama-3.1-70b --ctx 128K --gpus 64xMI300X --users 200 --objective cost --max-latency 200ms",
)
"""Requests over which CP-SAT ended the process; with the facts of then 14,679.46 interactions per hour and 0.00985452
USD per interaction were the best."""


@pytest.mark.parametrize("asked", ABORTED)
def test_what_once_aborted_is_proved(plan: Plan, asked: str) -> None:
    """And the frontier's proof, which shares no step with it, comes to the same value."""
    made = plan(*asked.split(), "--no-gains", "--format", "json")
    assert made.code == 0, made.stderr
    assert made.json["status"] == "optimal"
    assert made.json["objective"]["gap"] <= 1e-6
    other = make_plan(read_request(made.json["request"]), CATALOG, solver="frontier")
    assert other.status == "optimal"
    assert other.objective is not None
    assert made.json["objective"]["value"] == pytest.approx(other.objective.value, rel=1e-6)


@pytest.mark.parametrize("solver", ["cpsat", "exhaustive", "frontier"])
@pytest.mark.parametrize("users", [None, 3])
def test_every_solver_takes_a_space_without_replicas(solver: str, users: int | None) -> None:
    asked = Request(ctx="30K", gpus="2xA100", model="llama-3.1-70b", weights="awq4", users=users)
    problem = resolve(asked, CATALOG)
    assert choose(problem, open_space(problem), solver=solver).status == "infeasible"
