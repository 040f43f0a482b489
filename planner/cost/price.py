"""Price candidates: arrays of decisions in, arrays of metrics out.

Candidates that split the model the same way share all of a replica's coefficients, so they are
priced together, in blocks that fit a processor's cache. One axis everywhere: ``(candidate,)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from catalog.architecture import Architecture
from catalog.schema import Hardware, Node
from planner.cost.compression import CompressionTable
from planner.cost.compute import Compressed, Rates, chunk_s, decode_step_s, prefill_s, rates
from planner.cost.efficiency import Efficiency
from planner.cost.memory import largest_session_bytes, session_bytes, sessions_that_fit, shared_bytes
from planner.cost.replica import Replica, Shape, WeightFormat, shard
from planner.cost.session import (
    BOUNDS,
    SWAP,
    Phases,
    PrefillPool,
    Steady,
    Traffic,
    aggregated,
    disaggregated,
)
from planner.cost.workload import Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DDR, NVME = 0, 1
"""Codes of the offload tier."""
_BLOCK = 16_384
_UNLIMITED = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that the candidates of one pricing have in common."""

    architecture: Architecture
    hardware: Hardware
    node: Node
    gpus_per_node: int
    cluster_gpus: int
    workload: Workload
    efficiency: Efficiency
    shapes: tuple[Shape, ...]
    weight_formats: dict[str, WeightFormat]
    """Weight precision by its catalog point, as `Shape.weights` names it."""
    compression: CompressionTable
    usd_per_gpu_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Decisions as struct of arrays, ``(candidate,)`` each."""

    shape: Ints
    """Index into `Setting.shapes`: the replica, or the decode pool's replica."""
    compression: Ints
    """Index into `Setting.compression`."""
    replicas: Ints
    decode_sequences: Ints
    """Decode cap b of one replica."""
    resident_limit: Ints
    """Sessions that may be resident in one replica; 0: as many as fit."""
    prefill_chunk: Ints
    """Tokens per prefill chunk; 0: the whole prompt."""
    throttled: Bools
    policy: Ints
    """`planner.cost.session.NONE`, ``SWAP`` or ``RECOMPUTE``."""
    tier: Ints
    """`DDR` or `NVME`."""
    prefill_shape: Ints
    """Index into `Setting.shapes` of the prefill pool's replica; -1: aggregated."""
    prefill_replicas: Ints
    prefill_pool_chunk: Ints
    """Tokens per chunk in the prefill pool; 0: the whole prompt."""

    def __len__(self) -> int:
        return int(self.shape.shape[0])

    def take(self, rows: Ints) -> Candidates:
        """Return some of the candidates."""
        return Candidates(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Priced:
    """Metrics of candidates, ``(candidate,)`` each; over the cluster unless said otherwise."""

    fits: Bools
    """Weights, sessions and the decode cap fit."""
    sessions_that_fit: Floats
    """N of one replica."""
    resident: Floats
    """Sessions resident in one replica, as used."""
    concurrency: Floats
    sessions_per_s: Floats
    users: Floats
    interactions_per_hour: Floats
    bound: Ints
    """Index into `planner.cost.session.BOUNDS`."""
    prefill_s: Floats
    decode_s: Floats
    step_s: Floats
    tpot_s: Floats
    tpot_mean_s: Floats
    ttft_cold_s: Floats
    ttft_warm_s: Floats
    switch_s: Floats
    weights_bytes: Floats
    """On the fullest GPU."""
    kv_bytes: Floats
    """On the fullest GPU, of the resident sessions and the shared prefix."""
    tier_bytes: Floats
    """In the offload tier, over the cluster."""
    gpus: Floats
    usd_per_hour: Floats
    """NaN where no price is known."""
    usd_per_interaction: Floats


def price(setting: Setting, candidates: Candidates) -> Priced:
    """Price every candidate.

    Candidates that don't fit have ``fits`` False, no throughput and infinite cost per interaction;
    their latencies are those of a single session.
    """
    count = len(candidates)
    columns: dict[str, NDArray[np.generic]] = {}
    for rows in _groups(candidates):
        part = _price_group(setting, candidates.take(rows))
        for field in fields(Priced):
            values = getattr(part, field.name)
            if field.name not in columns:
                columns[field.name] = np.empty(count, dtype=values.dtype)
            columns[field.name][rows] = values
    return Priced(**columns)  # type: ignore[arg-type]


def _groups(candidates: Candidates) -> Iterator[Ints]:
    """Yield rows that share their shapes, in blocks."""
    key = candidates.shape * (int(candidates.prefill_shape.max(initial=-1)) + 2) + candidates.prefill_shape + 1
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=np.iinfo(np.int64).min))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        for block in range(int(start), int(end), _BLOCK):
            yield order[block : min(block + _BLOCK, int(end))]


