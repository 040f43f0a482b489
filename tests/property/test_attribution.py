"""Whatever two deployments are compared: the steps between them add up, and nothing is told twice or left out."""

from __future__ import annotations

import math
from itertools import pairwise, permutations
from typing import Any

import pytest

from planner import Document, Request, Service, evaluate
from planner.whatif.compare import compare
from planner.whatif.parts import differing

POOL = {"parallel": {"tp": 1}, "batch": {"prefill_chunk_tokens": 16384}}
DEPLOYMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"engine": "vllm", "parallel": {"tp": 2}, "batch": {"prefill_chunk_tokens": 512}}),
    "many": (
        {"gpus": "4xA100", "max_latency": 0.02},
        {
            "engine": "vllm",
            "weights": "int8_w8a8",
            "compression": {"hidden": {"technique": "kv_int8_pth"}},
            "parallel": {"tp": 1, "replicas": 4},
            "batch": {"decode_sequences": 12, "prefill_chunk_tokens": 2048, "prefill_throttled": True},
            "offload": {"policy": "swap", "tier": "ddr"},
        },
    ),
    "pools": (
        {"objective": "cost"},
        {
            "engine": "vllm",
            "serving": "disaggregated",
            "pools": {"prefill": POOL, "decode": {**POOL, "batch": {"decode_sequences": 4}}},
        },
    ),
    "long": (
        {"ctx": 400_000, "rounds": 2, "techniques": "published", "max_quality_loss": 0.5},
        {"engine": "sglang", "parallel": {"tp": 2}, "batch": {"prefill_chunk_tokens": 16384}},
    ),
    "other": (
        {"model": "qwen3-32b", "gpus": "8xH100", "ctx": 32_000, "users": 3},
        {"engine": "vllm", "parallel": {"tp": 4, "pp": 2}, "batch": {"prefill_chunk_tokens": 4096}},
    ),
}


def document(name: str) -> Document:
    changes, decision = DEPLOYMENTS[name]
    request = {"model": "llama-3.1-8b", "ctx": 50_000, "gpus": "2xA100", **changes}
    return evaluate(Request.model_validate(request), Service.model_validate(decision))


@pytest.fixture(scope="module")
def documents(cache: Any) -> dict[str, Document]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAN_CACHE", str(cache))
        return {name: document(name) for name in DEPLOYMENTS}


NAMES = tuple(DEPLOYMENTS)
ROUND = set(zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True))
PAIRS = [pytest.param(*pair, marks=() if pair in ROUND else pytest.mark.slow) for pair in permutations(NAMES, 2)]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_steps_add_up(documents: dict[str, Document], one: str, other: str) -> None:
    before, after = documents[one], documents[other]
    assert before.decision is not None
    assert after.decision is not None
    variant = compare(before, {other: after}).variants[0]
    cause = variant.cause
    assert cause is not None, variant.no_cause
    steps = cause.steps
    assert steps[0].before == cause.before
    assert steps[-1].after == cause.after
    assert all(first.after == second.before for first, second in pairwise(steps))
    assert math.prod(step.ratio or math.nan for step in steps) == pytest.approx(cause.ratio, rel=1e-12)
    assert math.fsum(step.difference or 0.0 for step in steps) == pytest.approx(cause.difference, rel=1e-9)
    assert math.fsum(step.share or 0.0 for step in steps) == pytest.approx(1.0, rel=1e-9)
    told = [(change.of, change.name) for step in steps for change in step.changes]
    requests = [{**Request.model_validate(d.request).model_dump()} for d in (before, after)]
    changed = {("request", name) for name in requests[0] if requests[0][name] != requests[1][name]}
    parts = {("decision", part) for part in differing(before.decision.services, after.decision.services)}
    assert sorted(told) == sorted(changed | parts)
    for step in steps:
        assert len(step.changes) == 1 or step.together_because or step.changes[1].of == "request"
