"""Throughput is the least of the laws, each computed here by itself, number by number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.compute import chunk_s, decode_step_s, rates
from planner.cost.efficiency import PEAK, Efficiency
from planner.cost.price import Setting, price
from planner.cost.replica import Shape, Stage, WeightFormat, shard
from planner.cost.session import BOUNDS, NONE, RECOMPUTE, SWAP
from tests.cost_models import CONFIGS, candidates, left, model, server, setting

KINDS = st.sampled_from(sorted(CONFIGS))
GROWING = Efficiency("growing", gpu_utilisation=0.85, growth=True, shared_uplinks=True)
ANSWER, QUESTION, THINK = 250, 100, 60.0


@dataclass
class Replica:
    """A replica's times, one number at a time."""

    stages: tuple[Stage, ...]
    pp: int

    @staticmethod
    def of(kind: str, shape: Shape) -> Replica:
        return Replica(shard(model(kind), shape, WeightFormat()).stages, shape.pp)

    def stage_chunk(self, stage: Stage, position: float, size: float, worst: bool) -> float:
        rate = rates(312e12, 312e12, 2.039e12, PEAK)
        return float(chunk_s(stage, rate, np.array([size]), position, left(1), worst=worst)[0])

    def prefill(self, start: float, end: float, chunk: float) -> tuple[float, float, float, float]:
        """Busy and latency of a prefill, the steps that it gives way to, its last whole chunk through the pipeline."""
        size = min(chunk or math.inf, end - start)
        busy = 0.0
        for stage in self.stages:
            total, position = 0.0, start
            while position < end:
                total += self.stage_chunk(stage, position, min(size, end - position), False)
                position += size
            total += max(stage.head_flops / 312e12, stage.head_read_bytes / 2.039e12)
            busy = max(busy, total)
        last = max(self.stage_chunk(stage, end - size, size, True) for stage in self.stages)
        steps = (math.ceil((end - start) / size) + self.pp - 1) / self.pp
        return busy, busy + (self.pp - 1) * last, steps, self.pp * last

    def step(self, b: int, tokens: float) -> float:
        rate = rates(312e12, 312e12, 2.039e12, PEAK)
        micro = np.array([float(math.ceil(b / self.pp))])
        return self.pp * max(float(decode_step_s(s, rate, micro, tokens, left(tokens))[0]) for s in self.stages)


def session_bytes(stages: tuple[Stage, ...], tokens: float) -> float:
    """One session on the GPU that holds most of it."""
    sizes = []
    for stage in stages:
        kept = [tokens if t.window_tokens is None else min(tokens, t.window_tokens) for t in stage.terms]
        sizes.append(
            stage.state_bytes
            + sum(t.stored_bytes * n / t.stride_tokens for t, n in zip(stage.terms, kept, strict=True))
        )
    return max(sizes)


