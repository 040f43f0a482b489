"""Time of one operation on one GPU, as fitted to measurements.

Every form has few parameters, none is faster than the roofline, and all take arrays that broadcast.
Sizes are in elements and tokens, results in seconds. The parameters are catalog facts
(``catalog/measurements``), fitted by ``planner.fit``.

References
----------
docs/accuracy.md: the data, the fits, their errors on shapes held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64))
"""Output tiles (rows, columns) that a GEMM library chooses from."""
SMALLEST_ROWS = 64
"""Rows of the smallest of them."""
FEW_ROWS_TILES = ((16, 128), (32, 128))
"""Further tiles of kernels made for quantised weights, which don't waste 64 rows on one token."""
SPLITS = (1, 2, 3, 4, 6, 8, 16)
"""Parts into which the inner dimension is cut where the tiles alone don't fill the GPU."""
ATTENTION_ROWS = 128
"""Query rows of one tile of an attention kernel."""
WRITING_HEADS = 4.0
"""KV heads of a token that one thread block writes; more are written at the same time."""
MEMORY_FILL = 0.5
"""Share of the multiprocessors that saturates HBM."""
LATENCY_SHARE = 0.9
"""Part of the shortest all-reduce that doesn't depend on the size."""
SPLIT_BYTES = 2.0
"""Bytes of partial sums per output element and part of a split GEMM, after the L2 cache [bytes]."""


@dataclass(frozen=True, slots=True)
class Peak:
    """What the data sheet of a GPU says; no operation exceeds it."""

    flops_per_s: float
    """Of the precision in which an operation multiplies [FLOP/s]."""
    hbm_bytes_per_s: float
    multiprocessors: int


@dataclass(frozen=True, slots=True)
class GemmFit:
    """A matrix product: whole waves of tiles against bytes, joined by a p-norm."""

    start_s: float
    compute: float
    """Share of the peak that the largest tile reaches."""
    bandwidth: float
    power: float
    tile_128: float
    """Rate of a 128 x 128 tile over that of the largest."""
    tile_64: float
    """Rate of a 128 x 64 tile over that of the largest; a 64 x 64 tile falls by as much again."""
    inner_start: float
    """Inner elements' worth of time that every tile takes to start and to write back."""
    split_start_s: float
    ramp_s: float = 0.0
    """Time until HBM streams at full rate, once much is read [s]."""
    ramp_at_s: float = 1.0
    """Reading time at which 63 % of ``ramp_s`` are due [s]."""
    least_rows: float = 64.0
    """Rows that the smallest tile computes at least; fewer than 64 on processors, which don't pad."""


def gemm_s(
    fit: GemmFit, peak: Peak, m: Floats | float, n: Floats | float, k: Floats | float, weight_bytes: float = 2.0
) -> Floats:
    """Time of ``(m, k) @ (k, n)`` with the weight ``(k, n)`` read from HBM [s].

    The library's choice of tile and split is the fastest one. A product runs in whole waves of tiles
    over the multiprocessors: one tile more can cost a wave more. Few tiles don't saturate HBM.

    Parameters
    ----------
    fit, peak
        Parameters, and the GPU's peaks in the precision of the product.
    m, n, k
        Rows (tokens), outputs and inputs.
    weight_bytes
        Bytes per element of the weight; activations have two [bytes].
    """
    m, n, k = (np.asarray(x, dtype=np.float64) for x in (m, n, k))
    sms = peak.multiprocessors
    memory = (weight_bytes * n * k + 2.0 * m * (n + k)) / (fit.bandwidth * peak.hbm_bytes_per_s)
    bound = np.maximum(2.0 * m * n * k / peak.flops_per_s, memory * fit.bandwidth)
    memory = memory + _ramp(fit.ramp_s, fit.ramp_at_s, memory)
    # One more axis in front: every tile with every split.
    kinds = TILES + (FEW_ROWS_TILES if weight_bytes < 2.0 else ())
    rows, columns, share, split = _choices(fit, kinds).reshape(4, -1, *(1,) * memory.ndim)
    tiles = np.ceil(m / rows) * np.ceil(n / columns) * split
    computed = np.where(rows == SMALLEST_ROWS, np.clip(m, fit.least_rows, SMALLEST_ROWS), rows)
    per_inner = 2.0 * computed * columns * sms / (share * peak.flops_per_s)
    compute = np.ceil(tiles / sms) * per_inner * (np.ceil(k / split) + fit.inner_start)
    time = _joined(compute, memory / np.minimum(1.0, tiles / (MEMORY_FILL * sms)), fit.power)
    partial = fit.split_start_s + SPLIT_BYTES * m * n * split / peak.hbm_bytes_per_s
    best = np.min(time + np.where(split > 1, partial, 0.0), axis=0)
    # The roofline, whatever parameters a user's own fit may give.
    return np.asarray(np.maximum(fit.start_s + best, bound))


