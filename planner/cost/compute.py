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

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planner.cost.efficiency import Efficiency
from planner.cost.replica import ExpertCost, Stage, TermCost

Floats = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Compressed:
    """What compression leaves at one length, ``(candidate,)`` each."""

    read_tokens: Floats
    """Tokens' worth of bytes that a decode step reads of a growing cache [tokens]."""
    attended_tokens: Floats
    """Entries of a growing cache that a decode step computes with [tokens]."""
    element_share: Floats
    """Factor on the bytes read of windowed and top-k caches."""
    prefix_share: Floats
    """Factor on the bytes of the prefix that a prefill chunk reads."""
    prefill_linear: Floats
    prefill_attention: Floats
    decode_time: Floats
    """Factor on the time of a decode step: what the techniques themselves cost."""
    prefill_time: Floats
    """Factor on the time of prefill."""

    def take(self, rows: NDArray[np.int64]) -> Compressed:
        """Return one row per candidate."""
        return Compressed(*(getattr(self, field.name)[rows] for field in fields(self)))


class Reach(Protocol):
    """How far back a query attends."""

    @property
    def window_tokens(self) -> int | None: ...  # noqa: D102
    @property
    def chunked(self) -> bool: ...  # noqa: D102
    @property
    def stride_tokens(self) -> int: ...  # noqa: D102
    @property
    def cap_entries(self) -> int | None: ...  # noqa: D102


def reach_tokens(term: Reach) -> int | None:
    """Tokens back to which a query attends; None for all of them [tokens]."""
    if term.cap_entries is not None:
        top = term.cap_entries * term.stride_tokens
        return top if term.window_tokens is None else min(top, term.window_tokens)
    return term.window_tokens


def attended_pairs(term: Reach, tokens: Floats | float) -> Floats:
    """Query-key pairs of a causal prefill from 0 to ``tokens``, in cached entries.

    ``n^2 / 2`` for full attention; linear in n beyond a sliding window or a top-k. Aligned chunks of
    W tokens count their mean, W/2 per query, beyond the first one: exact at every multiple of W, and
    at most ``W^2 / 8`` too many between two of them.
    """
    reach = reach_tokens(term)
    if reach is None:
        return np.asarray(tokens * tokens / (2.0 * term.stride_tokens))
    inside = np.minimum(tokens, reach)
    beyond = reach / 2.0 if term.chunked else float(reach)
    return np.asarray((inside * inside / 2.0 + (tokens - inside) * beyond) / term.stride_tokens)


def most_pairs(term: Reach, position: Floats | float, size: Floats) -> Floats:
    """Pairs of one chunk wherever it lies in the aligned chunks of attention, at worst."""
    reach = float(term.window_tokens or 0)
    whole = np.floor(size / reach)
    rest = size - whole * reach
    worst = whole * reach * reach / 2.0 + rest * (reach - rest / 2.0)
    pairs: Floats = np.minimum(worst, size * (position + size / 2.0))
    return pairs / term.stride_tokens


def experts_read_bytes(experts: tuple[ExpertCost, ...], tokens: Floats) -> Floats:
    """Bytes of the routed experts that ``tokens`` tokens touch, on one GPU.

    With k of E experts per token, a given expert is touched with probability 1 - (1 - k/E)^tokens.
    """
    total: Floats = np.zeros_like(tokens)
    for group in experts:
        miss = 1.0 - group.active / group.count
        total = total + group.local_bytes * (1.0 - miss ** (tokens * group.batch_factor))
    return total


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Work:
    """Times that the four resources of a step or a chunk take on their own [s]."""

    linear: Floats
    """FLOPs of the linear layers."""
    weights: Floats
    """Bytes of the weights."""
    attention: Floats
    """FLOPs of attention."""
    cache: Floats
    """Bytes of the KV cache."""

    def time_s(self, overlap: bool) -> Floats:
        """The slower of compute and bytes, over everything or apart for linear layers and attention [s]."""
        if overlap:
            return np.asarray(np.maximum(self.linear + self.attention, self.weights + self.cache))
        return np.asarray(np.maximum(self.linear, self.weights) + np.maximum(self.attention, self.cache))


