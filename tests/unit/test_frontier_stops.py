"""A frontier that had to stop says truly what it left out."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import planner.search.frontier as module
from catalog.load import open_catalog
from planner.problem import resolve
from planner.request import Request
from planner.search.frontier import frontier
from planner.space import open_space
from planner.whatif.pareto import pareto

ASKED = Request(ctx=50_000, gpus="2xA100", model="llama-3.1-8b", efficiency="peak")


@pytest.fixture
def stops_after_three_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    monkeypatch.setattr(module, "_FIRST", 1)


@pytest.mark.usefixtures("stops_after_three_batches")
def test_what_is_missing_lies_within_the_bounds_of_what_is_undecided() -> None:
    problem = resolve(ASKED, open_catalog())
    space = open_space(problem)
    whole = frontier(problem, space, ("throughput", "tpot"))
    part = frontier(problem, space, ("throughput", "tpot"), ends_s=3.0)
    assert whole.complete
    assert not part.complete
    assert part.plans
    have = np.array([plan.vector for plan in part.plans])
    missing = [plan.vector for plan in whole.plans if not (have <= plan.vector * (1 + 1e-9)).all(axis=1).any()]
    assert missing
    for vector in missing:
        assert (part.open_bounds[:, :-1] <= vector * (1 + 1e-9)).all(axis=1).any()


def test_a_document_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pareto(ASKED, "throughput,tpot")
    ticks = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1e18 if next(ticks) > 2 else 0.0))
    monkeypatch.setattr(module, "_FIRST", 1)
    part = pareto(ASKED, "throughput,tpot", time_limit_s=1.0)
    assert part.status == "partial"
    assert part.coverage.undecided_points > 0
    assert part.coverage.undecided_within is not None
    for point in part.points:
        objective = point.plan.objective
        assert objective is not None
        assert point.plan.status == ("optimal" if objective.gap == 0.0 else "feasible")
    # No plan of the whole frontier is better than every listed one by more than is said, in all objectives at once.
    slack = 1.0 + part.coverage.undecided_within + 1e-9
    for point in whole.points:
        speed, tpot = point.values["interactions_per_hour"], point.values["itl_full_s"]
        assert any(
            one.values["interactions_per_hour"] * slack >= speed and one.values["itl_full_s"] <= tpot * slack
            for one in part.points
        )