@lru_cache(maxsize=256)
def _choices(fit: GemmFit, kinds: tuple[tuple[int, int], ...]) -> Floats:
    """Every tile with every split: rows, columns, share of the peak, parts ``(4, choice)``."""
    small = fit.tile_64**2 / fit.tile_128
    rates = {256 * 128: 1.0, 128 * 128: fit.tile_128, 128 * 64: fit.tile_64}
    return np.array([(r, c, fit.compute * rates.get(r * c, small), s) for r, c in kinds for s in SPLITS]).T


def _ramp(most_s: float, at_s: float, time: Floats) -> Floats:
    """Start-up that grows with the time that follows it, up to ``most_s`` [s]."""
    ramp: Floats = most_s * -np.expm1(-time / at_s) if most_s else np.zeros_like(time)
    return ramp


def _joined(a: Floats, b: Floats, power: float) -> Floats:
    """``(a^p + b^p)^(1/p)``: the larger of two, and more where they are close."""
    large = np.maximum(a, b)
    small = np.minimum(a, b)
    joined: Floats = large * (1.0 + (small / np.maximum(large, 1e-30)) ** power) ** (1.0 / power)
    return joined


@dataclass(frozen=True, slots=True)
class PrefillAttentionFit:
    """Causal attention of many queries: the work over all tiles against the longest single tile."""

    start_s: float
    compute: float
    bandwidth: float
    power: float
    short_tokens: float
    """Mean attended keys at which the rate has halved [tokens]."""
    chain: float
    """Time of the tile with the most keys, over that at the whole GPU's rate per multiprocessor."""
    per_token_s: float
    """Time per new token and KV head, up to `WRITING_HEADS` of them, to write its cache [s]."""
    tile_rows: float = 0.0
    """Queries that a tile computes at least: shorter chunks cost as many. Whole prompts don't show it."""


