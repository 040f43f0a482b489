"""A plan that its engine can't run, or that the request leaves out, is no plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog.load import open_catalog
from catalog.schema import Engine
from planner.price import evaluate
from planner.problem import resolve
from planner.request import Request
from planner.service import Service
from planner.space import open_space
from planner.verify import unavailable

POOL = {"parallel": {"tp": 1}}


def told(decision: dict[str, Any], **changes: Any) -> list[str]:
    asked = {"model": "llama-3.1-8b", "ctx": 32_000, "gpus": "4xA100", **changes}
    problem = resolve(Request.model_validate(asked), open_catalog())
    return unavailable(problem, open_space(problem), evaluate(problem, Service.model_validate(decision)))


def test_what_an_engine_cannot_split_or_separate_is_told() -> None:
    engine = "transformers-kvpress"
    able = open_catalog().get(Engine, engine)
    assert able.disaggregated is None
    assert not able.parallelism.pipeline
    pools = {"serving": "disaggregated", "pools": {"prefill": POOL, "decode": POOL}}
    problem = f"serving: {engine} has no separate prefill and decode pools"
    assert told({"engine": engine, **pools}, engine=engine) == [problem]
    assert not told({"engine": "vllm", **pools})
    split = {"parallel": {"tp": 1, "pp": 2}}
    assert told({"engine": engine, **split}, engine=engine) == [f"parallel: {engine} can't split by pp 2"]
    assert not told({"engine": "vllm", **split})


@pytest.mark.parametrize(
    ("changes", "decision", "said"),
    [
        ({"engine": "sglang"}, {"engine": "vllm"}, "engine: vllm isn't the --engine sglang that was asked for"),
        (
            {"weights": "bf16"},
            {"engine": "vllm", "weights": "int8_w8a8"},
            "weights: int8_w8a8 aren't the --weights bf16 that were asked for",
        ),
        (
            {"techniques": "kv_fp8_e4m3"},
            {"engine": "vllm", "compression": {"hidden": {"technique": "kv_int8_pth"}}},
            "compression.hidden: kv_int8_pth: isn't among the --techniques kv_fp8_e4m3 that were asked for",
        ),
    ],
)
def test_what_the_request_leaves_out_is_told_so(changes: Any, decision: Any, said: str) -> None:
    assert told({"parallel": {"tp": 1}, **decision}, **changes) == [said]


@pytest.mark.parametrize(
    ("kind", "deployed", "words"),
    [
        ("tensor_parallel", {"parallel": {"tp": 2}}, "tensor parallelism"),
        ("offload", {"parallel": {"tp": 1}, "offload": {"policy": "swap", "tier": "ddr"}}, "offload"),
        (
            "disaggregated",
            {"serving": "disaggregated", "pools": {"prefill": POOL, "decode": POOL}},
            "separate pools",
        ),
    ],
)
def test_a_technique_that_does_not_go_with_what_is_deployed_is_told(kind: str, deployed: Any, words: str) -> None:
    problem = resolve(Request(model="llama-3.1-8b", ctx=32_000, gpus="4xA100"), open_catalog())
    space = open_space(problem)
    rules = replace(space.compatibility, conditions=frozenset({("kv_int8_pth", kind)}))
    compression = {"hidden": {"technique": "kv_int8_pth"}}
    decision = Service.model_validate({"engine": "vllm", "compression": compression, **deployed})
    found = unavailable(problem, replace(space, compatibility=rules), evaluate(problem, decision))
    assert found == [f"compression: kv_int8_pth doesn't go with {words}"]
    assert not unavailable(problem, space, evaluate(problem, decision))