def _price_group(setting: Setting, candidates: Candidates) -> Priced:
    pool = _Pool.of(setting, int(candidates.shape[0]), candidates.compression)
    prefill_index = int(candidates.prefill_shape[0])
    is_split = prefill_index >= 0
    prefill_pool = _Pool.of(setting, prefill_index, candidates.compression) if is_split else pool
    chunk = candidates.prefill_pool_chunk if is_split else candidates.prefill_chunk
    fits, resident, serial = _residency(pool, candidates, is_split, setting.workload)
    if is_split:
        fits &= prefill_pool.fit >= 1
    sequences = np.where(serial, 1.0, candidates.decode_sequences.astype(np.float64))
    traffic = _traffic(setting, pool, candidates, resident, serial, sequences)
    phases = _phases(setting, pool, candidates, chunk, sequences, is_split)
    if is_split:
        steady, prefill_alone = _split_steady(setting, pool, prefill_pool, candidates, phases, traffic)
    else:
        steady, prefill_alone = aggregated(phases, traffic), phases.prefill_latency_s
    prefill_alone = _document_alone(setting, prefill_pool, chunk) if setting.workload.growth else prefill_alone
    return _collect(setting, pool, prefill_pool, candidates, fits, resident, phases, steady, prefill_alone)


@dataclass(frozen=True, slots=True)
class _Pool:
    """A replica with what compression leaves in it, gathered per candidate."""

    replica: Replica
    rate: Rates
    rows: Ints
    decode_left: Compressed
    fit: Floats
    end_bytes: Floats
    """One session at its end on the fullest GPU [bytes]."""
    warm_bytes: Floats
    out_bytes: Floats
    prefix_bytes: Floats

    @staticmethod
    def of(setting: Setting, index: int, rows: Ints) -> _Pool:
        shape = setting.shapes[index]
        weights = setting.weight_formats[shape.weights]
        replica = shard(setting.architecture, shape, weights)
        work, table = setting.workload, setting.compression
        limit = setting.hardware.hbm * setting.efficiency.hbm_utilisation
        fit = sessions_that_fit(
            replica, table, limit, work.prompt_tokens, work.end_tokens, float(work.shared_prefix_tokens)
        )
        prompt, shared = float(work.prompt_tokens), float(work.shared_prefix_tokens)
        end = _largest([session_bytes(s, table, prompt, work.end_tokens, shared) for s in replica.stages])
        prefix = _largest([shared_bytes(s, table, prompt, shared) for s in replica.stages])
        return _Pool(
            replica=replica,
            rate=_rates(setting, weights),
            rows=rows,
            decode_left=_left(table, work.prompt_tokens, work.decode_tokens, rows),
            fit=fit[rows],
            end_bytes=end[rows],
            warm_bytes=largest_session_bytes(replica, table, prompt, work.warm_tokens)[rows],
            out_bytes=largest_session_bytes(replica, table, prompt, work.last_warm_tokens)[rows],
            prefix_bytes=prefix[rows],
        )

    def prefill_busy_s(self, start: float, end: float, size: Floats) -> Floats:
        pcp = self.replica.shape.pcp
        return _largest([prefill_s(s, self.rate, start, end, size, self.decode_left, pcp) for s in self.replica.stages])

    def chunk_through_s(self, size: Floats, position: Floats | float) -> Floats:
        """A chunk's time through the whole pipeline [s]."""
        shape = self.replica.shape
        stages = [chunk_s(s, self.rate, size, position, self.decode_left, shape.pcp) for s in self.replica.stages]
        return shape.pp * _largest(stages)

    def step_s(self, sequences: Floats, tokens: float) -> Floats:
        """A quiet decode step: pp microbatches through pp stages [s]."""
        pp = self.replica.shape.pp
        micro = np.ceil(sequences / pp)
        return pp * _largest(
            [decode_step_s(s, self.rate, micro, tokens, self.decode_left) for s in self.replica.stages]
        )