def prefill_attention_s(
    fit: PrefillAttentionFit,
    peak: Peak,
    sequences: Floats | float,
    tokens: Floats | float,
    prefix: Floats | float,
    query_heads: Floats | float,
    kv_heads: Floats | float,
    k_dim: float = 128.0,
    v_dim: float = 128.0,
    pairs: Floats | None = None,
    reach: float | None = None,
) -> Floats:
    """Time of one layer's attention of ``tokens`` new tokens after ``prefix`` cached ones [s].

    A kernel that doesn't split the keys walks a tile of 128 queries over all of them on one
    multiprocessor, so few tiles over a long prefix leave most of the GPU idle.

    Parameters
    ----------
    fit, peak
        Parameters and peaks.
    sequences, tokens, prefix
        Sequences, new tokens of each and cached tokens of each.
    query_heads, kv_heads
        Heads on this GPU.
    k_dim, v_dim
        Elements of a key and a value.
    pairs
        Attended query-key pairs of one sequence and head; None: all earlier tokens, causally.
    reach
        Tokens back to which a query attends; None: all of them [tokens].
    """
    b, s, m, hq, hk = (np.asarray(x, dtype=np.float64) for x in (sequences, tokens, prefix, query_heads, kv_heads))
    if pairs is None:
        pairs = s * (m + (s + 1.0) / 2.0)
    pair_flops = 2.0 * (k_dim + v_dim)
    keys = pairs / np.maximum(s, 1e-9)
    work = b * hq * pair_flops * pairs / (fit.compute * peak.flops_per_s) * (1.0 + fit.short_tokens / (2.0 * keys))
    computed = np.maximum(s, fit.tile_rows)
    work = work * (computed / np.maximum(s, 1e-9))
    span = np.minimum(m + s, 2.0 * keys)  # Keys of the tile that has most.
    held = m + s
    if reach is not None:
        span, held = np.minimum(span, reach + ATTENTION_ROWS), np.minimum(held, reach + s)
    longest = np.minimum(computed, ATTENTION_ROWS) * pair_flops * span
    chain = fit.chain * longest * peak.multiprocessors / (fit.compute * peak.flops_per_s)
    moved = 2.0 * b * (s * hq + np.minimum(held, 2.0 * keys) * hk) * (k_dim + v_dim)
    traffic = moved / (fit.bandwidth * peak.hbm_bytes_per_s)
    written = fit.per_token_s * b * s * np.minimum(hk, WRITING_HEADS)
    return fit.start_s + _joined(work, chain, fit.power) + traffic + written


@dataclass(frozen=True, slots=True)
class DecodeAttentionFit:
    """Attention of one query per sequence: linear in the bytes of the cache."""

    start_s: float
    bandwidth: float
    wave: float
    """Share of the time that whole waves of (sequence, KV head) pairs cost."""
    ramp_s: float = 0.0
    """Further start-up once the cache is large, for splitting it and merging the parts [s]."""
    ramp_at_s: float = 1.0
    """Reading time at which 63 % of ``ramp_s`` are due [s]."""


def decode_attention_s(
    fit: DecodeAttentionFit,
    peak: Peak,
    sequences: Floats | float,
    cache_bytes: Floats | float,
    query_bytes: Floats | float,
    kv_heads: Floats | float,
) -> Floats:
    """Time of one layer's attention in a decode step [s].

    Parameters
    ----------
    fit, peak
        Parameters and peaks.
    sequences
        Sequences in the batch.
    cache_bytes
        Of K and V, read for each sequence [bytes].
    query_bytes
        Of the queries and outputs of each sequence [bytes].
    kv_heads
        Heads on this GPU.
    """
    b, cache, query, hk = (np.asarray(x, dtype=np.float64) for x in (sequences, cache_bytes, query_bytes, kv_heads))
    read = b * (cache + query) / (fit.bandwidth * peak.hbm_bytes_per_s)
    return fit.start_s + _ramp(fit.ramp_s, fit.ramp_at_s, read) + read * decode_waves(fit, peak, b, hk)


def decode_waves(fit: DecodeAttentionFit, peak: Peak, sequences: Floats | float, kv_heads: Floats | float) -> Floats:
    """Factor on a decode step's reading time for whole waves of (sequence, KV head) pairs.

    Below 0.8 waves of two blocks per multiprocessor kernels split the keys and fill the GPU.
    """
    waves = np.asarray(sequences, dtype=np.float64) * kv_heads / (2.0 * peak.multiprocessors)
    whole = np.ceil(waves) / np.maximum(waves, 1e-9)
    # A share above 1 would make a larger batch faster within a wave.
    factor: Floats = np.where(waves >= 0.8, 1.0 + min(fit.wave, 1.0) * (whole - 1.0), 1.0)
    return factor


@dataclass(frozen=True, slots=True)
class AllReduceFit:
    """All-reduce over n GPUs: measured times by message size, read between them in log-log."""

    sizes: tuple[float, ...]
    """Bytes of the message, ascending [bytes]."""
    times_s: dict[int, tuple[float, ...]]
    """GPUs -> time at each size [s]."""


