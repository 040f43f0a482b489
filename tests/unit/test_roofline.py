"""Where phases are on the roofline: counted by the cost model, never above the peak."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.load import open_catalog
from planner.price import evaluate
from planner.problem import resolve
from planner.request import Request
from planner.service import Service
from planner.whatif.roofline import roofline

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tensor parallel": ({}, {"parallel": {"tp": 8}, "batch": {"decode_sequences": 4, "prefill_chunk_tokens": 2048}}),
    "pipeline": ({}, {"parallel": {"tp": 2, "pp": 4}, "batch": {"decode_sequences": 8, "prefill_chunk_tokens": 512}}),
    "two pools": (
        {},
        {
            "serving": "disaggregated",
            "pools": {
                "prefill": {"parallel": {"tp": 4}, "batch": {"prefill_chunk_tokens": 16384}},
                "decode": {"parallel": {"tp": 2}, "batch": {"decode_sequences": 2}},
            },
        },
    ),
    "experts": ({"model": "qwen3-30b-a3b", "ctx": 32_000}, {"parallel": {"tp": 4}, "batch": {"decode_sequences": 8}}),
    "windows": ({"model": "gemma-3-27b"}, {"parallel": {"tp": 4}, "batch": {"prefill_chunk_tokens": 1024}}),
}


@pytest.mark.parametrize("efficiency", ["peak", "measured"])
@pytest.mark.parametrize("name", CASES)
def test_no_phase_is_above_the_roofline(name: str, efficiency: str) -> None:
    changes, decision = CASES[name]
    asked = {"model": "llama-3.1-70b", "ctx": 64_000, "gpus": "8xH100", "efficiency": efficiency, **changes}
    problem = resolve(Request.model_validate(asked), open_catalog())
    evaluation = evaluate(problem, Service.model_validate({"engine": "vllm", **decision}))
    prefill, decode = roofline(problem, evaluation.service, evaluation.services[0].figures)
    pp = evaluation.service.parallel.pp
    assert prefill.seconds == evaluation.metrics.prefill_s
    assert decode.seconds == pytest.approx(evaluation.metrics.step_s / pp)
    for phase in (prefill, decode):
        assert 0.0 < phase.share_of_roofline <= 1.0 + 1e-9
        assert phase.share_of_roofline == max(phase.share_of_flops, phase.share_of_bandwidth)
        assert phase.bound == ("compute" if phase.intensity > phase.balance else "memory")
    assert prefill.bound == "compute"
    if efficiency == "peak":
        assert decode.share_of_roofline == pytest.approx(1.0)


def test_flops_of_a_prefill_are_what_one_counts_by_hand() -> None:
    asked = Request(model="llama-3.1-8b", ctx=32_000, gpus="1xA100", efficiency="peak")
    problem = resolve(asked, open_catalog())
    evaluation = evaluate(problem, Service.model_validate({"engine": "vllm"}))
    prefill, decode = roofline(problem, evaluation.service, evaluation.services[0].figures)
    model, tokens = problem.architecture, 32_000
    body = model.total_params - model.embedding_params - model.head_params - model.final_params
    attention = 2 * 32 * 32 * (128 + 128) * tokens * tokens / 2
    assert prefill.flops == pytest.approx(2 * body * tokens + attention + 2 * model.head_params, rel=1e-3)
    weights = 2 * (model.total_params - model.embedding_params)
    assert decode.bytes == pytest.approx(weights + model.kv_bytes(tokens), rel=1e-3)