def _largest(values: list[Floats]) -> Floats:
    return values[0] if len(values) == 1 else np.maximum.reduce(values)


def _rates(setting: Setting, weights: WeightFormat) -> Rates:
    flops = setting.hardware.flops
    linear = getattr(flops, weights.flops_precision) or flops.bf16
    return rates(flops.bf16, linear, setting.hardware.hbm_bandwidth, setting.efficiency)


def _left(table: CompressionTable, prompt: float, tokens: float, rows: Ints) -> Compressed:
    return Compressed(
        read_tokens=table.read_tokens(prompt, tokens)[rows],
        attended_share=table.attended_share(tokens)[rows],
        element_share=table.element_share()[rows],
        prefix_share=table.prefix_share()[rows],
        prefill_linear=table.prefill_linear[rows],
        prefill_attention=table.prefill_attention[rows],
    )


def _residency(
    pool: _Pool, candidates: Candidates, is_split: bool, work: Workload
) -> tuple[Bools, Floats, Bools]:
    """Return whether the decision fits, the sessions resident, and whether service is serial.

    Beside b decoding sessions HBM holds one in prefill (or one arriving from the prefill pool).
    Where no room is left for a session between rounds, sessions are served one at a time.
    """
    limit = candidates.resident_limit
    resident = np.where(limit == _UNLIMITED, pool.fit, np.minimum(limit, pool.fit))
    sequences = candidates.decode_sequences
    fits = (pool.fit >= 1) & (np.where(limit == _UNLIMITED, 1, limit) <= pool.fit)
    fits &= (sequences == 1) | (sequences + 1 <= resident)
    between_rounds = (work.rounds > 1) & (candidates.policy != 2)
    serial = (resident <= 1) | (between_rounds & (resident <= sequences + 1))
    return fits, np.where(serial, np.minimum(resident, 1.0), resident), serial


def _traffic(
    setting: Setting, pool: _Pool, candidates: Candidates, resident: Floats, serial: Bools, sequences: Floats
) -> Traffic:
    work, node = setting.workload, setting.node
    share = pool.replica.shape.gpus / node.gpus
    nvme = node.nvme.capacity if node.nvme else 0.0
    tier_bytes = np.where(candidates.tier == NVME, nvme, node.host_memory) * share
    link = setting.hardware.pcie
    both = link.effective_both / link.effective if link.effective_both else 2.0
    return Traffic(
        rounds=work.rounds,
        output_tokens=work.output_tokens,
        think_s=work.think_s,
        decode_sequences=sequences,
        resident=resident,
        serial=serial,
        policy=candidates.policy,
        throttled=candidates.throttled,
        tier_sessions=tier_bytes / np.maximum(pool.end_bytes * pool.replica.shape.gpus, 1e-9),
        gpu_utilisation=setting.efficiency.gpu_utilisation,
        both_ways_ratio=min(2.0, both) if setting.efficiency.shared_uplinks else 2.0,
    )


def link_bytes_per_s(setting: Setting, tier: Ints) -> tuple[Floats, Floats]:
    """Return what one GPU copies in and out of a tier, ``(candidate,)`` each [bytes/s]."""
    pcie = setting.hardware.pcie.effective
    if setting.efficiency.shared_uplinks:
        pcie /= min(setting.node.gpus_per_pcie_uplink, setting.gpus_per_node)
    nvme = setting.node.nvme
    read = min(pcie, nvme.read / setting.node.gpus) if nvme else 1e-9
    write = min(pcie, nvme.write / setting.node.gpus) if nvme else 1e-9
    on_nvme = tier == NVME
    return np.where(on_nvme, read, pcie), np.where(on_nvme, write, pcie)


