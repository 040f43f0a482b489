"""Time of a prefill chunk, of a whole prefill and of a decode step on one stage: the roofline.

Arrays have one axis, ``(candidate,)``. Lengths and positions are in tokens, times in seconds.

A chunk of s tokens at position m multiplies ``2 s P`` FLOPs in the linear layers, attends over
``s (m + s/2)`` pairs (fewer in windows), and reads the weights and the KV prefix m once. A decode
step of b sequences multiplies ``2 b P``, and reads the weights once and b caches.

References
----------
Y. Fu 2024, arXiv 2405.08944: prefill is bounded by FLOP/s, decode by HBM bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from planner.cost.efficiency import Efficiency
from planner.cost.replica import ExpertCost, Stage, TermCost

Floats = NDArray[np.float64]
T = TypeVar("T", float, Floats)


@dataclass(frozen=True, slots=True)
class Rates:
    """What one GPU delivers to a stage, efficiency included."""

    linear_flops_per_s: float
    attention_flops_per_s: float
    hbm_bytes_per_s: float
    overlap: bool


def rates(flops_per_s: float, linear_flops_per_s: float, hbm_bytes_per_s: float, efficiency: Efficiency) -> Rates:
    """Return a GPU's rates; the linear layers may run in another precision than attention."""
    return Rates(
        linear_flops_per_s=linear_flops_per_s * efficiency.linear_flops,
        attention_flops_per_s=flops_per_s * efficiency.attention_flops,
        hbm_bytes_per_s=hbm_bytes_per_s * efficiency.hbm_bandwidth,
        overlap=efficiency.overlap,
    )


@dataclass(frozen=True, slots=True)
class Compressed:
    """What compression leaves at one length, ``(candidate,)`` each."""

    read_tokens: Floats
    """Tokens' worth of bytes that a decode step reads of a growing cache."""
    attended_share: Floats
    element_share: Floats
    prefix_share: Floats
    prefill_linear: Floats
    prefill_attention: Floats


def attended_pairs(term: TermCost, tokens: T) -> T:
    """Query-key pairs of a causal prefill from 0 to ``tokens``, in cached entries.

    ``n^2 / 2`` for full attention; linear in n beyond a sliding window or a top-k; a saw-tooth
    integral for aligned chunks.
    """
    reach = term.window_tokens
    if term.cap_entries is not None:
        reach = term.cap_entries * term.stride_tokens
    if reach is None:
        return tokens * tokens / (2.0 * term.stride_tokens)
    if term.chunked:
        whole = np.floor_divide(tokens, reach)
        rest = tokens - whole * reach
        return (whole * reach * reach + rest * rest) / (2.0 * term.stride_tokens)  # type: ignore[return-value]
    inside = np.minimum(tokens, reach)
    return (inside * inside / 2.0 + (tokens - inside) * reach) / term.stride_tokens  # type: ignore[return-value]


def experts_read_bytes(experts: tuple[ExpertCost, ...], tokens: T) -> T:
    """Bytes of the routed experts that ``tokens`` tokens touch, on one GPU.

    With k of E experts per token, a given expert is touched with probability 1 - (1 - k/E)^tokens.
    """
    total = tokens * 0.0
    for group in experts:
        miss = 1.0 - group.active / group.count
        total = total + group.local_bytes * (1.0 - miss ** (tokens * group.batch_factor))
    return total


def _slower(linear: T, attention: T, weights: T, cache: T, overlap: bool) -> T:
    if overlap:
        return np.maximum(linear + attention, weights + cache)  # type: ignore[return-value]
    return np.maximum(linear, weights) + np.maximum(attention, cache)  # type: ignore[return-value]