@given(
    kind=KINDS,
    shape=st.sampled_from([Shape(), Shape(tp=2), Shape(pp=2), Shape(tp=2, pp=2)]),
    ctx=st.integers(1000, 80_000),
    rounds=st.integers(1, 6),
    b=st.integers(1, 5),
    resident=st.integers(1, 9),
    chunk=st.sampled_from([0, 2000, 5000]),
    throttled=st.booleans(),
    policy=st.integers(0, 2),
    ddr=st.sampled_from([20e9, 200e9, 2e12]),
)
@settings(max_examples=100)
def test_interactions_per_hour_are_the_least_of_the_laws(
    kind: str,
    shape: Shape,
    ctx: int,
    rounds: int,
    b: int,
    resident: int,
    chunk: int,
    throttled: bool,
    policy: int,
    ddr: float,
) -> None:
    s = setting(model(kind), ctx, shape, efficiency=GROWING, node=server(host_memory=f"{ddr} B"), rounds=rounds)
    p = price(
        s,
        candidates(
            decode_sequences=b,
            resident_limit=resident,
            prefill_chunk=chunk,
            throttled=throttled,
            policy=policy,
            replicas=2,
        ),
    )
    replica, later, rho = Replica.of(kind, shape), rounds - 1, 0.85
    if not p.fits[0]:
        assert p.interactions_per_hour[0] == 0
        assert BOUNDS[p.bound[0]] == "memory"
        return
    serial = resident == 1 or (rounds > 1 and policy != RECOMPUTE and resident <= b + 1)
    turn, lengths = QUESTION + ANSWER, [ctx + k * (QUESTION + ANSWER) for k in range(rounds + 1)]
    b = 1 if serial else b
    step = replica.step(b, np.mean([n + QUESTION + ANSWER / 2 for n in lengths[:-1]]))
    busy, latency, steps, largest = replica.prefill(0, ctx + QUESTION, chunk)
    again = [0.0] * 4
    if later and policy == RECOMPUTE:
        ends = [replica.prefill(0, n + QUESTION, chunk) for n in (lengths[1], lengths[-2])]
        again = [(ends[0][0] + ends[1][0]) / 2, *ends[1][1:]]
    elif later:
        warm = ctx + rounds / 2 * turn
        again = [*replica.prefill(warm, warm + QUESTION, chunk)[:3]]
        again.append(replica.prefill(lengths[-2], lengths[-2] + QUESTION, chunk)[3])
    largest = max(largest, again[3])
    pcie = 20e9 / 2  # Two GPUs share an uplink.
    swap = session_bytes(replica.stages, ctx + rounds / 2 * turn) / pcie if policy == SWAP and later else 0.0
    hold = THINK if policy == NONE else 2 * swap
    work = busy + later * again[0]
    decode = rounds * ANSWER * step
    cold = latency + (0.0 if serial else steps * step)
    wait = 0.0 if serial else (step + largest if throttled else cold) + again[2] * step
    warm_ttft = swap + wait + again[1]
    laws = []
    if serial:
        laws.append(rho / (latency + decode + later * (hold + again[1])))
    else:
        laws.append(rho / (work + decode / b))
        if later * hold > 0:
            laws.append((resident - b - 1) / (later * hold))
    if policy == SWAP:
        out = session_bytes(replica.stages, lengths[-2]) / pcie if later else 0.0
        if later:
            laws.append(rho / max(later * swap, out))
        held = ddr * shape.gpus / 8 / (session_bytes(replica.stages, lengths[-1]) * shape.gpus)
        # Little's law with the tokens' mean time, which depends on X itself: solved by bisection.
        low, high = 0.0, 1e3 if serial else 1 / work * (1 - 1e-12)
        for _ in range(200):
            x = (low + high) / 2
            lasts = cold + later * (THINK + warm_ttft) + decode / (1.0 if serial else 1 - x * work)
            low, high = (x, high) if x * lasts <= held else (low, x)
        laws.append(low)
    assert p.interactions_per_hour[0] == pytest.approx(3600 * rounds * 2 * min(laws), rel=1e-6)
    assert p.ttft_cold_s[0] == pytest.approx(cold)
    assert p.ttft_warm_s[0] == pytest.approx(warm_ttft)
    assert p.tpot_s[0] == pytest.approx(step + (0.0 if serial else largest))
    x = p.sessions_per_s[0] / 2
    mean = step / (1.0 if serial else 1 - x * work)
    assert p.tpot_mean_s[0] == pytest.approx(mean, rel=1e-6)
    users = p.sessions_per_s[0] * (cold + rounds * ANSWER * mean + later * (THINK + warm_ttft))
    assert p.users[0] == pytest.approx(users, rel=1e-6)


@given(
    kind=KINDS,
    pools=st.sampled_from([(Shape(), Shape()), (Shape(tp=2), Shape(pp=2)), (Shape(pp=2), Shape(tp=2))]),
    replicas=st.sampled_from([(1, 1), (2, 1), (1, 2)]),
    ctx=st.integers(1000, 80_000),
    rounds=st.integers(1, 6),
    b=st.integers(1, 5),
    chunk=st.sampled_from([0, 2000, 5000]),
    throttled=st.booleans(),
    policy=st.integers(0, 2),
    ddr=st.sampled_from([20e9, 200e9, 2e12]),
)
@settings(max_examples=60)
def test_two_pools_serve_the_least_of_the_laws(
    kind: str,
    pools: tuple[Shape, Shape],
    replicas: tuple[int, int],
    ctx: int,
    rounds: int,
    b: int,
    chunk: int,
    throttled: bool,
    policy: int,
    ddr: float,
) -> None:
    """Every prompt is prefilled in one pool, where caches wait, and sent whole to the other, which decodes."""
    node = server(host_memory=f"{ddr} B")
    s = setting(model(kind), ctx, *pools, efficiency=GROWING, node=node, rounds=rounds)
    asked = {"policy": policy, "throttled": throttled, "decode_sequences": b}
    two = {"shape": 0, "replicas": replicas[0], "prefill_shape": 1, "prefill_replicas": replicas[1]}
    p = price(s, candidates(**asked, **two, prefill_pool_chunk=chunk))
    holds = [float(price(s, candidates(shape=i)).sessions_that_fit[0]) for i in (0, 1)]
    if not p.fits[0]:
        assert min(holds) < 1 or (b > 1 and holds[0] < b + 1)
        return
    decoding, prefilling = (Replica.of(kind, shape) for shape in pools)
    later, rho, ratio = rounds - 1, 0.85, replicas[1] / replicas[0]
    lengths = [ctx + k * (QUESTION + ANSWER) for k in range(rounds + 1)]
    serial = holds[0] <= 1
    answer = ANSWER * decoding.step(b, np.mean([n + QUESTION + ANSWER / 2 for n in lengths[:-1]]))
    busy, latency, _, largest = prefilling.prefill(0, ctx + QUESTION, chunk)
    again = [0.0] * 4
    if later and policy == RECOMPUTE:
        ends = [prefilling.prefill(0, n + QUESTION, chunk) for n in (lengths[1], lengths[-2])]
        again = [(ends[0][0] + ends[1][0]) / 2, *ends[1][1:]]
    elif later:
        # The answer that the other pool gave is prefilled with the question after it.
        spans = [(n - ANSWER, n + QUESTION) for n in (ctx + rounds / 2 * (QUESTION + ANSWER), lengths[-2])]
        again = [*prefilling.prefill(*spans[0], chunk)[:3], prefilling.prefill(*spans[1], chunk)[3]]
    warm = ctx + rounds / 2 * (QUESTION + ANSWER)
    swap = session_bytes(prefilling.stages, warm) / 10e9 if policy == SWAP and later else 0.0
    gpus = [shape.gpus for shape in pools]
    link = s.hardware.gpu_link.effective
    sent = [session_bytes(decoding.stages, n) * gpus[0] for n in (ctx + QUESTION, warm + QUESTION)]
    first, second = (n / (link * min(gpus)) for n in sent)
    moved = first + later * second
    hold = {NONE: THINK + answer, SWAP: 2 * swap, RECOMPUTE: 0.0}[policy]
    cold = latency + first + answer / ANSWER
    wait = max(largest, again[3]) if throttled else latency
    warm_ttft = swap + wait + again[1] + second + answer / ANSWER
    session = cold + later * (THINK + warm_ttft) + rounds * answer
    waiting = (latency + later * again[1]) / rho + later * hold + moved
    laws = [
        rho / (moved + rounds * answer) if serial else rho * b / (rounds * answer),
        math.inf if serial else (holds[0] - b) / moved,
        ratio * holds[1] / waiting,
        ratio * rho / (busy + later * again[0]),
        rho * link * min(gpus[0], gpus[1] * ratio) / (sent[0] + later * sent[1]),
    ]
    if policy == SWAP:
        out = session_bytes(prefilling.stages, lengths[-2]) / 10e9 if later else 0.0
        laws += [ratio * rho / max(later * swap, out)] if later else []
        held = ddr * gpus[1] / 8 / (session_bytes(prefilling.stages, lengths[-1]) * gpus[1])
        laws.append(ratio * held / session)
    assert p.sessions_per_s[0] == pytest.approx(replicas[0] * min(laws), rel=1e-6)
    assert (p.ttft_cold_s[0], p.ttft_warm_s[0]) == (pytest.approx(cold), pytest.approx(warm_ttft))
    assert p.tpot_s[0] == p.tpot_mean_s[0] == pytest.approx(answer / ANSWER)
    assert p.users[0] == pytest.approx(p.sessions_per_s[0] * session, rel=1e-6)


