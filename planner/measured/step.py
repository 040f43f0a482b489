"""Time of a decode step, a prefill chunk and a whole prefill on one stage, composed of operations.

The same questions as `planner.cost.compute`, answered from measurements. Arrays have one axis,
``(candidate,)``. What depends on a batch's or a chunk's size alone is computed once per size. A decode
step is the largest of a few parts that are linear in what compression leaves of the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.cost.compute import Compressed, attended_pairs, most_pairs, reach_tokens
from planner.measured import operations as op
from planner.measured.fabric import INSIDE, Fabric
from planner.measured.layers import FUSED_KERNELS, Attention, StageOperations
from planner.measured.machine import Machine

Floats = NDArray[np.float64]

SAMPLING_BYTES = 12.0
"""Traffic per logit to sample a token: written, read as 32 bits for softmax and for the choice [bytes]."""
NODES = 5
"""Positions at which the chunks of a prefill are evaluated."""
MOST_SIZES = 4096
"""Sizes of batches or chunks whose times a stage remembers."""
UNQUANTISED = "bf16"
_PLACES = np.array([-0.906179845938664, -0.5384693101056831, 0.0, 0.5384693101056831, 0.906179845938664])
_WEIGHTS = np.array(
    [0.23692688505618928, 0.4786286704993663, 0.5688888888888887, 0.4786286704993663, 0.23692688505618928]
)
"""Of Gauss-Legendre quadrature, as ``np.polynomial.legendre.leggauss(NODES)`` gives them, which loads much."""


@dataclass(frozen=True, slots=True)
class Linear:
    """How the linear layers are stored and multiplied: a key of `Machine.gemm`."""

    weights: str = UNQUANTISED

    def on(self, machine: Machine) -> tuple[op.GemmFit, op.Peak]:
        """Fit and peaks on a GPU; fp8 weights without fp8 units are only stored so."""
        weights = self.weights if self.weights in machine.gemm else "int8"
        return machine.gemm[weights], machine.int8 if weights in ("w8a8", "fp8") else machine.peak


@dataclass(frozen=True, eq=False)
class StageTimes:
    """One pipeline stage on a GPU with an engine."""

    stage: StageOperations
    machine: Machine
    linear: Linear
    fabric: Fabric = INSIDE
    _known: dict[tuple[str, float], dict[float, Floats]] = field(default_factory=dict)
    """Times by kind and then by size; what callers ask for over and over."""

    @property
    def _decode_gpu(self) -> float:
        return self.machine.runtime.decode_gpu * self.machine.older

    # ------------------------------------------------------------- decode

    def decode_step_s(self, sequences: Floats, tokens: Floats | float, left: Compressed) -> Floats:
        """Time of one decode step of ``sequences`` sequences of ``tokens`` tokens [s]."""
        return np.asarray(np.maximum.reduce(self.decode_parts(sequences, tokens, left)) * left.decode_time)

    def decode_parts(self, sequences: Floats, tokens: Floats | float, left: Compressed) -> list[Floats]:
        """What a step takes at least, techniques' own time apart [s].

        For reading the cache, for computing with it, for launching its kernels (engines that launch one
        by one), and its bytes at the peak of HBM (where a fitted factor would make it faster).
        """
        run = self.machine.runtime
        rows = self._per_size("decode", 1.0, sequences, self._decode_rows)
        fixed, host = rows[0] + self._decode_gpu * self._ramps_s(sequences, tokens), rows[1]
        read, computed = fixed + host, fixed + host
        for index, attention in enumerate(self.stage.attention):
            entries, fetched = _decode_entries(attention, tokens, left)
            read = read + rows[2 + 2 * index] * fetched
            computed = computed + rows[3 + 2 * index] * entries
        parts = [read, computed]
        if run.launch_layer_s:
            parts.append(host + run.launch_layer_s * self.stage.layers)
        if self._decode_gpu < 1.0:
            parts.append(host + self._least_decode_s(sequences, tokens, left))
        return parts

    def _decode_rows(self, b: Floats) -> Floats:
        """Per batch: GPU time without the cache, host time, and per layer kind seconds per entry read and attended."""
        run, stage, machine = self.machine.runtime, self.stage, self.machine
        peak = machine.peak
        bandwidth = machine.decode.bandwidth * peak.hbm_bytes_per_s
        gpu = self._fixed_s(b, b) + 2.0 * stage.state_bytes * b / bandwidth
        slopes = []
        for attention in stage.attention:
            count = attention.count * self._decode_gpu
            waves = op.decode_waves(machine.decode, peak, b, attention.kv_heads)
            reads = _reads(attention, machine)
            queries = attention.count * b * attention.query_bytes / bandwidth * waves
            gpu = gpu + attention.count * machine.decode.start_s + queries
            gpu = gpu + attention.count * self._cache_exchange_s(attention, b)
            flops = b * attention.decode_flops / (machine.prefill.compute * peak.flops_per_s)
            slopes.append(count * b * attention.read_bytes * reads / bandwidth * waves)
            slopes.append(count * np.maximum(flops, run.decode_token_s))
        host = run.host_s + run.host_rank_s * np.log2(stage.shape.tp) + run.host_sequence_s * b
        return np.stack([gpu * self._decode_gpu, host, *slopes])

    def _ramps_s(self, sequences: Floats, tokens: Floats | float) -> Floats | float:
        """Further start-up of decode attention, by the length of the cache before compression [s]."""
        fit = self.machine.decode
        total: Floats | float = 0.0
        if not fit.ramp_s:
            return total
        for attention in self.stage.attention:
            read = attention.read_bytes * _kept(attention, tokens) * _reads(attention, self.machine)
            time = sequences * read / (fit.bandwidth * self.machine.peak.hbm_bytes_per_s)
            total = total - attention.count * fit.ramp_s * np.expm1(-time / fit.ramp_at_s)
        return total

    def _least_decode_s(self, sequences: Floats, tokens: Floats | float, left: Compressed) -> Floats:
        """Bytes of a decode step at the peak of HBM: no fitted factor makes a step faster [s]."""
        stage, size = self.stage, 2.0 * self.stage.bytes_ratio
        read = sum(p.count * p.inputs * p.outputs * (size if p.quantised else 2.0) for p in stage.products)
        if stage.head is not None:
            read += 2.0 * stage.head.inputs * stage.head.outputs
        moved = read + 2.0 * stage.state_bytes * sequences
        for group in stage.experts:
            distinct = (sequences * group.batch_factor) ** self.machine.runtime.distinct
            touched = op.touched_experts(group.experts, group.active, distinct) * group.share
            moved = moved + group.count * touched * group.elements * size
        for attention in stage.attention:
            _, fetched = _decode_entries(attention, tokens, left)
            moved = moved + attention.count * sequences * attention.read_bytes * fetched
        return np.asarray(moved / self.machine.peak.hbm_bytes_per_s)

    # ------------------------------------------------------------- prefill

    def chunk_s(
        self,
        size: Floats,
        position: Floats | float,
        left: Compressed,
        *,
        sequences: float = 1.0,
        whole_prompt: bool = False,
        worst: bool = False,
    ) -> Floats:
        """Time of one prefill chunk of ``size`` tokens after ``position`` cached ones [s].

        Parameters
        ----------
        size, position
            Tokens of the chunk and before it, of each sequence [tokens].
        left
            What compression leaves.
        sequences
            Sequences that are prefilled together.
        whole_prompt
            Whether the chunk ends its prompts, so that logits are computed.
        worst
            Whether aligned chunks of attention count as full as they can be.
        """
        gpu = self._chunk_fixed_s(size, sequences, whole_prompt) * left.prefill_linear
        for attention in self.stage.attention:
            gpu = gpu + self._attention_s(attention, size, position, left, sequences, worst)
        return self._with_host(gpu, 1.0, left)

    def prefill_s(self, start: Floats | float, end: Floats | float, size: Floats, left: Compressed) -> Floats:
        """Time to prefill tokens ``start`` to ``end`` in chunks of ``size``, head included [s].

        The chunks' times are a smooth function of their position, summed by Gauss-Legendre quadrature over
        an interval whose first two moments are those of the positions: exact up to quadratics. Beyond the
        reach of a window or a top-k all chunks take the same time.
        """
        tokens = np.maximum(end - start, 1.0)
        size = np.minimum(size, tokens)
        whole = np.floor(tokens / size)
        rest = tokens - whole * size
        some = np.maximum(rest, 1.0)
        partial = np.where(rest > 0, 1.0, 0.0)
        fixed = self._chunk_fixed_s(np.stack([size, some]))
        gpu = (whole * fixed[0] + partial * fixed[1]) * left.prefill_linear
        for attention in self.stage.attention:
            reach = reach_tokens(attention)
            growing = whole if reach is None else np.clip(np.ceil((reach - start) / size), 0.0, whole)
            middle, half = (growing - 1.0) / 2.0, np.sqrt(np.maximum(growing * growing - 1.0, 0.0)) / 2.0
            inside = start + (middle + half * _PLACES[:, None]) * size
            positions = np.maximum([*inside, start + growing * size, start + whole * size], 0.0)
            sizes = np.array([*[size] * (NODES + 1), some])
            often = np.array([*(_WEIGHTS[:, None] / 2.0 * growing), whole - growing, partial])
            gpu = gpu + (often * self._attention_s(attention, sizes, positions, left)).sum(axis=0)
        chunks = whole + partial
        return self._with_host(gpu, chunks, left) + self._head_s(np.ones(1)) * left.prefill_time

    def _with_host(self, gpu: Floats, chunks: Floats | float, left: Compressed) -> Floats:
        run = self.machine.runtime
        gpu = np.maximum(
            gpu * max(run.prefill_gpu * self.machine.older, 1.0), chunks * run.launch_layer_s * self.stage.layers
        )
        return np.asarray(gpu * left.prefill_time + chunks * run.prefill_host_s)

    def _chunk_fixed_s(self, size: Floats, sequences: float = 1.0, whole_prompt: bool = False) -> Floats:
        logits = sequences if whole_prompt else 0.0

        def rows_of(s: Floats) -> Floats:
            tokens = s * sequences / self.stage.shape.pcp
            fixed = self._fixed_s(tokens, np.full_like(s, logits)) + self._prefix_exchange_s(tokens)
            return np.asarray(fixed[None])

        return np.asarray(self._per_size(f"chunk:{whole_prompt}", sequences, size, rows_of)[0])

    def _attention_s(
        self,
        attention: Attention,
        size: Floats,
        position: Floats | float,
        left: Compressed,
        sequences: float = 1.0,
        worst: bool = False,
    ) -> Floats:
        machine, pcp = self.machine, self.stage.shape.pcp
        if worst and attention.chunked:
            pairs = most_pairs(attention, position, size)
        else:
            pairs = attended_pairs(attention, position + size) - attended_pairs(attention, position)
        if attention.full and attention.compressible:
            pairs = pairs * left.prefill_attention
        reach = reach_tokens(attention)
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
            None if reach is None else float(reach),
        )
        expand = attention.expand_flops * position
        rate = machine.gemm[UNQUANTISED].compute * machine.peak.flops_per_s
        return np.asarray(attention.count * (time + expand / rate))

    # ------------------------------------------------------------- everything but attention

    def _per_size(self, kind: str, sequences: float, size: Floats, rows_of: Callable[[Floats], Floats]) -> Floats:
        """``rows_of(size)``, ``(row, size)``, computed once for each distinct size."""
        known = self._known.setdefault((kind, sequences), {})
        keys, inverse = _distinct_sizes(np.asarray(size, dtype=np.float64).tobytes())
        missing = [key for key in keys if key not in known]
        if missing:
            if len(known) > MOST_SIZES:
                known.clear()
                missing = list(keys)
            known.update(zip(missing, rows_of(np.array(missing)).T, strict=True))
        columns = np.array([known[key] for key in keys]).T
        return np.asarray(columns[:, inverse.reshape(size.shape)])

    def _fixed_s(self, tokens: Floats, logits: Floats) -> Floats:
        """Everything but attention: products, experts, elementwise kernels, collectives, logits [s]."""
        stage, machine = self.stage, self.machine
        time = self._products_s(tokens) + self._experts_s(tokens)
        unfused = machine.runtime.unfused
        kernels = FUSED_KERNELS * stage.layers * unfused
        moved = stage.moved_bytes * tokens * unfused
        time = time + op.elementwise_s(machine.elementwise, machine.peak, moved, kernels)
        if stage.scan_flops:
            time = time + stage.scan_flops * tokens / (machine.prefill.compute * machine.peak.flops_per_s)
        message = 2.0 * tokens * stage.hidden
        shape = stage.shape
        if shape.tp > 1:
            time = time + stage.all_reduces * self._all_reduce_s(shape.tp, message)
        for group in stage.experts if shape.ep > shape.tp else ():
            # The tokens of all replicas are gathered, and each one's sums scattered back.
            time = time + group.count * self._all_reduce_s(shape.ep, message * group.batch_factor)
        if shape.pp > 1:
            # Passing hidden states on moves as many bytes per GPU as an all-reduce of two.
            time = time + self.fabric.pass_on_s(machine.all_reduce, shape.tp * shape.pcp, shape.pp, message)
        if np.any(logits > 0):
            time = time + np.where(logits > 0, self._head_s(np.maximum(logits, 1.0)), 0.0)
        return time

    def _all_reduce_s(self, gpus: int, message: Floats) -> Floats:
        return self.fabric.all_reduce_s(self.machine.all_reduce, gpus, message) + self.machine.runtime.collective_s

    def _cache_exchange_s(self, attention: Attention, b: Floats) -> Floats:
        """Queries and partial outputs of decode context parallelism, per layer [s]."""
        dcp = self.stage.shape.dcp
        if dcp == 1 or not attention.full:
            return np.zeros_like(b)
        return self._all_reduce_s(dcp, b * attention.query_bytes * dcp)

    def _prefix_exchange_s(self, tokens: Floats) -> Floats:
        """Keys and values of a chunk, gathered over prefill context parallelism [s]."""
        pcp, time = self.stage.shape.pcp, np.zeros_like(tokens)
        for attention in self.stage.attention if pcp > 1 else ():
            message = tokens * pcp * 4.0 * attention.kv_heads * attention.pair_dim
            time = time + attention.count * self._all_reduce_s(pcp, message) / 2.0
        return time

    def _products_s(self, tokens: Floats) -> Floats:
        time: Floats = np.zeros_like(tokens)
        for quantised in (False, True):
            mine = [product for product in self.stage.products if product.quantised is quantised]
            if not mine:
                continue
            fit, peak = (self.linear if quantised else Linear()).on(self.machine)
            shapes = tuple((p.outputs, p.inputs, p.count) for p in mine)
            size = 2.0 * self.stage.bytes_ratio if quantised else 2.0
            time = time + _known_products_s(fit, peak, tuple(tokens.tolist()), shapes, size)
        return time

    def _head_s(self, sequences: Floats) -> Floats:
        """Logits and sampling [s]."""
        stage, machine = self.stage, self.machine
        if stage.head is None:
            return np.zeros_like(sequences)

        def rows_of(b: Floats) -> Floats:
            assert stage.head is not None  # noqa: S101
            shape = (stage.head.outputs, stage.head.inputs, 1)
            head = _known_products_s(machine.gemm[UNQUANTISED], machine.peak, tuple(b.tolist()), (shape,), 2.0)
            moved = SAMPLING_BYTES * b * stage.vocabulary * stage.shape.tp
            head = head + op.elementwise_s(machine.elementwise, machine.peak, moved, FUSED_KERNELS)
            return np.asarray(head[None])

        return np.asarray(self._per_size("head", 1.0, sequences, rows_of)[0])

    def _experts_s(self, tokens: Floats) -> Floats:
        time: Floats = np.zeros_like(tokens)
        machine, size = self.machine, 2.0 * self.stage.bytes_ratio
        for group in self.stage.experts:
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
                self.stage.hidden,
                size,
            )
        return time


@lru_cache(maxsize=64)
def _distinct_sizes(sizes: bytes) -> tuple[tuple[float, ...], NDArray[np.int64]]:
    """Sizes each once, and for every size which of them it is: replicas are asked for the same ones."""
    distinct, inverse = np.unique(np.frombuffer(sizes), return_inverse=True)
    return tuple(distinct.tolist()), inverse


@lru_cache(maxsize=8192)
def _known_products_s(
    fit: op.GemmFit,
    peak: op.Peak,
    tokens: tuple[float, ...],
    shapes: tuple[tuple[float, float, int], ...],
    weight_bytes: float,
) -> Floats:
    # A fit of host time asks for the same products again and again.
    outputs, inputs, counts = np.array(shapes).T
    return np.asarray(op.gemm_s(fit, peak, np.array(tokens)[:, None], outputs, inputs, weight_bytes) @ counts)


def _reads(attention: Attention, machine: Machine) -> float:
    return machine.runtime.grouped_reads if attention.query_heads > attention.kv_heads else 1.0


def _kept(attention: Attention, tokens: Floats | float) -> Floats | float:
    """Entries of an uncompressed cache that one query reads."""
    kept = tokens if attention.window_tokens is None else np.minimum(tokens, float(attention.window_tokens))
    kept = kept / attention.stride_tokens
    return kept if attention.cap_entries is None else np.minimum(kept, attention.cap_entries)


def _decode_entries(
    attention: Attention, tokens: Floats | float, left: Compressed
) -> tuple[Floats | float, Floats | float]:
    """Entries that one query computes with, and that many entries' bytes which it reads."""
    share = left.element_share if attention.compressible else 1.0
    if not (attention.full and attention.compressible):
        kept = _kept(attention, tokens)
        return kept, kept * share
    computed: Floats | float = left.attended_tokens / attention.stride_tokens
    fetched: Floats | float = left.read_tokens / attention.stride_tokens
    if attention.cap_entries is not None:
        computed = np.minimum(computed, attention.cap_entries)
        fetched = np.minimum(fetched, attention.cap_entries * share)
    return computed, fetched