def decode_step_s(stage: Stage, rate: Rates, sequences: Floats, tokens: float, left: Compressed) -> Floats:
    """Time of one decode step of ``sequences`` sequences of ``tokens`` tokens on one stage [s]."""
    linear = sequences * (stage.linear_flops + stage.head_flops + stage.scan_flops) / rate.linear_flops_per_s
    weights = (stage.dense_read_bytes + experts_read_bytes(stage.experts, sequences)) / rate.hbm_bytes_per_s
    flops: Floats = np.zeros_like(sequences)
    read: Floats = np.full_like(sequences, 2.0 * stage.state_bytes)  # The state is read and written back.
    for term in stage.terms:
        if term.full and term.compressible:
            entries = tokens / term.stride_tokens
            computed = entries * left.attended_share
            fetched = left.read_tokens / term.stride_tokens
            if term.cap_entries is not None:
                computed = np.minimum(computed, term.cap_entries)
                fetched = np.minimum(fetched, term.cap_entries * left.element_share)
        else:
            kept = tokens if term.window_tokens is None else min(tokens, float(term.window_tokens))
            computed = np.full_like(sequences, kept / term.stride_tokens)
            fetched = computed * left.element_share if term.compressible else computed
        flops = flops + term.decode_flops * computed
        read = read + term.read_bytes * fetched
    attention = sequences * flops / rate.attention_flops_per_s
    cache = sequences * read / rate.hbm_bytes_per_s
    return _slower(linear, attention, weights, cache, rate.overlap)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Terms of a chunk's time that don't depend on its position, ``(candidate,)`` each [s]."""

    linear_s: Floats
    weights_s: Floats


def _chunk(stage: Stage, rate: Rates, size: Floats, pcp: int, left: Compressed) -> _Chunk:
    local = size / pcp
    linear = local * (stage.linear_flops + stage.scan_flops) * left.prefill_linear / rate.linear_flops_per_s
    weights = stage.dense_read_bytes - stage.head_read_bytes + experts_read_bytes(stage.experts, local)
    return _Chunk(linear, weights / rate.hbm_bytes_per_s)


def chunk_s(
    stage: Stage, rate: Rates, size: Floats, position: Floats | float, left: Compressed, pcp: int = 1
) -> Floats:
    """Time of one prefill chunk of ``size`` tokens after ``position`` cached ones, on one stage [s]."""
    base = _chunk(stage, rate, size, pcp, left)
    flops: Floats = np.zeros_like(size)
    read: Floats = np.zeros_like(size)
    for term in stage.terms:
        pairs = attended_pairs(term, position + size) - attended_pairs(term, position * np.ones_like(size))
        factor = left.prefill_attention if term.full and term.compressible else 1.0
        flops = flops + (term.prefill_flops * pairs * factor + term.expand_flops * position) / pcp
        prefix = position / term.stride_tokens
        if term.window_tokens is not None:
            prefix = np.minimum(prefix, term.window_tokens / term.stride_tokens)
        share = _prefix_share(term, left)
        read = read + term.read_bytes * prefix * share
    attention = flops / rate.attention_flops_per_s
    return _slower(base.linear_s, attention, base.weights_s, read / rate.hbm_bytes_per_s, rate.overlap)


def _prefix_share(term: TermCost, left: Compressed) -> Floats | float:
    if not term.compressible:
        return 1.0
    return left.prefix_share if term.full else left.element_share


def prefill_s(
    stage: Stage, rate: Rates, start: float, end: float, size: Floats, left: Compressed, pcp: int = 1
) -> Floats:
    """Time to prefill tokens ``start`` to ``end`` in chunks of ``size`` on one stage, head included [s].

    A closed form: the time of a whole chunk is the larger of two functions that are linear in its
    index (compute and bytes), so their sum over an arithmetic progression needs no loop. Windowed
    terms, which saturate, enter with their mean over the chunks; the last, partial chunk is exact.
    """
    tokens = end - start
    size = np.minimum(size, max(tokens, 1.0))
    whole = np.floor(tokens / size)
    rest = tokens - whole * size
    base = _chunk(stage, rate, size, pcp, left)
    last = start + whole * size
    flops_0: Floats = np.zeros_like(size)
    flops_1: Floats = np.zeros_like(size)
    read_0: Floats = np.zeros_like(size)
    read_1: Floats = np.zeros_like(size)
    for term in stage.terms:
        share = _prefix_share(term, left)
        stride = term.stride_tokens
        if term.full and term.cap_entries is None:
            factor = left.prefill_attention if term.compressible else 1.0
            pairs_flops = term.prefill_flops * factor / (pcp * stride)
            flops_0 = flops_0 + pairs_flops * size * (start + size / 2.0)
            flops_1 = flops_1 + pairs_flops * size * size
        else:
            pairs = attended_pairs(term, last) - attended_pairs(term, np.full_like(size, start))
            factor = left.prefill_attention if term.full and term.compressible else 1.0
            flops_0 = flops_0 + term.prefill_flops * factor * pairs / (np.maximum(whole, 1.0) * pcp)
        flops_0 = flops_0 + term.expand_flops * start / pcp
        flops_1 = flops_1 + term.expand_flops * size / pcp
        if term.full:
            read_0 = read_0 + term.read_bytes * share * start / stride
            read_1 = read_1 + term.read_bytes * share * size / stride
        else:
            # At most the window: an upper bound for the first chunks.
            reach = np.minimum(np.maximum(last - size, 0.0), float(term.window_tokens or 0))
            read_0 = read_0 + term.read_bytes * share * reach / stride
    attention = rate.attention_flops_per_s
    bandwidth = rate.hbm_bytes_per_s
    if rate.overlap:
        total = _sum_of_larger(
            base.linear_s + flops_0 / attention,
            flops_1 / attention,
            base.weights_s + read_0 / bandwidth,
            read_1 / bandwidth,
            whole,
        )
    else:
        total = whole * np.maximum(base.linear_s, base.weights_s) + _sum_of_larger(
            flops_0 / attention, flops_1 / attention, read_0 / bandwidth, read_1 / bandwidth, whole
        )
    if np.any(rest > 0):
        partial = chunk_s(stage, rate, np.maximum(rest, 1e-9), last, left, pcp)
        total = total + np.where(rest > 0, partial, 0.0)
    head = max(stage.head_flops / rate.linear_flops_per_s, stage.head_read_bytes / bandwidth)
    return total + head


def _sum_of_larger(f0: Floats, f1: Floats, g0: Floats, g1: Floats, count: Floats) -> Floats:
    """Sum over j = 0 .. count-1 of ``max(f0 + f1 j, g0 + g1 j)``, in closed form."""
    total = f0 * count + f1 * count * (count - 1.0) / 2.0
    d0 = g0 - f0
    d1 = g1 - f1
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.where(d1 != 0.0, -d0 / d1, 0.0)
    crossing = np.clip(np.nan_to_num(crossing, posinf=1e18, neginf=-1e18), -1.0, count)
    # Where d1 > 0 the difference is positive from `low` on; where d1 < 0, up to and without `high`.
    low = np.where(d1 > 0, np.clip(np.ceil(crossing), 0.0, count), 0.0)
    high = np.where(d1 < 0, np.clip(np.floor(crossing) + 1.0, 0.0, count), count)
    number = np.maximum(high - low, 0.0)
    positive = d0 * number + d1 * (low + high - 1.0) * number / 2.0
    return total + np.maximum(positive, 0.0)