def disaggregated(s: Setting, **columns: int) -> tuple[float, str]:
    p = price(s, candidates(prefill_shape=0, prefill_pool_chunk=4096, **columns))
    return float(p.sessions_per_s[0]), BOUNDS[p.bound[0]]


def test_disaggregated_pools_are_bound_by_the_slower_pool_or_their_link() -> None:
    s = setting(model("gqa"), 50_000, Shape(tp=2), think_s=0.0)
    alone = Replica.of("gqa", Shape(tp=2))
    busy, *_ = alone.prefill(0, 50_000, 4096)
    question, *_ = alone.prefill(50_000, 50_350, 0)
    x, bound = disaggregated(s, prefill_replicas=1, replicas=1, decode_sequences=8, policy=RECOMPUTE)
    assert (x, bound) == (pytest.approx(1 / (5 * busy), rel=1e-2), "prefill")
    x, bound = disaggregated(s, prefill_replicas=1, replicas=3, decode_sequences=4, policy=SWAP)
    assert (x, bound) == (pytest.approx(1 / (busy + 4 * question)), "prefill")
    x, bound = disaggregated(s, prefill_replicas=3, replicas=1, decode_sequences=1)
    assert (x, bound) == (pytest.approx(1 / (5 * 250 * alone.step(1, 50_000))), "gpu")
    node = server(nic={"kind": "Ethernet", "bandwidth": "80 MB/s"}, gpus=8)
    slow = setting(model("gqa"), 50_000, Shape(tp=8), node=node, think_s=0.0)
    x, bound = disaggregated(slow, prefill_replicas=1, replicas=1, decode_sequences=8, policy=SWAP)
    kv = model("gqa").kv_bytes(50_000)
    assert (x, bound) == (pytest.approx(80e6 / (5 * kv)), "link")


def test_a_foreign_document_delays_no_token_of_a_decode_pool_but_a_question_in_the_prefill_pool() -> None:
    s = setting(model("gqa"), 100_000, Shape(tp=2))
    together = price(s, candidates(decode_sequences=4, prefill_chunk=4096, replicas=2))
    asked = {"decode_sequences": 4, "replicas": 1, "prefill_shape": 0, "prefill_replicas": 1}
    apart = price(s, candidates(**asked))
    assert apart.tpot_s[0] == apart.step_s[0] < together.tpot_s[0]
    assert apart.ttft_warm_s[0] > apart.prefill_s[0]
    kv = model("gqa").kv_bytes(100_000)
    latency = apart.ttft_cold_s[0] - apart.prefill_s[0] - apart.step_s[0]
    assert latency == pytest.approx(kv / (2 * 228e9))
    yielding = price(s, candidates(**asked, throttled=True, prefill_pool_chunk=4096))
    assert yielding.ttft_warm_s[0] < apart.ttft_warm_s[0] / 2
