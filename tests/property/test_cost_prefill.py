"""The closed form of a prefill equals the loop over its chunks, and a chunk what its definition says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.compute import Rates, _sum_of_larger, attended_pairs, chunk_s, prefill_s
from planner.cost.replica import Shape, Stage, TermCost, WeightFormat, shard
from tests.cost_models import CONFIGS, left, model

KINDS = st.sampled_from(sorted(CONFIGS))


def loop_s(stage: Stage, rate: Rates, start: float, end: float, size: float, pcp: int) -> float:
    one = left(end)
    total, position = 0.0, start
    while position < end:
        tokens = min(size, end - position)
        total += float(chunk_s(stage, rate, np.array([tokens]), position, one, pcp)[0])
        position += tokens
    head = max(stage.head_flops / rate.linear_flops_per_s, stage.head_read_bytes / rate.hbm_bytes_per_s)
    return total + head


@given(
    kind=KINDS,
    tp=st.sampled_from([1, 2, 8]),
    pcp=st.sampled_from([1, 2]),
    start=st.integers(0, 40_000),
    tokens=st.integers(1, 60_000),
    size=st.integers(300, 70_000),
    overlap=st.booleans(),
    bandwidth=st.sampled_from([1e9, 3e10, 3e11, 2e12, 1e15]),
)
@settings(max_examples=100)
def test_closed_form_equals_the_loop(
    kind: str, tp: int, pcp: int, start: int, tokens: int, size: int, overlap: bool, bandwidth: float
) -> None:
    stage = shard(model(kind), Shape(tp=tp, pcp=pcp), WeightFormat()).stages[0]
    rate = Rates(312e12, 200e12, bandwidth, overlap)
    closed = prefill_s(stage, rate, start, start + tokens, np.array([float(size)]), left(tokens), pcp)
    assert closed[0] == pytest.approx(loop_s(stage, rate, start, start + tokens, size, pcp), rel=1e-9)


@given(f0=st.floats(0, 10), f1=st.floats(-2, 2), g0=st.floats(0, 10), g1=st.floats(-2, 2), count=st.integers(0, 60))
def test_sum_of_the_larger_of_two_lines(f0: float, f1: float, g0: float, g1: float, count: int) -> None:
    arrays = [np.array([value]) for value in (f0, f1, g0, g1, float(count))]
    expected = sum(max(f0 + f1 * j, g0 + g1 * j) for j in range(count))
    assert _sum_of_larger(*arrays)[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def term(window: int | None = None, chunked: bool = False, stride: int = 1, cap: int | None = None) -> TermCost:
    return TermCost(window, chunked, stride, cap, True, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)


@given(tokens=st.integers(1, 3000), window=st.integers(1, 700), chunked=st.booleans())
def test_pairs_of_windows_are_those_that_a_mask_leaves(tokens: int, window: int, chunked: bool) -> None:
    i = np.arange(tokens)
    # Each query sees half of itself: the integral that n^2 / 2 stands for.
    seen = (i % window if chunked else np.minimum(i, window - 0.5)) + 0.5
    pairs = float(attended_pairs(term(window, chunked), float(tokens)))
    if chunked:
        assert -1e-6 <= pairs - seen.sum() <= window**2 / 8 + 1e-6
        whole = float(tokens - tokens % window)
        assert float(attended_pairs(term(window, True), whole)) == pytest.approx(whole * min(window, whole) / 2)
    else:
        assert pairs == pytest.approx(seen.sum(), rel=1e-9)


@given(tokens=st.integers(1, 5000), cap=st.integers(1, 300), stride=st.sampled_from([1, 4, 128]))
def test_pairs_of_top_k_are_capped_per_query(tokens: int, cap: int, stride: int) -> None:
    entries = np.minimum((np.arange(tokens) + 0.5) / stride, cap)
    pairs = float(attended_pairs(term(cap=cap, stride=stride), float(tokens)))
    assert pairs == pytest.approx(entries.sum(), rel=1e-3, abs=1.0)


@given(kind=KINDS, size=st.integers(16, 20_000), start=st.integers(0, 100_000), tokens=st.integers(1, 50_000))
@settings(max_examples=60)
def test_more_tokens_never_take_less_time(kind: str, size: int, start: int, tokens: int) -> None:
    stage = shard(model(kind), Shape(), WeightFormat()).stages[0]
    sizes = np.array([float(size)])
    for bandwidth in (1e10, 2e12):
        rate = Rates(312e12, 312e12, bandwidth, True)
        times = [prefill_s(stage, rate, start, start + n, sizes, left(n))[0] for n in (tokens, tokens + 1, 2 * tokens)]
        assert times[0] <= times[1] * (1 + 1e-12)
        assert times[1] <= times[2] * (1 + 1e-12)


@given(size=st.integers(1, 30_000), position=st.integers(0, 60_000))
def test_the_worst_chunk_is_no_cheaper_than_any_phase(size: int, position: int) -> None:
    stage = shard(model("chunked"), Shape(), WeightFormat()).stages[0]
    rate = Rates(1e30, 312e12, 1e30, True)
    window = 8192
    worst = chunk_s(stage, rate, np.array([float(size)]), position, left(1), worst=True)[0]
    mean = chunk_s(stage, rate, np.array([float(size)]), position, left(1))[0]
    i = position + np.arange(size)
    flops = 0.0
    for t in stage.terms:
        seen = (i % window if t.chunked else i) + 0.5
        flops += t.prefill_flops * seen.sum()
    assert worst >= flops / 312e12 * (1 - 1e-9)
    assert worst >= mean * (1 - 1e-9) or position < window
