"""Random requests draw every field of a request: what isn't drawn, neither oracle nor fuzz ever sees."""

from __future__ import annotations

import pytest

from catalog.load import open_catalog
from planner.objectives import OBJECTIVES
from planner.request import Request
from tests.requests import CLUSTERS, any_request, opened

SEEDS = range(400)
REQUESTS = [any_request(seed) for seed in SEEDS]


@pytest.mark.parametrize("field", Request.model_fields)
def test_every_field_is_drawn(field: str) -> None:
    found = {getattr(request, field) for request in REQUESTS}
    assert len(found) > 1, f"tests/requests.py: any_request never draws {field}"


def test_every_objective_and_cluster_is_drawn() -> None:
    assert {request.objective for request in REQUESTS} == set(OBJECTIVES)
    counts = {request.gpus.partition("x")[0] for request in REQUESTS}
    assert {str(count) for count in range(1, 13)} <= counts
    assert {str(path) for path in CLUSTERS} <= {request.gpus for request in REQUESTS}
    assert any(request.gpus.startswith("3x8x") for request in REQUESTS)


def test_a_seed_has_one_request() -> None:
    assert any_request(7) == any_request(7)


def test_many_can_be_opened() -> None:
    catalog = open_catalog()
    assert sum(opened(request, catalog) is not None for request in REQUESTS[:100]) > 50


def test_what_a_request_says_of_itself_is_the_same_request() -> None:
    assert all(Request.model_validate(request.model_dump()) == request for request in REQUESTS[:50])
