"""Every field of a request is known wherever fields are compared, offered, told or loosened; a new one fails here."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.load import open_catalog
from planner.commands.options import PLANNING
from planner.explain.limits import FREE, stated
from planner.limits import BY_FIELD, LIMITS
from planner.pipeline import evaluate
from planner.problem import resolve
from planner.report.amounts import field_text
from planner.request import Request, read_request
from planner.whatif.attribution import PERMISSIONS, SESSION, request_changes
from planner.whatif.levers import levers
from planner.whatif.scenario import read_changes
from planner.whatif.sweep_grid import read_axes, varying

OTHERS: dict[str, Any] = {
    "ctx": "64K",
    "gpus": "8xH100",
    "model": "llama-3.1-8b",
    "engine": "vllm",
    "rounds": "3",
    "output_tokens": "100",
    "question_tokens": "50",
    "think_time": "1.5s",
    "users": "7",
    "shared_prefix_tokens": "1K",
    "utilisation": "0.7",
    "max_latency": "150ms",
    "max_ttft": "40s",
    "max_warm_ttft": "3s",
    "max_switch": "6s",
    "max_power": "3.2kW",
    "max_quality_loss": "2%",
    "confidence": "0.9",
    "task": "qa",
    "objective": "cost",
    "techniques": "none",
    "weights": "bf16",
    "pin": "tp=2,roles=serve",
    "tolerance": "2%",
    "spare": "1",
    "efficiency": "peak",
    "usd_per_gpu_hour": "2 USD/h",
    "target": "vllm,compose",
}
"""Each field with a value that isn't its default, as one types it."""

UNCHANGED = {"objective", "confidence", "task", "target", "tolerance"}
"""Permissions that are neither limits nor restrictions: nothing is loosened in them."""

BASE = {"ctx": "32K", "gpus": "4xA100"}
EACH = pytest.mark.parametrize("field", Request.model_fields)


def other(field: str) -> Request:
    return read_request({**BASE, field: OTHERS[field]})


def test_every_field_is_classified() -> None:
    fields = set(Request.model_fields)
    assert set(OTHERS) == fields
    assert set(PLANNING) == fields
    assert {*SESSION, *PERMISSIONS} == fields
    assert len(SESSION) + len(PERMISSIONS) == len(fields), "a field is either priced or permits"
    assert {*BY_FIELD, *FREE, *UNCHANGED} - {*SESSION} == {*PERMISSIONS}
    assert {*FREE} & {*SESSION} == {"spare"}, "it can be lifted, and what is promised depends on it"


@EACH
def test_a_difference_is_seen_wherever_requests_are_compared(field: str) -> None:
    base, changed = read_request(BASE), other(field)
    assert request_changes(base, changed) == (field,)
    assert varying([base, changed]) == (field,)


@EACH
def test_what_is_told_can_be_typed(field: str) -> None:
    value = getattr(other(field), field)
    assert getattr(read_request({**BASE, field: field_text(field, value)}), field) == value
    assert read_changes(f"{field}={OTHERS[field]}") == {field: OTHERS[field]}
    assert ",".join(read_axes({field: OTHERS[field]})[field]) == OTHERS[field]


def test_limits_and_restrictions_can_be_loosened() -> None:
    fields = [*BY_FIELD, *FREE]
    request = read_request({**BASE, "model": "llama-3.1-8b", **{field: OTHERS[field] for field in fields}})
    assert {row.field for row in stated(request)} == {*fields}
    document = evaluate(request)
    names = {lever.name for lever in levers(resolve(request, open_catalog()), document)}
    assert names >= {limit.metrics[-1] for limit in LIMITS} | {*FREE}
