"""Nothing is priced faster than the roofline, computed here from the whole model, unsharded."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from catalog.architecture import Architecture, read_config
from catalog.load import open_catalog
from catalog.schema import Model
from planner.cost.price import price
from planner.cost.replica import Shape, shape_problems
from tests.cost_models import CONFIGS, candidates, hardware, measured, model, setting, without_overlap

KINDS = st.sampled_from(sorted(CONFIGS))
SHAPES = [
    Shape(tp=tp, pp=pp, dcp=dcp, pcp=pcp) for tp in (1, 2, 4, 8) for pp in (1, 2, 3) for dcp in (1, 2) for pcp in (1, 2)
]
FLOPS, BANDWIDTH, PCIE = 312e12, 2.039e12, 20e9
ROUND = 1 - 1e-9


@cache
def pairs(window: int | None, is_chunked: bool, cap: int | None, stride: int, n: int) -> float:
    """Attended entries of a causal prefill, counted query by query, each seeing half of itself."""
    i = np.arange(n) + 0.5
    if window is not None:
        i = np.floor(i) % window + 0.5 if is_chunked else np.minimum(i, window)
    entries = i / stride
    return float((entries if cap is None else np.minimum(entries, cap)).sum())


def prefill_flops(a: Architecture, n: int) -> float:
    linear = 2.0 * n * sum(layer.active_params for layer in a.layers) + n * sum(la.scan_flops for la in a.layers)
    attention = 0.0
    for la in a.layers:
        for t in la.cache:
            attention += t.prefill_flops * pairs(
                t.window_tokens, t.kind == "chunked", t.read_cap_tokens, t.stride_tokens, n
            )
    return linear + attention + 2.0 * a.head_params


def decode_work(a: Architecture, n: float, b: int) -> tuple[float, float]:
    """FLOPs and bytes of one step: bytes with every sequence choosing the same experts, the least there is."""
    flops = b * (
        2.0 * (sum(la.active_params for la in a.layers) + a.head_params) + sum(la.scan_flops for la in a.layers)
    )
    read = 2.0 * (sum(la.active_params for la in a.layers) + a.head_params + a.final_params)
    for la in a.layers:
        read += b * 2.0 * la.state_bytes
        for t in la.cache:
            kept = n if t.window_tokens is None else min(n, t.window_tokens)
            entries = kept / t.stride_tokens
            entries = entries if t.read_cap_tokens is None else min(entries, t.read_cap_tokens)
            flops += b * t.decode_flops * entries
            read += b * t.read_elements * t.element_bytes * entries
    return flops, read


@given(
    kind=KINDS,
    shape=st.sampled_from(SHAPES),
    ctx=st.integers(1, 150_000),
    b=st.integers(1, 64),
    chunk=st.sampled_from([0, 256, 2048, 16384]),
    policy=st.integers(0, 2),
    apart=st.booleans(),
    engine=st.sampled_from([None, "vllm", "sglang", "tensorrt-llm", "llama.cpp"]),
    machine=st.sampled_from([(312e12, 2.039e12), (1e12, 2.039e12), (312e12, 1e10)]),
)
@settings(max_examples=120)
def test_never_faster_than_the_roofline(
    kind: str,
    shape: Shape,
    ctx: int,
    b: int,
    chunk: int,
    policy: int,
    apart: bool,
    engine: str | None,
    machine: tuple[float, float],
) -> None:
    a = model(kind)
    assume(not shape_problems(a, shape))
    views: dict[str, Any] = {"efficiency": without_overlap()} if apart else {}
    if engine is not None:
        views["timer"] = measured(engine)
    peak_flops, bandwidth = machine
    gpu = hardware(
        hbm=1e15, flops=peak_flops, hbm_bandwidth=bandwidth
    )  # So that everything fits, and every latency is that of the decision.
    p = price(
        setting(a, ctx, shape, gpu=gpu, **views),
        candidates(decode_sequences=b, prefill_chunk=chunk, policy=policy, resident_limit=2 * b + 2),
    )
    assert p.fits[0]
    g = shape.gpus
    flops, read = decode_work(a, ctx, b)
    assert p.step_s[0] >= max(flops / (g * peak_flops), read / (g * bandwidth)) * ROUND
    weights = 2.0 * (sum(la.active_params for la in a.layers) + a.head_params)
    prompt = prefill_flops(a, ctx)
    least = max(prompt / (g * peak_flops), weights / (g * bandwidth))
    assert p.prefill_s[0] >= least * ROUND
    assert p.ttft_cold_s[0] >= p.prefill_s[0] * ROUND
    assert p.ttft_warm_s[0] >= weights / (g * bandwidth) * ROUND
    assert p.tpot_s[0] >= p.step_s[0]
    assert p.tpot_mean_s[0] >= p.step_s[0] * ROUND
    assert p.switch_s[0] >= 2 * a.kv_bytes(ctx) / (g * PCIE) * ROUND
    # What the GPUs do per second, and read, is what they can.
    work = prompt + 5 * 250 * flops / b
    assert p.sessions_per_s[0] * work * ROUND <= g * peak_flops
    assert p.sessions_per_s[0] * 5 * 250 * read / b * ROUND <= g * bandwidth


@given(kind=st.sampled_from(["moe", "mla", "chunked"]), b=st.integers(1, 64), tp=st.sampled_from([1, 2]))
def test_expert_parallel_replicas_share_what_they_read(kind: str, b: int, tp: int) -> None:
    a, replicas = model(kind), 4
    shape = Shape(tp=tp, ep=tp * replicas)
    assert not shape_problems(a, shape, replicas)
    p = price(setting(a, 1000, shape, gpu=hardware(hbm=1e15)), candidates(decode_sequences=b, replicas=replicas))
    flops, read = decode_work(a, 1000, b)
    routed = 2.0 * sum(la.experts.active * la.experts.params_each for la in a.layers if la.experts)
    least = replicas * (read - routed) + routed
    assert p.step_s[0] >= max(flops / (tp * FLOPS), least / (replicas * tp * BANDWIDTH)) * ROUND


def test_no_model_of_the_catalog_is_faster_than_the_roofline() -> None:
    for entry in open_catalog().all(Model):
        a = read_config(entry.config)
        for ctx in (3000, 100_000):
            p = price(
                setting(a, ctx, Shape(), Shape(pp=2), gpu=hardware(hbm=1e15)),
                candidates(shape=[0, 1], decode_sequences=4, prefill_chunk=2048),
            )
            flops, read = decode_work(a, ctx, 4)
            for row, gpus in enumerate((1, 2)):
                assert p.fits[row], entry.id
                assert p.step_s[row] >= max(flops / (gpus * FLOPS), read / (gpus * BANDWIDTH)) * ROUND, entry.id
                assert p.prefill_s[row] >= prefill_flops(a, ctx) / (gpus * FLOPS) * ROUND, entry.id
            assert p.sessions_that_fit[0] <= 1e15 / a.kv_bytes(ctx), entry.id