def decode_step_s(stage: Stage, rate: Rates, sequences: Floats, tokens: float, left: Compressed) -> Floats:
    """Time of one decode step of ``sequences`` sequences of ``tokens`` tokens on one stage [s]."""
    linear = sequences * (stage.linear_flops + stage.head_flops + stage.scan_flops)
    weights = stage.dense_read_bytes + experts_read_bytes(stage.experts, sequences)
    flops: Floats = np.zeros_like(sequences)
    read: Floats = np.full_like(sequences, 2.0 * stage.state_bytes)  # The state is read and written back.
    for term in stage.terms:
        computed, fetched = _decode_entries(term, tokens, left)
        flops = flops + term.decode_flops * computed
        read = read + term.read_bytes * fetched
    work = _Work(
        linear=linear / rate.linear_flops_per_s,
        weights=weights / rate.hbm_bytes_per_s,
        attention=sequences * flops / rate.attention_flops_per_s,
        cache=sequences * read / rate.hbm_bytes_per_s,
    )
    return work.time_s(rate.overlap) * left.decode_time


def _decode_entries(term: TermCost, tokens: float, left: Compressed) -> tuple[Floats | float, Floats | float]:
    """Entries that one query computes with, and that many entries' bytes which it reads."""
    share = left.element_share if term.compressible else 1.0
    computed: Floats | float
    fetched: Floats | float
    if term.full and term.compressible:
        computed, fetched = left.attended_tokens / term.stride_tokens, left.read_tokens / term.stride_tokens
    else:
        kept = tokens if term.window_tokens is None else min(tokens, float(term.window_tokens))
        computed, fetched = kept / term.stride_tokens, kept / term.stride_tokens * share
    if term.cap_entries is not None:
        computed = np.minimum(computed, term.cap_entries)
        fetched = np.minimum(fetched, term.cap_entries * share)
    return computed, fetched


def _fixed_work(stage: Stage, rate: Rates, size: Floats, left: Compressed, pcp: int) -> tuple[Floats, Floats]:
    """Times of a chunk's linear layers and weights, which its position doesn't change [s]."""
    local = size / pcp
    linear = local * (stage.linear_flops + stage.scan_flops) * left.prefill_linear
    weights = stage.dense_read_bytes - stage.head_read_bytes + experts_read_bytes(stage.experts, local)
    return linear / rate.linear_flops_per_s, weights / rate.hbm_bytes_per_s


def _prefix_work(
    stage: Stage, rate: Rates, size: Floats, position: Floats | float, left: Compressed, pcp: int, worst: bool = False
) -> tuple[Floats, Floats]:
    """Times of a chunk's attention and of reading its prefix [s]."""
    flops: Floats = np.zeros_like(size)
    read: Floats = np.zeros_like(size)
    for term in stage.terms:
        if worst and term.chunked:
            pairs = most_pairs(term, position, size)
        else:
            pairs = attended_pairs(term, position + size) - attended_pairs(term, position)
        factor = left.prefill_attention if term.full and term.compressible else 1.0
        flops = flops + term.prefill_flops * pairs * factor / pcp + term.expand_flops * position
        prefix = position if term.window_tokens is None else np.minimum(position, term.window_tokens)
        read = read + term.prefix_bytes * prefix / term.stride_tokens * _prefix_share(term, left)
    return flops / rate.attention_flops_per_s, read / rate.hbm_bytes_per_s


def _prefix_share(term: TermCost, left: Compressed) -> Floats | float:
    if not term.compressible:
        return 1.0
    return left.prefix_share if term.full else left.element_share


def chunk_s(
    stage: Stage,
    rate: Rates,
    size: Floats,
    position: Floats | float,
    left: Compressed,
    pcp: int = 1,
    *,
    worst: bool = False,
) -> Floats:
    """Time of one prefill chunk of ``size`` tokens after ``position`` cached ones, on one stage [s].

    ``worst``: aligned chunks of attention count as full as they can be, not with their mean.
    """
    fixed = _fixed_work(stage, rate, size, left, pcp)
    work = _Work(*fixed, *_prefix_work(stage, rate, size, position, left, pcp, worst))
    return work.time_s(rate.overlap) * left.prefill_time