def _phases(
    setting: Setting, pool: _Pool, candidates: Candidates, chunk: Ints, sequences: Floats, is_split: bool
) -> Phases:
    work = setting.workload
    start, prompt = float(work.shared_prefix_tokens), float(work.prompt_tokens)
    size = _sizes(chunk, prompt - start)
    zero = np.zeros(len(candidates))
    pp = pool.replica.shape.pp
    into, out = link_bytes_per_s(setting, candidates.tier)
    swapping = candidates.policy == SWAP
    warm_in = pool.warm_bytes / into
    if is_split:
        busy = largest = chunks = latency = zero
    else:
        busy = pool.prefill_busy_s(start, prompt, size)
        largest = pool.chunk_through_s(size, np.maximum(prompt - size, start))
        chunks = np.ceil((prompt - start) / size)
        latency = busy + largest * (pp - 1) / pp
    later_busy, later_latency = _later_prefill(setting, pool, candidates, size)
    return Phases(
        prefill_busy_s=busy,
        prefill_latency_s=latency,
        chunks=chunks,
        largest_chunk_s=largest,
        step_s=pool.step_s(sequences, work.decode_tokens),
        later_prefill_busy_s=later_busy,
        later_prefill_latency_s=later_latency,
        swap_in_s=np.where(swapping, warm_in, 0.0),
        swap_out_total_s=np.where(swapping, pool.out_bytes / out, 0.0),
        switch_s=warm_in + pool.warm_bytes / out,
    )


def _sizes(chunk: Ints, tokens: float) -> Floats:
    whole = max(tokens, 1.0)
    return np.where(chunk <= 0, whole, np.minimum(chunk, whole))


def _later_prefill(setting: Setting, pool: _Pool, candidates: Candidates, size: Floats) -> tuple[Floats, Floats]:
    """Return GPU time and latency of a later round's prefill: its question, or everything when recomputing."""
    work = setting.workload
    pp = pool.replica.shape.pp
    zero = np.zeros(len(candidates))
    question = zero
    if work.rounds > 1 and work.question_tokens > 0:
        question = pool.chunk_through_s(np.full(len(candidates), float(work.question_tokens)), work.warm_tokens)
    recomputing = candidates.policy == 2
    if work.rounds == 1 or not recomputing.any():
        return question / pp, question
    # Prefill is convex in the length, so the mean of the ends is no less than the mean over rounds.
    start, grown = float(work.shared_prefix_tokens), float(work.question_tokens if work.growth else 0)
    first = 2.0 * work.warm_tokens - work.last_warm_tokens
    ends = [pool.prefill_busy_s(start, length + grown, size) for length in (first, work.last_warm_tokens)]
    busy = (ends[0] + ends[1]) / 2.0
    last = pool.chunk_through_s(size, np.maximum(work.last_warm_tokens + grown - size, start))
    latency = busy + last * (pp - 1) / pp
    return np.where(recomputing, busy, question / pp), np.where(recomputing, latency, question)


def _document_alone(setting: Setting, pool: _Pool, chunk: Ints) -> Floats:
    """Time of the document without its first question on an idle replica [s]."""
    start, ctx = float(setting.workload.shared_prefix_tokens), float(setting.workload.ctx_tokens)
    size = _sizes(chunk, ctx - start)
    pp = pool.replica.shape.pp
    last = pool.chunk_through_s(size, np.maximum(ctx - size, start))
    return pool.prefill_busy_s(start, ctx, size) + last * (pp - 1) / pp


