"""Where prefill and decode of a plan are on the roofline.

FLOPs and bytes are the cost model's own, counted by asking it for times on a GPU whose other resource is
free; the time is the plan's. With pipeline stages the busiest one counts, with its bubbles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from planner.cost.compute import Rates, decode_step_s, prefill_s
from planner.cost.pool import Pool, compressed
from planner.cost.price import price
from planner.cost.replica import Stage
from planner.price import Figures, priced_setting
from planner.problem import Problem
from planner.service import Service
from planner.whatif.explained import Phase

_LINEAR = Rates(1.0, math.inf, math.inf, overlap=True)
_ATTENTION = Rates(math.inf, 1.0, math.inf, overlap=True)
_BYTES = Rates(math.inf, math.inf, 1.0, overlap=True)


def roofline(problem: Problem, service: Service, figures: Figures) -> tuple[Phase, ...]:
    """The document's prefill and one decode step of a plan, on the GPU that works most.

    Parameters
    ----------
    problem, service
        The plan, and its service.
    figures
        The service's times.
    """
    setting, candidates = priced_setting(problem, service)
    work = problem.workload
    left = compressed(setting.compression, work.prompt_tokens, work.decode_tokens, False)
    pools = [Pool.of(setting, index, left) for index in range(len(setting.shapes))]
    decode, prefill = pools[0], pools[-1]
    resident = float(price(setting, candidates).resident[0])
    sequences = 1.0 if resident <= 1.0 else float(candidates.decode_sequences[0])
    pp = decode.replica.shape.pp
    micro = np.ceil(np.array([sequences]) / pp)

    def step(stage: Stage, rate: Rates) -> float:
        return float(decode_step_s(stage, rate, micro, work.decode_tokens, left)[0])

    asked = int((candidates.prefill_pool_chunk if len(pools) > 1 else candidates.prefill_chunk)[0])
    start, end = float(work.shared_prefix_tokens), float(work.ctx_tokens)
    size = np.array([min(float(asked), end - start) if asked else end - start])
    pcp = prefill.replica.shape.pcp

    def document(stage: Stage, rate: Rates) -> float:
        return float(prefill_s(stage, rate, start, end, size, left, pcp)[0])

    peak_linear, peak_attention, peak_bytes = _peaks(problem, decode)
    at = (peak_linear, peak_attention, peak_bytes)
    return (
        _phase("prefill", [_counts(document, s) for s in prefill.replica.stages], figures.prefill_s, at),
        _phase("decode", [_counts(step, s) for s in decode.replica.stages], figures.step_s / pp, at),
    )


def _counts(time_of: Callable[[Stage, Rates], float], stage: Stage) -> tuple[float, float, float]:
    """FLOPs of the linear layers, FLOPs of attention, bytes."""
    linear, attention, moved = (time_of(stage, rate) for rate in (_LINEAR, _ATTENTION, _BYTES))
    return linear, attention, moved


def _peaks(problem: Problem, pool: Pool) -> tuple[float, float, float]:
    flops = problem.cluster.hardware.flops
    linear = getattr(flops, pool.replica.linear_precision) or flops.bf16
    return float(linear), float(flops.bf16), float(problem.cluster.hardware.hbm_bandwidth)


def _phase(
    name: Literal["prefill", "decode"],
    stages: list[tuple[float, float, float]],
    seconds: float,
    peaks: tuple[float, float, float],
) -> Phase:
    def times(counts: tuple[float, float, float]) -> tuple[float, float]:
        return counts[0] / peaks[0] + counts[1] / peaks[1], counts[2] / peaks[2]

    busiest = max(stages, key=lambda counts: max(times(counts)))
    compute_s, memory_s = times(busiest)
    flops = busiest[0] + busiest[1]
    return Phase(
        name=name,
        flops=flops,
        bytes=busiest[2],
        seconds=seconds,
        intensity=flops / busiest[2],
        balance=flops / compute_s / peaks[2],
        bound="compute" if compute_s > memory_s else "memory",
        roofline_s=max(compute_s, memory_s),
        share_of_roofline=max(compute_s, memory_s) / seconds,
        share_of_flops=compute_s / seconds,
        share_of_bandwidth=memory_s / seconds,
    )
