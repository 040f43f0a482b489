"""Limits and objectives are records: whatever a record says holds everywhere, and no limit is forgotten."""

from __future__ import annotations

from dataclasses import fields

import pytest

from catalog.load import open_catalog
from catalog.schema import Hardware
from planner.candidates.goal import Limits
from planner.commands.options import PLANNING
from planner.cost.price import Priced
from planner.limits import LIMITS, Limit, asked, limits_of
from planner.objectives import MEASURES, OBJECTIVES
from planner.price import Figures as PlanFigures
from planner.request import Request, read_request
from planner.whatif.attribution import PERMISSIONS
from planner.whatif.proved import LIMITS as LIMITED_AXES
from tests.requests import random_request

GPU = open_catalog().get(Hardware, "A100")
EACH = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.field)


def with_limit(limit: Limit, text: str) -> Request:
    return read_request({"ctx": "32K", "gpus": "8xA100", limit.field: text})


@EACH
def test_a_limit_is_a_field_an_option_and_metrics_of_a_plan(limit: Limit) -> None:
    assert limit.field in Request.model_fields
    assert limit.field in PLANNING
    assert limit.field in PERMISSIONS
    assert set(limit.metrics) <= {field.name for field in fields(PlanFigures)}
    assert limit.of_options or set(limit.priced) <= {field.name for field in fields(Priced)}


@EACH
def test_what_is_typed_is_what_holds(limit: Limit) -> None:
    request = with_limit(limit, limit.example)
    amount = limit.amount(request)
    assert amount is not None
    assert limit.typed(amount) == f"--{limit.field.replace('_', '-')} {limit.example}"
    assert limit.of_options or {*limit.priced} <= Limits.of(request).amounts.keys()


@EACH
def test_the_next_amount_allows_more_and_can_be_typed(limit: Limit) -> None:
    request = with_limit(limit, limit.example)
    now = limit.amount(request) or 0.0
    more = limit.more(now, GPU)
    assert more is not None
    assert limit.slack(more, now) > 0
    assert limit.amount(with_limit(limit, limit.unit.text(more))) == asked(limit, more)


@EACH
def test_lifted_is_no_limit_at_all(limit: Limit) -> None:
    lifted = with_limit(limit, limit.example).model_copy(update={limit.field: limit.lifted})
    assert limit.lifted is not None or limit not in [found for found, _ in limits_of(lifted)]


@EACH
def test_random_requests_have_it(limit: Limit) -> None:
    found = {getattr(random_request(seed), limit.field) for seed in range(60)}
    assert len(found) > 1, "tests/requests.py never draws it, so neither does the oracle"


def test_objectives_and_measures() -> None:
    assert [name for name, measure in MEASURES.items() if measure.higher] == ["interactions_per_hour"]
    assert all(name == objective.name for name, objective in OBJECTIVES.items())
    assert LIMITED_AXES == {"tpot": "max_latency", "ttft": "max_ttft", "quality": "max_quality_loss"}
