"""Measured times as the cost model and the solver rely on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.cost.efficiency import Efficiency
from planner.cost.price import price
from planner.cost.replica import Shape, WeightFormat
from planner.measured.batch import uncompressed
from planner.measured.ends import EndTimer
from planner.measured.fabric import INSIDE, Fabric
from planner.measured.times import MeasuredTimer, StepTimes
from tests.cost_models import CONFIGS, candidates, measured, model, setting

BF16 = WeightFormat()
N = 60_000.0


def times(kind: str = "gqa", shape: Shape | None = None, engine: str = "vllm", fabric: Fabric = INSIDE) -> StepTimes:
    return StepTimes.of(model(kind), shape or Shape(), BF16, measured(engine).machine, fabric)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "llama.cpp"])
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_the_parts_of_a_step_are_linear_in_what_compression_leaves(kind: str, engine: str) -> None:
    left = uncompressed(np.full(3, N))
    shares = np.array([0.2, 0.6, 1.0])
    if kind != "indexer":  # Its reads are capped, and only narrower elements change them.
        left = replace(left, read_tokens=shares * N, attended_tokens=shares * N)
    left = replace(left, element_share=shares)
    if kind == "indexer":
        left = replace(left, read_tokens=np.full(3, N), attended_tokens=np.full(3, N))
    for part in times(kind, engine=engine).step_parts(np.full(3, 8.0), N, left):
        assert part[2] - part[1] == pytest.approx(part[1] - part[0], rel=1e-9, abs=1e-15)
        assert part[0] <= part[2]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_prefill_is_the_sum_of_its_chunks(kind: str) -> None:
    found, left = times(kind), uncompressed(np.array([N]))
    stage = found.stages[0]
    starts = np.arange(0.0, N, 2048.0)
    chunks = sum(float(stage.chunk_s(np.array([min(2048.0, N - s)]), s, left)[0]) for s in starts)
    assert found.prefill_s(0.0, N, np.array([2048.0]), left)[0][0] == pytest.approx(chunks, rel=0.01)


def test_exchanges_of_every_parallelism_take_time() -> None:
    left, one = uncompressed(np.full(1, 64.0)), np.ones(1)
    short = {
        shape: float(times("mqa", shape).step_s(one, 64.0, left)[0]) for shape in (Shape(tp=2), Shape(tp=2, dcp=2))
    }
    assert short[Shape(tp=2, dcp=2)] > short[Shape(tp=2)]
    spread = {ep: times("moe", Shape(tp=1, ep=ep)).step_s(np.full(1, 64.0), 64.0, left)[0] for ep in (2, 8)}
    assert spread[8] > 0.0
    node = Fabric(gpus_per_node=4, network_bytes_per_s=25e9)
    pipeline = Shape(tp=4, pp=2)
    size = np.full(1, 4096.0)
    near, far = (times("gqa", pipeline, fabric=f).chunk_s(size, 0.0, uncompressed(size))[0] for f in (INSIDE, node))
    assert far > near
    fit, message = measured().machine.all_reduce, np.array([1e6])
    assert node.all_reduce_s(fit, 8, message) > node.all_reduce_s(fit, 4, message)


def test_kernels_made_for_ampere_are_slower_on_hopper_only() -> None:
    left, one = uncompressed(np.full(1, N)), np.ones(1)
    for gpu, slower in (("a100-sxm-80gb", False), ("h100-sxm-80gb", True)):
        machine = measured("vllm", gpu).machine
        old = replace(machine, runtime=replace(machine.runtime, hopper_gpu=1.5))
        steps = [StepTimes.of(model("gqa"), Shape(), BF16, m).step_s(one, N, left)[0] for m in (machine, old)]
        assert bool(steps[1] > steps[0]) is slower


def test_the_ends_hold_the_middle_and_reach_a_kernel_that_splits_keys() -> None:
    timer = measured()
    left = uncompressed(np.full(2, 500_000.0))
    size, position = np.array([128.0, 16_384.0]), np.full(2, 480_000.0)
    low, middle, high = (
        t.times(model("gqa"), Shape(tp=8), BF16).chunk_s(size, position, left)
        for t in (EndTimer(timer, -1), timer, EndTimer(timer, 1))
    )
    assert (low < middle).all()
    assert (middle < high).all()
    splitting = replace(timer.machine, prefill=replace(timer.machine.prefill, chain=0.0))
    fast = MeasuredTimer(splitting).times(model("gqa"), Shape(tp=8), BF16).chunk_s(size, position, left)
    assert low[0] / middle[0] < np.sqrt(fast[0] / middle[0])
    assert high[0] / middle[0] > 1.5 * high[1] / middle[1]


def test_copies_run_at_the_rate_that_the_engine_reaches() -> None:
    full, half = (
        price(setting(model("gqa"), 50_000, efficiency=Efficiency("x", copies=copies)), candidates(policy=1))
        for copies in (1.0, 0.5)
    )
    assert half.switch_s[0] == pytest.approx(2.0 * full.switch_s[0])
