"""Time of a decode step, a prefill chunk and a whole prefill on one stage, composed of operations.

The same questions as `planner.cost.compute`, answered from measurements. Arrays have one axis,
``(candidate,)``. A decode step is a function of the batch plus one that is linear in the bytes of the
cache, so that compression enters linearly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.cost.compute import Compressed
from planner.measured import operations as op
from planner.measured.layers import FUSED_KERNELS, Attention, Product, StageOperations
from planner.measured.machine import Machine

Floats = NDArray[np.float64]

SAMPLING_BYTES = 12.0
"""Traffic per logit to sample a token: written, read as 32 bits for softmax and for the choice [bytes]."""
NODES = 5
"""Positions at which the chunks of a prefill are evaluated."""
UNQUANTISED = "bf16"


@dataclass(frozen=True, slots=True)
class Linear:
    """How the linear layers are stored and multiplied: a key of `Machine.gemm`."""

    weights: str = UNQUANTISED

    def on(self, machine: Machine) -> tuple[op.GemmFit, op.Peak]:
        """Fit and peaks on a GPU; fp8 weights without fp8 units are only stored so."""
        weights = self.weights if self.weights in machine.gemm else "int8"
        return machine.gemm[weights], machine.int8 if weights in ("w8a8", "fp8") else machine.peak


def decode_step_s(
    stage: StageOperations,
    machine: Machine,
    linear: Linear,
    sequences: Floats,
    tokens: Floats | float,
    left: Compressed,
) -> Floats:
    """Time of one decode step of ``sequences`` sequences of ``tokens`` tokens on one stage [s]."""
    run = machine.runtime
    gpu = _per_size(sequences, lambda b: _fixed_s(stage, machine, linear, b, b))
    for attention in stage.attention:
        gpu = gpu + attention.count * _decode_attention_s(attention, machine, sequences, tokens, left)
    gpu = gpu + _state_s(stage, machine, sequences)
    gpu = np.maximum(gpu * run.decode_gpu, _least_decode_s(stage, machine, sequences, tokens, left)) * left.decode_time
    time = np.maximum(gpu, run.launch_layer_s * stage.layers)
    ranks = np.log2(stage.shape.tp)
    return np.asarray(time + run.host_s + run.host_rank_s * ranks + run.host_sequence_s * sequences)


def chunk_s(
    stage: StageOperations,
    machine: Machine,
    linear: Linear,
    size: Floats,
    position: Floats | float,
    left: Compressed,
    *,
    sequences: float = 1.0,
    whole_prompt: bool = False,
) -> Floats:
    """Time of one prefill chunk of ``size`` tokens after ``position`` cached ones, on one stage [s].

    Parameters
    ----------
    stage, machine, linear, left
        The split model, the GPU with its engine, the weights, and compression.
    size, position
        Tokens of the chunk and before it, of each sequence [tokens].
    sequences
        Sequences that are prefilled together.
    whole_prompt
        Whether the chunk ends its prompts, so that logits are computed.
    """
    run = machine.runtime
    pcp = stage.shape.pcp
    logits = sequences if whole_prompt else 0.0
    fixed = _per_size(size, lambda s: _fixed_s(stage, machine, linear, s * sequences / pcp, np.full_like(s, logits)))
    gpu = fixed * left.prefill_linear
    for attention in stage.attention:
        time = _prefill_attention_s(attention, machine, size, position, left, sequences, pcp)
        gpu = gpu + attention.count * time
    gpu = gpu * max(run.prefill_gpu, 1.0) * left.prefill_time
    return np.asarray(np.maximum(gpu, run.launch_layer_s * stage.layers) + run.prefill_host_s)


def prefill_s(
    stage: StageOperations,
    machine: Machine,
    linear: Linear,
    start: Floats | float,
    end: Floats | float,
    size: Floats,
    left: Compressed,
) -> Floats:
    """Time to prefill tokens ``start`` to ``end`` in chunks of ``size`` on one stage, head included [s].

    The chunks' times are a smooth function of their position, summed by Gauss-Legendre quadrature over
    an interval whose first two moments are those of the positions: exact up to quadratics.
    """
    tokens = np.maximum(end - start, 1.0)
    size = np.minimum(size, tokens)
    whole = np.floor(tokens / size)
    rest = tokens - whole * size
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    middle, half = (whole - 1.0) / 2.0, np.sqrt(np.maximum(whole * whole - 1.0, 0.0)) / 2.0
    total: Floats = np.zeros_like(size)
    for node, weight in zip(nodes, weights, strict=True):
        position = np.maximum(start + (middle + half * node) * size, 0.0)
        total = total + weight / 2.0 * whole * chunk_s(stage, machine, linear, size, position, left)
    if np.any(rest > 0):
        partial = chunk_s(stage, machine, linear, np.maximum(rest, 1.0), start + whole * size, left)
        total = total + np.where(rest > 0, partial, 0.0)
    return total + _head_s(stage, machine, np.ones_like(size))


def _per_size(size: Floats, time: Callable[[Floats], Floats]) -> Floats:
    """``time(size)``, computed once for each distinct size."""
    distinct, inverse = np.unique(size, return_inverse=True)
    return time(distinct)[inverse.reshape(size.shape)]


def _fixed_s(stage: StageOperations, machine: Machine, linear: Linear, tokens: Floats, logits: Floats) -> Floats:
    """Everything but attention: products, experts, elementwise kernels, all-reduces, logits [s]."""
    time: Floats = np.zeros_like(tokens)
    for product in stage.products:
        time = time + product.count * _product_s(stage, machine, linear, product, tokens)
    time = time + _experts_s(stage, machine, linear, tokens)
    kernels = FUSED_KERNELS * stage.layers
    time = time + op.elementwise_s(machine.elementwise, machine.peak, stage.moved_bytes * tokens, kernels)
    if stage.scan_flops:
        time = time + stage.scan_flops * tokens / (machine.prefill.compute * machine.peak.flops_per_s)
    message = 2.0 * tokens * stage.hidden
    reduced = op.all_reduce_s(machine.all_reduce, stage.shape.tp, message)
    if stage.shape.tp > 1:
        time = time + stage.all_reduces * (reduced + machine.runtime.collective_s)
    if np.any(logits > 0):
        time = time + np.where(logits > 0, _head_s(stage, machine, np.maximum(logits, 1.0)), 0.0)
    return time


def _product_s(stage: StageOperations, machine: Machine, linear: Linear, product: Product, tokens: Floats) -> Floats:
    if not product.quantised:
        return _gemm_s(machine.gemm[UNQUANTISED], machine.peak, tokens, product.outputs, product.inputs)
    fit, peak = linear.on(machine)
    return _gemm_s(fit, peak, tokens, product.outputs, product.inputs, 2.0 * stage.bytes_ratio)


def _gemm_s(fit: op.GemmFit, peak: op.Peak, m: Floats, n: float, k: float, weight_bytes: float = 2.0) -> Floats:
    return _known_gemm_s(fit, peak, tuple(m.tolist()), n, k, weight_bytes)


@lru_cache(maxsize=4096)
def _known_gemm_s(
    fit: op.GemmFit, peak: op.Peak, m: tuple[float, ...], n: float, k: float, weight_bytes: float
) -> Floats:
    # Blocks of candidates ask for the same batches and chunks over and over.
    return op.gemm_s(fit, peak, np.array(m), n, k, weight_bytes)


def _head_s(stage: StageOperations, machine: Machine, sequences: Floats) -> Floats:
    """Logits and sampling [s]."""
    if stage.head is None:
        return np.zeros_like(sequences)
    head = _gemm_s(machine.gemm[UNQUANTISED], machine.peak, sequences, stage.head.outputs, stage.head.inputs)
    moved = SAMPLING_BYTES * sequences * stage.vocabulary * stage.shape.tp
    return head + op.elementwise_s(machine.elementwise, machine.peak, moved, FUSED_KERNELS)


def _experts_s(stage: StageOperations, machine: Machine, linear: Linear, tokens: Floats) -> Floats:
    time: Floats = np.zeros_like(tokens)
    size = 2.0 * stage.bytes_ratio
    for group in stage.experts:
        routed = tokens * group.batch_factor
        distinct = routed**machine.runtime.distinct
        touched = op.touched_experts(group.experts, group.active, distinct) * group.share
        time = time + group.count * op.experts_s(
            machine.experts,
            machine.peak,
            routed,
            touched,
            group.active * group.share,
            group.elements,
            stage.hidden,
            size,
        )
    return time


def _decode_attention_s(
    attention: Attention, machine: Machine, sequences: Floats, tokens: Floats | float, left: Compressed
) -> Floats:
    computed, fetched = _decode_entries(attention, tokens, left)
    run = machine.runtime
    reads = run.grouped_reads if attention.query_heads > attention.kv_heads else 1.0
    read = op.decode_attention_s(
        machine.decode,
        machine.peak,
        sequences,
        attention.read_bytes * fetched * reads,
        attention.query_bytes,
        attention.kv_heads,
    )
    flops = sequences * attention.decode_flops * computed
    least = np.maximum(flops / (machine.prefill.compute * machine.peak.flops_per_s), run.decode_token_s * computed)
    return np.asarray(np.maximum(read, machine.decode.start_s + least))


def _decode_entries(
    attention: Attention, tokens: Floats | float, left: Compressed
) -> tuple[Floats | float, Floats | float]:
    """Entries that one query computes with, and that many entries' bytes which it reads."""
    share = left.element_share if attention.compressible else 1.0
    computed: Floats | float
    fetched: Floats | float
    if attention.full and attention.compressible:
        computed, fetched = left.attended_tokens, left.read_tokens
    else:
        kept = tokens if attention.window_tokens is None else np.minimum(tokens, float(attention.window_tokens))
        computed, fetched = kept, kept * share
    computed, fetched = computed / attention.stride_tokens, fetched / attention.stride_tokens
    if attention.cap_entries is not None:
        computed = np.minimum(computed, attention.cap_entries)
        fetched = np.minimum(fetched, attention.cap_entries * share)
    return computed, fetched