def prefill_s(
    stage: Stage,
    rate: Rates,
    start: Floats | float,
    end: Floats | float,
    size: Floats,
    left: Compressed,
    pcp: int = 1,
) -> Floats:
    """Time to prefill tokens ``start`` to ``end`` in chunks of ``size`` on one stage, head included [s].

    The sum of `chunk_s` over the chunks, without a loop over them: between the points where a window
    or a top-k fills up, compute and bytes of a chunk are linear in its index, so that the sum of the
    larger of the two has a closed form.
    """
    tokens = end - start
    size = np.minimum(size, np.maximum(tokens, 1.0))
    whole = np.floor(tokens / size)
    rest = tokens - whole * size
    fixed = _fixed_work(stage, rate, size, left, pcp)
    total: Floats = np.zeros_like(size)
    for first, count in _runs(stage, start, size, whole):
        position = start + first * size
        last = position + np.maximum(count - 1.0, 0.0) * size
        begin = _Work(*fixed, *_prefix_work(stage, rate, size, position, left, pcp))
        final = _Work(*fixed, *_prefix_work(stage, rate, size, last, left, pcp))
        total = total + _run_s(begin, final, count, rate.overlap)
    total = total * left.prefill_time
    if np.any(rest > 0):
        partial = chunk_s(stage, rate, np.maximum(rest, 1e-9), start + whole * size, left, pcp)
        total = total + np.where(rest > 0, partial, 0.0)
    head = max(stage.head_flops / rate.linear_flops_per_s, stage.head_read_bytes / rate.hbm_bytes_per_s)
    return total + head * left.prefill_time


def _runs(stage: Stage, start: Floats | float, size: Floats, whole: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield the first index and the number of chunks over which a chunk's cost is linear in its index."""
    reaches = sorted({reach for term in stage.terms if (reach := reach_tokens(term)) is not None})
    edges = [np.zeros_like(size)]
    for reach in reaches:
        filled = (reach - start) / size
        # A chunk inside the reach, one that crosses it, and one beyond have laws of their own.
        edges += [np.clip(np.floor(filled), edges[-1], whole), np.clip(np.ceil(filled), edges[-1], whole)]
    edges.append(whole)
    for first, after in pairwise(edges):
        count = after - first
        if np.any(count > 0):
            yield first, count


def _run_s(begin: _Work, final: _Work, count: Floats, overlap: bool) -> Floats:
    """Time of ``count`` chunks whose costs grow evenly from ``begin`` to ``final`` [s]."""
    steps = np.maximum(count - 1.0, 1.0)
    attention, cache = (final.attention - begin.attention) / steps, (final.cache - begin.cache) / steps
    if overlap:
        compute, traffic = begin.linear + begin.attention, begin.weights + begin.cache
        return _sum_of_larger(compute, attention, traffic, cache, count)
    linear = count * np.maximum(begin.linear, begin.weights)
    return linear + _sum_of_larger(begin.attention, attention, begin.cache, cache, count)


def _sum_of_larger(f0: Floats, f1: Floats, g0: Floats, g1: Floats, count: Floats) -> Floats:
    """Sum over j = 0 .. count-1 of ``max(f0 + f1 j, g0 + g1 j)``, in closed form."""
    total = f0 * count + f1 * count * (count - 1.0) / 2.0
    d0 = g0 - f0
    d1 = g1 - f1
    with np.errstate(over="ignore"):
        crossing = np.divide(-d0, d1, out=np.zeros_like(d0), where=d1 != 0.0)
    crossing = np.clip(crossing, -1.0, count)
    # Where d1 > 0 the difference is positive from `low` on; where d1 < 0, up to and without `high`.
    low = np.where(d1 > 0, np.maximum(np.ceil(crossing), 0.0), 0.0)
    high = np.where(d1 < 0, np.minimum(np.floor(crossing) + 1.0, count), count)
    number = np.maximum(high - low, 0.0)
    positive = d0 * number + d1 * (low + high - 1.0) * number / 2.0
    return np.asarray(total + np.maximum(positive, 0.0))
