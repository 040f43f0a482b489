"""The solver against the exhaustive oracle: the same verdict, the same objective, plans that hold.

The seeds are those of `tests.requests` whose spaces the oracle prices in a moment (most of them at most 20,000
decisions); the slow run takes larger ones too.
"""

from __future__ import annotations

import pytest

from catalog.load import open_catalog
from planner.search.solver import Settings
from tests.oracle import compare
from tests.requests import count_decisions, opened, random_request, spare_request

QUICK = (0, 4, 8, 9, 10, 14, 28, 120, 149, 798)
"""A few; 120 and those above it were wrong once: presolve, a shared prefix, a product beyond 64 bits."""
MORE = (
    *(690, 12, 16, 19, 21, 23, 24, 29, 496, 600, 618, 750, 1046),
    *(30, 32, 35, 40, 43, 44, 45, 47, 49, 54, 56, 60, 64, 65, 70, 73, 74, 76, 78, 81, 82, 87, 88),
    *(89, 90, 99, 100, 102, 104, 106, 111, 116, 121, 122, 123, 124, 125, 127, 139),
    *(154, 155, 156, 157, 159, 162, 164, 165, 169, 173, 174, 175, 178),
)
CATALOG = open_catalog()


QUICK_MEASURED = (0, 4, 9, 14, 28, 120)
QUICK_SPARE = (9, 17, 20, 39, 45, 77, 88, 94, 182, 590)
"""Replicas in reserve on one server and on several, pools, groups of experts, pins; 45 was wrong once: such groups."""
MOST_DECISIONS = 150_000


def check(seed: int, efficiency: str = "peak") -> None:
    found = opened(random_request(seed, efficiency), CATALOG)
    assert found is not None
    assert compare(*found, Settings(time_limit_s=60.0)).problems == ()


@pytest.mark.parametrize("seed", QUICK)
def test_search_equals_oracle(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("seed", QUICK_MEASURED)
def test_search_equals_oracle_on_measured_times(seed: int) -> None:
    check(seed, "measured")


@pytest.mark.parametrize("seed", QUICK_SPARE)
def test_search_equals_oracle_with_replicas_in_reserve(seed: int) -> None:
    found = opened(spare_request(seed), CATALOG)
    assert found is not None
    assert compare(*found, Settings(time_limit_s=60.0)).problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, 100))
def test_search_equals_oracle_with_replicas_in_reserve_on_more_requests(first: int) -> None:
    wrong = {}
    for seed in range(first, first + 100):
        found = opened(spare_request(seed), CATALOG)
        if found is None or count_decisions(*found) > MOST_DECISIONS:
            continue
        problems = compare(*found, Settings(time_limit_s=60.0)).problems
        if problems:
            wrong[seed] = problems
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("efficiency", ["peak", "measured"])
@pytest.mark.parametrize("seed", [*QUICK, *MORE])
def test_search_equals_oracle_on_more_requests(seed: int, efficiency: str) -> None:
    check(seed, efficiency)