def _split_steady(
    setting: Setting, pool: _Pool, prefill: _Pool, candidates: Candidates, phases: Phases, traffic: Traffic
) -> tuple[Steady, Floats]:
    work = setting.workload
    start, prompt = float(work.shared_prefix_tokens), float(work.prompt_tokens)
    size = _sizes(candidates.prefill_pool_chunk, prompt - start)
    busy = prefill.prefill_busy_s(start, prompt, size)
    pp = prefill.replica.shape.pp
    latency = busy + prefill.chunk_through_s(size, np.maximum(prompt - size, start)) * (pp - 1) / pp
    ratio = candidates.prefill_replicas / candidates.replicas
    decode_gpus, prefill_gpus = pool.replica.shape.gpus, prefill.replica.shape.gpus
    per_gpu = _pool_link_bytes_per_s(setting, candidates, decode_gpus, prefill_gpus)
    session = pool.warm_bytes * decode_gpus
    transfer = session / (per_gpu * min(decode_gpus, prefill_gpus))
    senders = np.minimum(decode_gpus * 1.0, prefill_gpus * ratio)
    link_rate = traffic.gpu_utilisation * per_gpu * senders / session
    rate = traffic.gpu_utilisation / busy * ratio
    return disaggregated(phases, traffic, PrefillPool(rate, latency, transfer, link_rate)), latency


def _pool_link_bytes_per_s(setting: Setting, candidates: Candidates, decode_gpus: int, prefill_gpus: int) -> Floats:
    """Bandwidth per GPU between the pools: the GPUs' own link inside a node, else the node's network."""
    gpus = candidates.replicas * decode_gpus + candidates.prefill_replicas * prefill_gpus
    linked = setting.hardware.gpu_link is not None and setting.node.gpu_topology not in ("pcie", "none")
    inside = setting.hardware.gpu_link.effective if linked and setting.hardware.gpu_link else setting.hardware.pcie.effective
    nic = setting.node.nic.bandwidth / setting.node.gpus if setting.node.nic else setting.hardware.pcie.effective
    return np.where(gpus <= setting.gpus_per_node, inside, min(nic, inside))


def _collect(
    setting: Setting,
    pool: _Pool,
    prefill_pool: _Pool,
    candidates: Candidates,
    fits: Bools,
    resident: Floats,
    phases: Phases,
    steady: Steady,
    prefill_alone: Floats,
) -> Priced:
    work, replicas = setting.workload, candidates.replicas.astype(np.float64)
    gpus = replicas * pool.replica.shape.gpus
    if prefill_pool is not pool:
        gpus = gpus + candidates.prefill_replicas * prefill_pool.replica.shape.gpus
    sessions = np.where(fits, steady.sessions_per_s * replicas, 0.0)
    interactions = 3600.0 * work.rounds * sessions
    usd_per_hour = gpus * (setting.usd_per_gpu_hour if setting.usd_per_gpu_hour is not None else np.nan)
    with np.errstate(divide="ignore"):
        per_interaction = np.where(interactions > 0, usd_per_hour / np.maximum(interactions, 1e-300), np.inf)
    weights = max(stage.weight_bytes for stage in pool.replica.stages)
    swapping = candidates.policy == SWAP
    users = sessions * steady.session_s
    return Priced(
        fits=fits,
        sessions_that_fit=pool.fit,
        resident=resident,
        concurrency=replicas * pool.fit,
        sessions_per_s=sessions,
        users=users,
        interactions_per_hour=interactions,
        bound=np.where(fits, steady.bound, BOUNDS.index("memory")),
        prefill_s=prefill_alone,
        decode_s=work.output_tokens * phases.step_s,
        step_s=phases.step_s,
        tpot_s=steady.tpot_s,
        tpot_mean_s=steady.tpot_mean_s,
        ttft_cold_s=steady.ttft_cold_s,
        ttft_warm_s=steady.ttft_warm_s,
        switch_s=phases.switch_s,
        weights_bytes=np.full(len(candidates), weights),
        kv_bytes=np.maximum(resident, 0.0) * pool.end_bytes + pool.prefix_bytes,
        tier_bytes=np.where(swapping, users * pool.end_bytes * pool.replica.shape.gpus, 0.0),
        gpus=gpus,
        usd_per_hour=usd_per_hour,
        usd_per_interaction=np.where(np.isnan(usd_per_hour), np.nan, per_interaction),
    )