def all_reduce_s(fit: AllReduceFit, gpus: int, message_bytes: Floats | float) -> Floats:
    """Time of an all-reduce of ``message_bytes`` over ``gpus`` GPUs; none for one GPU [s].

    Between measured GPU counts the time is that of a ring at the nearest count, by the bytes each
    GPU sends, ``2 (n-1)/n``; beyond the measured sizes it grows in proportion.
    """
    size = np.asarray(message_bytes, dtype=np.float64)
    if gpus <= 1:
        return np.zeros_like(size)
    nearest = min(fit.times_s, key=lambda n: (abs(np.log(n / gpus)), n))
    times = np.asarray(fit.times_s[nearest])
    sizes = np.asarray(fit.sizes)
    floor = LATENCY_SHARE * times.min()  # What is left after the latency grows as a power of the size.
    inside = floor + np.exp(np.interp(np.log(np.maximum(size, 1.0)), np.log(sizes), np.log(times - floor)))
    beyond = np.maximum(size / sizes[-1], 1.0)
    hops = (1.0 - 1.0 / gpus) / (1.0 - 1.0 / nearest)
    time: Floats = inside * beyond * hops
    return time


@dataclass(frozen=True, slots=True)
class ElementwiseFit:
    """Kernels that only stream activations: norms, rotary positions, activation functions."""

    start_s: float
    bandwidth: float


def elementwise_s(fit: ElementwiseFit, peak: Peak, moved_bytes: Floats | float, kernels: float = 1.0) -> Floats:
    """Time of ``kernels`` kernels that move ``moved_bytes`` together [s]."""
    time: Floats = kernels * fit.start_s + np.asarray(moved_bytes, dtype=np.float64) / (
        fit.bandwidth * peak.hbm_bytes_per_s
    )
    return time


@dataclass(frozen=True, slots=True)
class ExpertsFit:
    """Routed experts of one layer: grouped products over the experts that the batch touches."""

    start_s: float
    compute: float
    bandwidth: float
    power: float
    padded_rows: float
    """Rows of padding per touched expert: tiles are whole, and routing is uneven."""


def experts_s(
    fit: ExpertsFit,
    peak: Peak,
    tokens: Floats | float,
    touched: Floats | float,
    active: Floats | float,
    expert_elements: Floats | float,
    width: Floats | float,
    weight_bytes: float = 2.0,
) -> Floats:
    """Time of the routed experts of one layer on one GPU [s].

    Parameters
    ----------
    fit, peak
        Parameters and peaks.
    tokens
        Tokens routed.
    touched
        Experts on this GPU that at least one token is routed to.
    active
        Expert products per token on this GPU (experts per token, over the GPUs that share them out).
    expert_elements
        Weight elements of one expert on this GPU.
    width
        Elements that an expert reads and writes per token.
    weight_bytes
        Bytes per weight element [bytes].
    """
    m, used = (np.asarray(x, dtype=np.float64) for x in (tokens, touched))
    rows = m * active
    compute = 2.0 * expert_elements * (rows + fit.padded_rows * used) / (fit.compute * peak.flops_per_s)
    moved = used * expert_elements * weight_bytes + 4.0 * rows * width
    memory = moved / (fit.bandwidth * peak.hbm_bytes_per_s)
    return fit.start_s + _joined(compute, memory, fit.power)


def touched_experts(count: Floats | float, active: Floats | float, tokens: Floats | float) -> Floats:
    """Expected experts that ``tokens`` tokens touch if each picks ``active`` of ``count`` evenly.

    >>> float(touched_experts(8, 2, 1.0)), round(float(touched_experts(8, 2, 8.0)), 2)
    (2.0, 7.2)
    """
    miss = 1.0 - np.asarray(active) / count
    touched: Floats = count * (1.0 - miss ** np.asarray(tokens, dtype=np.float64))
    return touched
