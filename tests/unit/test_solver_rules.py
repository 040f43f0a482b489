"""The solver's integers: real inequalities rounded against us, and products that say what the cost model says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog.load import open_catalog
from planner.price import evaluate
from planner.problem import Problem, resolve
from planner.request import Request
from planner.service import DIMENSIONS
from planner.solve.chains import Chain, write_chain
from planner.solve.combinations import all_combinations, table_of
from planner.solve.cpsat import Quantity, Writer, import_cp_model
from planner.solve.decision import service_of
from planner.solve.exhaustive import solve_exhaustively
from planner.solve.goal import Limits
from planner.solve.solver import Settings, Solution, solve
from planner.space import Space, open_space
from tests.requests import random_request

CP = import_cp_model()
CATALOG = open_catalog()


def least(model: Any, quantity: Quantity) -> int:
    """The smallest value that a model leaves for a quantity."""
    model.minimize(quantity.variable)
    solver = CP.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.status_name(solver.solve(model)) == "OPTIMAL"
    return round(solver.objective_value)


def most(model: Any, quantity: Quantity) -> int:
    """The largest value that a model leaves for a quantity."""
    model.maximize(quantity.variable)
    solver = CP.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.status_name(solver.solve(model)) == "OPTIMAL"
    return round(solver.objective_value)


@pytest.mark.parametrize("value", [0.3, 1.0, 3.1, 7.999])
def test_a_cost_is_rounded_up_and_by_less_than_a_unit(value: float) -> None:
    model = CP.CpModel()
    writer = Writer(model)
    cost = writer.quantity("cost", 10.0, 0.7)
    writer.at_least(cost, [], value)
    found = least(model, cost) * cost.unit
    assert value <= found < value + cost.unit


@pytest.mark.parametrize("share", [1 / 3, 0.1, 2 / 7, 0.3333])
def test_no_more_sessions_fit_than_do(share: float) -> None:
    model = CP.CpModel()
    writer = Writer(model)
    one = writer.quantity("share", 1.0, 2.0**-20)
    writer.at_least(one, [], share)
    count = Quantity(model.new_int_var(0, 1000, "count"), 1.0, 1000)
    taken = writer.product("taken", count, one)
    writer.limit(taken, 1.0)
    assert most(model, count) * share <= 1.0


def test_a_limit_is_rounded_down() -> None:
    model = CP.CpModel()
    writer = Writer(model)
    time = writer.quantity("time", 10.0, 0.3)
    writer.limit(time, 1.0)
    assert most(model, time) * time.unit <= 1.0


def test_coarser_units_bound_from_both_sides() -> None:
    model = CP.CpModel()
    writer = Writer(model)
    fine = writer.quantity("fine", 1000.0, 0.01)
    model.add(fine.variable == 12_345)
    coarse_up = writer.rounded_up("up", [(1.0, fine)], 1.0)
    coarse_down = writer.rounded_down(fine, 8)
    assert least(model, coarse_up) * coarse_up.unit >= 123.45
    assert most(model, coarse_down) * coarse_down.unit <= 123.45


def opened(**fields: Any) -> tuple[Problem, Space]:
    problem = resolve(Request.model_validate({"efficiency": "peak", **fields}), CATALOG)
    return problem, open_space(problem)


@pytest.mark.parametrize("effect", ["storage", "reads"])
def test_a_chain_leaves_what_the_cost_model_leaves(effect: str) -> None:
    problem, space = opened(
        ctx=50_000, gpus="1xA100", model="llama-3.1-8b", techniques="published", max_quality_loss=0.2
    )
    found = all_combinations(problem, space)
    prompt, tokens = 50_000.0, 50_250.0
    picked = np.random.default_rng(7).choice(len(found), 12, replace=False)
    table = table_of(space, found.options[:, picked])
    expected = table.stored_tokens(prompt, tokens) if effect == "storage" else table.read_tokens(prompt, tokens)
    for column, value in zip(picked, expected, strict=True):
        model = CP.CpModel()
        literals = {name: [model.new_bool_var(o.id) for o in space.options[name]] for name in DIMENSIONS}
        for d, name in enumerate(DIMENSIONS):
            for o, literal in enumerate(literals[name]):
                model.add(literal == int(o == found.options[d, column]))
        left = write_chain(Writer(model), space.options, literals, Chain("left", effect, prompt, tokens))  # type: ignore[arg-type]
        assert least(model, left) * left.unit == pytest.approx(value, rel=1e-6)


def solved(**fields: Any) -> tuple[Problem, Solution]:
    problem, space = opened(**fields)
    return problem, solve(problem, space)


SMALL = {"ctx": 32_000, "gpus": "1xA100", "model": "llama-3.1-8b", "techniques": "deployable", "max_quality_loss": 0.01}


def test_a_shared_prefix_is_stored_once_and_not_more() -> None:
    problem, space = opened(**SMALL, rounds=1, shared_prefix_tokens=8_000)
    assert solve(problem, space).value == pytest.approx(solve_exhaustively(problem, space).value, rel=1e-3)


def test_limits_are_kept() -> None:
    problem, plan = solved(**SMALL, max_latency=0.05)
    points, search = plan.points, plan.search
    assert points is not None
    table = table_of(
        search.space,
        np.array([[search.space.options[n].index(o)] for n, o in zip(DIMENSIONS, plan.options, strict=True)]),
    )
    throttled = np.array([service_of(plan).batch.prefill_throttled])
    priced = search.price(points, table, np.array([0]), throttled)
    assert bool(Limits.of(problem.request).hold(priced)[0])


def test_nothing_is_planned_where_nothing_fits() -> None:
    _, plan = solved(**{**SMALL, "model": "llama-3.1-70b", "weights": "bf16"})
    assert plan.status == "infeasible"


def test_more_gpus_and_looser_limits_are_never_worse() -> None:
    _, plain = solved(**SMALL, max_latency=0.05)
    assert plain.value is not None
    for change in ({"gpus": "2xA100"}, {"max_latency": 0.1}, {"max_quality_loss": 0.02}):
        _, other = solved(**{**SMALL, "max_latency": 0.05, **change})
        assert other.value is not None
        assert other.value <= plain.value * (1 + 1e-6)


def test_a_forbidden_technique_never_helps() -> None:
    problem, space = opened(**{**SMALL, "max_quality_loss": 0.05})
    free = solve(problem, space)
    none = {name: options[:1] for name, options in space.options.items()}
    plain = solve(problem, replace(space, options=none))
    assert free.value is not None
    assert plain.value is not None
    assert free.value <= plain.value * (1 + 1e-6)


def test_one_request_has_one_answer_whatever_the_order_of_engines() -> None:
    problem, space = opened(**{**SMALL, "max_quality_loss": 0.05})
    turned = replace(space, engines=space.engines[::-1], weights=space.weights[::-1], splits=space.splits[::-1])
    assert service_of(solve(problem, space)) == service_of(solve(problem, turned))


def test_one_request_has_one_answer_whatever_the_seed_and_the_workers() -> None:
    problem = resolve(random_request(8), CATALOG)
    space = open_space(problem)
    plans = [solve(problem, space, settings=Settings(60.0, workers, seed)) for seed in (0, 1) for workers in (1, 8)]
    assert {plan.status for plan in plans} == {"optimal"}
    assert len({service_of(plan).model_dump_json() for plan in plans}) == 1


@pytest.mark.parametrize("users", [3, 100, 300])
def test_the_cheapest_takes_as_few_gpus_as_serve_the_users(users: int) -> None:
    problem, space = opened(ctx=32_000, gpus="8xA100", model="llama-3.1-8b", objective="cost", users=users)
    chosen = service_of(solve(problem, space))
    fewer = chosen.parallel.replicas - 1
    assert evaluate(problem, chosen).metrics.users >= users
    if fewer:
        smaller = chosen.model_copy(update={"parallel": chosen.parallel.model_copy(update={"replicas": fewer})})
        assert evaluate(problem, smaller).metrics.users < users


def test_one_worker_alone_ends_too() -> None:
    problem, space = opened(ctx=4_000, gpus="8xA100", model="llama-3.1-8b", max_latency=0.05)
    assert solve(problem, space, settings=Settings(30.0, 1, 0)).status == "optimal"
