"""Each law of the steady state, binding by itself, on numbers that one can check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.cost.efficiency import Efficiency
from planner.cost.links import both_ways_ratio
from planner.cost.price import price
from planner.cost.replica import Shape
from planner.cost.session import BOUNDS, NONE, RECOMPUTE, SWAP, Phases, Traffic, aggregated
from tests.cost_models import candidates, hardware, model, server, setting


def numbers(**values: float) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in values.items()}


PHASES = Phases(
    **numbers(
        prefill_busy_s=10.0,
        prefill_latency_s=10.0,
        prefill_steps=5.0,
        largest_chunk_s=2.0,
        step_s=0.02,
        later_prefill_busy_s=0.5,
        later_prefill_latency_s=0.5,
        later_prefill_steps=1.0,
        swap_in_s=0.0,
        swap_out_s=0.0,
        swap_out_total_s=0.0,
        switch_s=2.0,
    )
)
"""Five rounds of 100 tokens: prefill 10 + 4 * 0.5 = 12 s, decode 5 * 100 * 0.02 = 10 s."""

TRAFFIC = Traffic(
    rounds=5,
    output_tokens=100,
    think_s=30.0,
    decode_sequences=np.array([4.0]),
    resident=np.array([1000.0]),
    serial=np.array([False]),
    policy=np.array([NONE]),
    throttled=np.array([False]),
    tier_sessions=np.array([1000.0]),
    gpu_utilisation=1.0,
    both_ways_ratio=2.0,
    decode_reserves=False,
)


def swapping(into: float, out: float, total: float) -> Phases:
    return replace(PHASES, **numbers(swap_in_s=into, swap_out_s=out, swap_out_total_s=total))


def law(phases: Phases, **traffic: object) -> tuple[float, str]:
    wrapped = {k: np.array([v]) if k not in ("gpu_utilisation", "both_ways_ratio") else v for k, v in traffic.items()}
    steady = aggregated(phases, replace(TRAFFIC, **wrapped))
    return float(steady.sessions_per_s[0]), BOUNDS[steady.bound[0]]


def test_gpu_law() -> None:
    assert law(PHASES) == (pytest.approx(1 / (12 + 10 / 4)), "gpu")
    assert law(PHASES, gpu_utilisation=0.5) == (pytest.approx(0.5 / 14.5), "gpu")


def test_hbm_law_holds_sessions_that_read_swap_or_nothing() -> None:
    # Two sessions beside four that decode and one in prefill, each away for 4 * 30 s.
    assert law(PHASES, resident=7.0) == (pytest.approx(2 / 120), "hbm")
    swaps = swapping(5.0, 5.0, 5.0)
    assert law(swaps, resident=6.0, policy=SWAP) == (pytest.approx(1 / 40), "hbm")
    assert law(PHASES, resident=6.0, policy=RECOMPUTE) == (pytest.approx(1 / 14.5), "gpu")


def test_pcie_law_takes_the_busier_direction_or_their_sum() -> None:
    assert law(swapping(5.0, 5.0, 8.0), policy=SWAP) == (pytest.approx(1 / 20), "pcie")
    assert law(swapping(5.0, 25.0, 40.0), policy=SWAP) == (pytest.approx(1 / 40), "pcie")
    assert law(swapping(5.0, 5.0, 10.0), policy=SWAP, both_ways_ratio=1.2) == (pytest.approx(1.2 / 30), "pcie")
    assert law(swapping(5.0, 5.0, 8.0), policy=SWAP, gpu_utilisation=0.8) == (pytest.approx(0.8 / 20), "pcie")


def test_tier_law_holds_every_session_to_its_end() -> None:
    quick = swapping(0.1, 0.1, 0.2)
    x, bound = law(quick, policy=SWAP, tier_sessions=3.0)
    steady = aggregated(quick, replace(TRAFFIC, policy=np.array([SWAP]), tier_sessions=np.array([3.0])))
    assert bound == "ddr"
    assert x * float(steady.session_s[0]) == pytest.approx(3.0)
    assert law(quick, tier_sessions=0.0)[1] == "gpu"  # Without swapping nothing is held.
    assert law(quick, policy=SWAP, tier_sessions=0.0)[0] == 0.0


def test_serial_service_waits_for_everything() -> None:
    alone = {"serial": True, "decode_sequences": 1.0, "resident": 1.0}
    assert law(PHASES, **alone) == (pytest.approx(1 / (10 + 10 + 4 * (30 + 0.5))), "serial")
    swaps = swapping(3.0, 4.0, 5.0)
    assert law(swaps, **alone, policy=SWAP) == (pytest.approx(1 / (10 + 10 + 4 * (7 + 0.5))), "serial")
    assert law(PHASES, **alone, policy=RECOMPUTE) == (pytest.approx(1 / (10 + 10 + 4 * 0.5)), "serial")


def test_latencies_with_and_without_company() -> None:
    together = aggregated(swapping(3.0, 3.0, 3.0), replace(TRAFFIC, policy=np.array([SWAP])))
    assert together.tpot_s[0] == pytest.approx(0.02 + 2)
    assert together.ttft_cold_s[0] == pytest.approx(10 + 5 * 0.02)
    assert together.ttft_warm_s[0] == pytest.approx(3 + 10.1 + 0.5 + 0.02)
    throttled = aggregated(PHASES, replace(TRAFFIC, throttled=np.array([True])))
    assert throttled.ttft_warm_s[0] == pytest.approx(2.02 + 0.5 + 0.02)
    x = float(throttled.sessions_per_s[0])
    assert throttled.tpot_mean_s[0] == pytest.approx(0.02 / (1 - 12 * x))
    assert throttled.session_s[0] == pytest.approx(10.1 + 500 * 0.02 / (1 - 12 * x) + 4 * (30 + 2.54))
    alone = aggregated(PHASES, replace(TRAFFIC, serial=np.array([True])))
    assert (alone.tpot_s[0], alone.ttft_cold_s[0], alone.ttft_warm_s[0]) == (0.02, 10.0, 0.5)
    assert alone.tpot_mean_s[0] == 0.02


def test_swapping_out_writes_the_last_cache_once_and_one_round_swaps_nothing() -> None:
    view = Efficiency("growing", growth=True)
    disk = server(nvme={"capacity": "1000 TB", "read": "100 GB/s", "write": "0.2 GB/s"})
    decision = candidates(policy=SWAP, tier=1, decode_sequences=16, throttled=True, prefill_chunk=2048)
    p = price(setting(model("mqa"), 100_000, efficiency=view, node=disk, rounds=3, output_tokens=1000), decision)
    last = 100_000 + 2 * 1100  # Before the third round; 4096 bytes a token, 25 MB/s for one of eight GPUs.
    assert BOUNDS[p.bound[0]] == "pcie"
    assert p.sessions_per_s[0] == pytest.approx(1 / (last * 4096 / 25e6))
    once, kept = (
        price(setting(model("mqa"), 100_000, node=disk, rounds=1), candidates(policy=policy, tier=1))
        for policy in (SWAP, NONE)
    )
    assert once.sessions_per_s[0] == kept.sessions_per_s[0]


def test_both_directions_are_capped_where_the_host_caps_them() -> None:
    shared = setting(model("gqa"), 1000, Shape(), efficiency=Efficiency("x", shared_uplinks=True))
    assert both_ways_ratio(shared) == 2.0
    gpu = hardware()
    capped = gpu.model_copy(update={"pcie": gpu.pcie.model_copy(update={"effective_both": 35e9})})
    assert both_ways_ratio(replace(shared, hardware=capped)) == 1.75
    assert both_ways_ratio(setting(model("gqa"), 1000, gpu=capped)) == 2.0
