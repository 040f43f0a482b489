"""What must never hurt doesn't: more GPUs, shorter contexts, fewer KV bytes, more DDR, faster links."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.efficiency import PEAK, Efficiency
from planner.cost.price import Priced, Setting, price
from planner.cost.replica import Shape, shape_problems
from planner.cost.session import RECOMPUTE, SWAP
from tests.cost_models import CONFIGS, candidates, hardware, kept, measured, model, server, setting

KINDS = st.sampled_from(sorted(CONFIGS))
GROWING = Efficiency("growing", gpu_utilisation=0.85, growth=True, shared_uplinks=True)
TIMES = st.sampled_from([None, "vllm", "tensorrt-llm"])
VIEWS = st.sampled_from([PEAK, GROWING])
LATENCIES = ("prefill_s", "decode_s", "step_s", "tpot_s", "ttft_cold_s", "ttft_warm_s", "switch_s")
DECISIONS = st.fixed_dictionaries(
    {
        "decode_sequences": st.integers(1, 6),
        "prefill_chunk": st.sampled_from([0, 512, 4096]),
        "throttled": st.booleans(),
        "policy": st.integers(0, 2),
        "tier": st.integers(0, 1),
    }
)
SPLITS = st.sampled_from([Shape(), Shape(tp=2), Shape(tp=4), Shape(pp=2), Shape(tp=2, pp=2)])
ROOMY = server(host_memory="1000 TB", nvme={"capacity": "1000 TB", "read": "20 GB/s", "write": "10 GB/s"})
SLACK = 1 + 1e-9


def at(priced: Priced, name: str) -> float:
    return float(getattr(priced, name)[0])


def one(a_setting: Setting, decision: dict[str, Any], **more: Any) -> Priced:
    return price(a_setting, candidates(**{**decision, **more}))


@given(kind=KINDS, ctx=st.integers(1000, 900_000), gpus=st.integers(1, 15))
@settings(max_examples=20)
def test_more_gpus_never_lower_the_best_concurrency(kind: str, ctx: int, gpus: int) -> None:
    a = model(kind)
    shapes = [
        Shape(tp=tp, pp=pp, dcp=dcp)
        for tp in (1, 2, 4, 8)
        for pp in range(1, 5)
        for dcp in (1, 2, 4, 8)
        if not shape_problems(a, Shape(tp=tp, pp=pp, dcp=dcp))
    ]

    def best(count: int) -> float:
        rows = [(i, count // s.gpus) for i, s in enumerate(shapes) if s.gpus <= count]
        p = price(setting(a, ctx, *shapes), candidates(shape=[i for i, _ in rows], replicas=[r for _, r in rows]))
        return float(np.where(p.fits, p.concurrency, 0.0).max())

    assert best(gpus) <= best(gpus + 1)


@given(kind=KINDS, ctx=st.integers(1000, 900_000), tp=st.sampled_from([1, 2, 4]), pp=st.sampled_from([1, 2, 4]))
def test_a_wider_split_never_holds_fewer_sessions(kind: str, ctx: int, tp: int, pp: int) -> None:
    shapes = (Shape(tp=tp, pp=pp), Shape(tp=2 * tp, pp=pp), Shape(tp=2 * tp, pp=pp, dcp=2), Shape(tp=tp, pp=pp, pcp=2))
    p = price(setting(model(kind), ctx, *shapes), candidates(shape=[0, 1, 2, 3]))
    assert (p.sessions_that_fit[0] <= p.sessions_that_fit[1:]).all()
    assert (p.sessions_that_fit[1] <= p.sessions_that_fit[2]).all()


@given(
    kind=KINDS,
    ctx=st.integers(300, 300_000),
    more=st.integers(1, 300_000),
    shape=SPLITS,
    d=DECISIONS,
    view=VIEWS,
    times=TIMES,
)
@settings(max_examples=80)
def test_a_longer_context_never_lowers_a_cost(
    kind: str, ctx: int, more: int, shape: Shape, d: dict[str, Any], view: Efficiency, times: str | None
) -> None:
    timer = measured(times) if times else None
    short, long = (
        one(setting(model(kind), n, shape, efficiency=view, node=ROOMY, timer=timer), d) for n in (ctx, ctx + more)
    )
    assert at(long, "sessions_that_fit") <= at(short, "sessions_that_fit")
    assert at(long, "sessions_per_s") <= at(short, "sessions_per_s") * SLACK
    assert at(long, "usd_per_interaction") >= at(short, "usd_per_interaction") / SLACK
    for name in ("prefill_s", "switch_s"):
        assert at(long, name) >= at(short, name) / SLACK
    fixed = {"resident_limit": 2 * d["decode_sequences"] + 2}
    short, long = (
        one(setting(model(kind), n, shape, efficiency=view, node=ROOMY, timer=timer), d, **fixed)
        for n in (ctx, ctx + more)
    )
    for name in LATENCIES if at(long, "fits") and at(short, "fits") else ():
        assert at(long, name) >= at(short, name) / SLACK


@given(
    kind=KINDS,
    ctx=st.integers(300, 300_000),
    share=st.floats(0.05, 1.0),
    less=st.floats(0.05, 1.0),
    shape=SPLITS,
    d=DECISIONS,
    view=VIEWS,
    times=TIMES,
)
@settings(max_examples=80)
def test_fewer_kv_bytes_never_hurt(
    kind: str, ctx: int, share: float, less: float, shape: Shape, d: dict[str, Any], view: Efficiency, times: str | None
) -> None:
    timer = measured(times) if times else None
    fixed = {"resident_limit": 2 * d["decode_sequences"] + 2}
    more, fewer = (
        one(setting(model(kind), ctx, shape, efficiency=view, compression=kept(s), timer=timer), d, **fixed)
        for s in (share, share * less)
    )
    assert at(fewer, "fits") >= at(more, "fits")
    assert at(fewer, "sessions_that_fit") >= at(more, "sessions_that_fit")
    if at(more, "fits"):
        assert at(fewer, "interactions_per_hour") >= at(more, "interactions_per_hour") / SLACK
        for name in LATENCIES:
            assert at(fewer, name) <= at(more, name) * SLACK
    unlimited = [
        one(setting(model(kind), ctx, shape, efficiency=view, compression=kept(s), node=ROOMY, timer=timer), d)
        for s in (share, share * less)
    ]
    assert at(unlimited[1], "interactions_per_hour") >= at(unlimited[0], "interactions_per_hour") / SLACK


@given(kind=KINDS, ctx=st.integers(300, 200_000), ddr=st.floats(1e9, 1e13), pcie=st.floats(1e9, 1e11), d=DECISIONS)
def test_more_ddr_and_faster_pcie_never_hurt(kind: str, ctx: int, ddr: float, pcie: float, d: dict[str, Any]) -> None:
    d = {**d, "policy": SWAP, "tier": 0}

    def priced(ddr: float, pcie: float) -> Priced:
        node, gpu = server(host_memory=f"{ddr} B"), hardware(pcie=pcie)
        return one(setting(model(kind), ctx, Shape(tp=2), efficiency=GROWING, node=node, gpu=gpu), d)

    first, roomier, faster = priced(ddr, pcie), priced(2 * ddr, pcie), priced(ddr, 2 * pcie)
    for better in (roomier, faster):
        assert at(better, "interactions_per_hour") >= at(first, "interactions_per_hour") / SLACK
        for name in LATENCIES:
            assert at(better, name) <= at(first, name) * SLACK


@given(kind=KINDS, ctx=st.integers(300, 100_000), d=DECISIONS, shape=SPLITS)
def test_twice_as_fast_a_machine_takes_half_the_time(kind: str, ctx: int, d: dict[str, Any], shape: Shape) -> None:
    fixed = {"resident_limit": 2 * d["decode_sequences"] + 2, "policy": RECOMPUTE}
    slow = one(setting(model(kind), ctx, shape, gpu=hardware(hbm=1e14)), d, **fixed)
    fast_gpu = hardware(hbm=1e14, flops=624e12, hbm_bandwidth=4.078e12, pcie=40e9)
    fast = one(setting(model(kind), ctx, shape, gpu=fast_gpu, node=server(nvme=None)), d, **fixed, tier=0)
    for name in LATENCIES:
        if name != "switch_s":
            assert at(fast, name) == pytest.approx(at(slow, name) / 2)
    if at(slow, "bound") == at(fast, "bound"):
        assert at(fast, "interactions_per_hour") == pytest.approx(2 * at(slow, "interactions_per_hour"))


@given(kind=KINDS, ctx=st.integers(300, 200_000), tp=st.sampled_from([1, 2, 8]), b=st.integers(1, 4))
def test_each_metric_scales_with_its_own_resource(kind: str, ctx: int, tp: int, b: int) -> None:
    def priced(**gpu: float) -> Priced:
        s = setting(model(kind), ctx, Shape(tp=tp), gpu=hardware(hbm=1e14, **gpu))
        return price(s, candidates(decode_sequences=b, prefill_chunk=4096, resident_limit=2 * b + 2))

    # With compute for nothing a step is bytes only, and with bytes for nothing a prefill is compute only.
    assert at(priced(flops=1e30, hbm_bandwidth=4e12), "step_s") == pytest.approx(
        at(priced(flops=1e30, hbm_bandwidth=2e12), "step_s") / 2
    )
    assert at(priced(hbm_bandwidth=1e30, flops=6e14), "prefill_s") == pytest.approx(
        at(priced(hbm_bandwidth=1e30, flops=3e14), "prefill_s") / 2
    )
    assert at(priced(pcie=40e9), "switch_s") == pytest.approx(at(priced(pcie=20e9), "switch_s") / 2)


@given(kind=st.sampled_from(["gqa", "mha", "mqa"]), ctx=st.integers(10_000, 100_000))
def test_full_attention_stores_and_switches_in_proportion_to_the_context(kind: str, ctx: int) -> None:
    once, twice = (
        price(setting(model(kind), n, gpu=hardware(hbm=1e14)), candidates(resident_limit=1)) for n in (ctx, 2 * ctx)
    )
    assert at(twice, "kv_bytes") == pytest.approx(2 * at(once, "kv_bytes"))
    assert at(twice, "kv_bytes") == pytest.approx(model(kind).kv_bytes(2 * ctx))
    assert at(twice, "switch_s") == pytest.approx(2 * at(once, "switch_s"))


def test_a_dollar_more_per_hour_is_a_dollar_more() -> None:
    s = setting(model("gqa"), 10_000, Shape(tp=2))
    p = price(s, candidates(replicas=[1, 2, 4]))
    assert p.usd_per_hour == pytest.approx([2.0, 4.0, 8.0])
    assert p.usd_per_interaction == pytest.approx(p.usd_per_hour / p.interactions_per_hour)
    assert p.interactions_per_hour == pytest.approx(p.interactions_per_hour[0] * np.array([1, 2, 4]))