def _least_decode_s(
    stage: StageOperations, machine: Machine, sequences: Floats, tokens: Floats | float, left: Compressed
) -> Floats:
    """Bytes of a decode step at the peak of HBM: no fitted factor makes a step faster [s]."""
    size = 2.0 * stage.bytes_ratio
    read = sum(p.count * p.inputs * p.outputs * (size if p.quantised else 2.0) for p in stage.products)
    if stage.head is not None:
        read += 2.0 * stage.head.inputs * stage.head.outputs
    moved = read + 2.0 * stage.state_bytes * sequences
    for group in stage.experts:
        distinct = (sequences * group.batch_factor) ** machine.runtime.distinct
        touched = op.touched_experts(group.experts, group.active, distinct) * group.share
        moved = moved + group.count * touched * group.elements * size
    for attention in stage.attention:
        _, fetched = _decode_entries(attention, tokens, left)
        moved = moved + attention.count * sequences * attention.read_bytes * fetched
    return np.asarray(moved / machine.peak.hbm_bytes_per_s)


def _prefill_attention_s(
    attention: Attention,
    machine: Machine,
    size: Floats,
    position: Floats | float,
    left: Compressed,
    sequences: float,
    pcp: int,
) -> Floats:
    pairs = _pairs(attention, position + size) - _pairs(attention, np.asarray(position, dtype=np.float64))
    if attention.full and attention.compressible:
        pairs = pairs * left.prefill_attention
    time = op.prefill_attention_s(
        machine.prefill,
        machine.peak,
        sequences,
        size / pcp,
        position,
        attention.query_heads,
        attention.kv_heads,
        attention.pair_dim,
        attention.pair_dim,
        pairs / pcp,
    )
    expand = attention.expand_flops * position
    return time + expand / (machine.gemm[UNQUANTISED].compute * machine.peak.flops_per_s)


def _pairs(attention: Attention, tokens: Floats) -> Floats:
    """Query-key pairs of one head in a causal prefill from 0 to ``tokens``."""
    reach = attention.window_tokens
    if attention.cap_entries is not None:
        top = attention.cap_entries * attention.stride_tokens
        reach = top if reach is None else min(top, reach)
    if reach is None:
        return np.asarray(tokens * tokens / (2.0 * attention.stride_tokens))
    inside = np.minimum(tokens, reach)
    beyond = reach / 2.0 if attention.chunked else float(reach)
    return np.asarray((inside * inside / 2.0 + (tokens - inside) * beyond) / attention.stride_tokens)


def _state_s(stage: StageOperations, machine: Machine, sequences: Floats) -> Floats:
    """Recurrent states, read and written back [s]."""
    moved = 2.0 * stage.state_bytes * sequences
    return moved / (machine.decode.bandwidth * machine.peak.hbm_bytes_per_s)
