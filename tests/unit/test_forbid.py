"""A space without one of its options: what the solver then chooses is what the oracle chooses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalog.load import open_catalog
from planner.candidates.combinations import affordable
from planner.problem import resolve
from planner.request import Request
from planner.search.exhaustive import solve_exhaustively
from planner.search.services import services_of
from planner.search.solver import solve
from planner.space import Space, open_space
from planner.whatif.forbid import without_choices


def small(**changes: object) -> tuple[Request, Space]:
    request = Request.model_validate(
        {"model": "llama-3.1-8b", "ctx": 50_000, "gpus": "2xA100", "efficiency": "peak", "engine": "vllm", **changes}
    )
    problem = resolve(request, open_catalog())
    space = open_space(problem)
    return request, replace(space, sequences=(1, 4), chunks=(512, 2048))


def test_without_shared_gpus_only_two_pools_are_left() -> None:
    request, space = small(max_latency=0.05)
    problem = resolve(request, open_catalog())
    pools = replace(space, aggregated=False)
    found, oracle = solve(problem, pools), solve_exhaustively(problem, pools)
    assert found.status == oracle.status == "optimal"
    assert found.value == pytest.approx(oracle.value, rel=1e-4)
    assert services_of(found)[0].serving == "disaggregated"


def test_every_choice_without_an_alternative_is_left_out_and_every_other_is_forbidden_once() -> None:
    request, space = small()
    problem = resolve(request, open_catalog())
    space = affordable(problem, space)
    (decision,) = services_of(solve(problem, space))
    rows = without_choices(space, decision)
    assert "engine" not in {row.part for row in rows}, "vllm was asked for: there is no other"
    for row in rows:
        other = solve(problem, row.space)
        if other.kinds:
            assert services_of(other) != (decision,), row.without
    sizes = [row.choice for row in rows if row.part == "parallel"]
    assert len(sizes) == len(set(sizes))
    assert {"weights", "hidden", "decode_batch", "prefill_chunk", "offload", "serving"} <= {row.part for row in rows}
