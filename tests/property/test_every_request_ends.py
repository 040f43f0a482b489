"""Every request ends with a plan, an explanation, or a word on what is wrong with it: no other exception, no abort.

Weights, techniques and budgets are drawn so that often nothing of a kind is left: no weights, no replica, one option.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.load import open_catalog
from catalog.schema import Engine, Hardware, Model, Technique
from planner import Request
from planner.errors import InputError
from planner.pipeline import choose
from planner.problem import resolve
from planner.search.solver import Settings
from planner.space import open_space

CATALOG = open_catalog()
POINTS = sorted(point.id for technique in CATALOG.all(Technique) for point in technique.points)
WEIGHTS = ("any", "any", "bf16", "fp8", "awq4", "gptq4", "int8_w8a8", "native", "nf4")


def ids(kind: type[Any]) -> list[str]:
    return sorted(entry.id for entry in CATALOG.all(kind))


def seldom(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.none(), values)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    ctx = draw(st.sampled_from((1, 100, 4_000, 32_000, 128_000, 1_000_000, 10_000_000)))
    named = st.lists(st.sampled_from(POINTS), min_size=1, max_size=3).map(",".join)
    fields = {
        "ctx": ctx,
        "gpus": f"{draw(st.sampled_from((1, 1, 2, 3, 8)))}x{draw(st.sampled_from(ids(Hardware)))}",
        "model": draw(st.sampled_from(ids(Model))),
        "engine": draw(st.sampled_from(("any", "any", *ids(Engine)))),
        "weights": draw(st.sampled_from(WEIGHTS)),
        "techniques": draw(st.one_of(st.sampled_from(("deployable", "published")), named)),
        "max_quality_loss": draw(st.sampled_from((0.0, 0.01, 0.05, 0.5))),
        "confidence": draw(st.sampled_from((0.5, 0.8, 0.99))),
        "objective": draw(st.sampled_from(("throughput", "cost", "latency", "quality"))),
        "users": draw(st.sampled_from((1, 3, 300))),
        "rounds": draw(st.sampled_from((1, 2, 5))),
        "output_tokens": draw(st.sampled_from((1, 2, 250))),
        "question_tokens": draw(st.sampled_from((0, 1, 100))),
        "think_time": draw(st.sampled_from((0.0, 60.0))),
        "shared_prefix_tokens": draw(st.sampled_from((0, 0, ctx // 2, ctx))),
        "max_latency": draw(seldom(st.sampled_from((0.001, 0.05, 0.2)))),
        "max_ttft": draw(seldom(st.sampled_from((1.0, 60.0)))),
        "max_warm_ttft": draw(seldom(st.sampled_from((0.1, 5.0)))),
        "max_switch": draw(seldom(st.sampled_from((0.1, 5.0)))),
        "efficiency": draw(st.sampled_from(("peak", "measured"))),
    }
    return Request.model_validate(fields)


def ends(request: Request, solver: str) -> None:
    try:
        problem = resolve(request, CATALOG)
        space = open_space(problem)
        found = choose(problem, space, solver=solver, settings=Settings(5.0, workers=1))
    except InputError:
        return
    assert found.status in ("optimal", "feasible", "infeasible", "unknown")
    assert bool(found.kinds) == (found.status in ("optimal", "feasible"))
    assert found.fault == ""


@settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
@given(request=requests())
def test_every_request_ends(request: Request) -> None:
    ends(request, "cpsat")


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(request=requests())
def test_every_one_of_more_requests_ends(request: Request) -> None:
    ends(request, "cpsat")
