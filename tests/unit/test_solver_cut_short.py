"""A solver that is cut short: what it has is a plan, and claims no more than the cost model says."""

from __future__ import annotations

from typing import Any

import pytest

from planner import Request, make_plan
from planner.solve import solver
from planner.solve.solver import Settings


@pytest.mark.slow
@pytest.mark.parametrize("effort", [0.003, 0.05, 0.1, 0.15])
def test_a_plan_with_a_gap_claims_what_its_choice_costs(effort: float, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []
    full = solver._Run._solver

    def cut(run: Any) -> Any:
        """Limit the first run by the solver's own clock, so that every machine stops at the same place."""
        runs.append(full(run))
        if len(runs) == 1:
            runs[0].parameters.max_deterministic_time = effort
        return runs[-1]

    monkeypatch.setattr(solver._Run, "_solver", cut)
    request = Request(ctx="256K", gpus="8xA100", model="qwen3-30b-a3b")
    document = make_plan(request, settings=Settings(workers=1, most_priced=0))
    assert document.objective is not None
    assert document.status in ("feasible", "optimal")
    assert (document.status == "feasible") == (document.objective.gap > 1e-6)


@pytest.mark.parametrize(("most_priced", "by"), [(Settings().most_priced, "pricing"), (0, "cpsat")])
def test_the_proof_names_who_chose(most_priced: int, by: str) -> None:
    request = Request(ctx=32_000, gpus="2xA100", model="llama-3.1-8b", efficiency="peak")
    document = make_plan(request, settings=Settings(most_priced=most_priced))
    assert document.status == "optimal"
    assert document.provenance.solver == by
