"""Price candidates: arrays of decisions in, arrays of metrics out.

Candidates that split the model the same way share all of a replica's coefficients, so they are
priced together, in blocks that fit a processor's cache. One axis everywhere: ``(candidate,)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.candidates import AGGREGATED, DDR, NVME, PREFILLED, Bools, Candidates, Floats, Ints, Setting
from planner.cost.links import both_ways_ratio, link_bytes_per_s, tier_bytes
from planner.cost.phases import handover_of, no_decoding, no_handover, no_prefill, phases_of, prefills_of
from planner.cost.pool import Pool, compressed, fit_of
from planner.cost.session import BOUNDS, RECOMPUTE, SWAP, Phases, Steady, Traffic, aggregated, disaggregated
from planner.cost.workload import Workload

__all__ = ["DDR", "NVME", "Candidates", "Pools", "Priced", "Setting", "link_bytes_per_s", "price", "price_prefill"]

_BLOCK = 16_384
_UNLIMITED = 0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
    power_w: Floats
    """Board power of the GPUs in use; NaN where the GPU's isn't known."""
    usd_per_hour: Floats
    """NaN where no price is known."""
    usd_per_interaction: Floats


class Pools:
    """The pools of a setting, each made when it is first asked for."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        work, view = setting.workload, setting.efficiency
        self._left = compressed(setting.compression, work.prompt_tokens, work.decode_tokens, view.technique_time)
        self._pools: dict[int, Pool] = {}

    def __getitem__(self, shape: int) -> Pool:
        """Pool of one of the setting's shapes, with one row per combination of compression."""
        if shape not in self._pools:
            self._pools[shape] = Pool.of(self.setting, shape, self._left)
        return self._pools[shape]

    def fit(self, shape: int) -> Floats:
        """Sessions that fit one of the shapes, at their full length ``(combination,)``."""
        return self._pools[shape].fit if shape in self._pools else fit_of(self.setting, shape)


def price(setting: Setting, candidates: Candidates, pools: Pools | None = None, slowest: Ints | None = None) -> Priced:
    """Price every candidate.

    Candidates that don't fit have ``fits`` False, no throughput and infinite cost per interaction;
    their latencies are those of a single session.

    Parameters
    ----------
    setting, candidates
        What they have in common, and what is priced.
    pools
        The setting's, for who prices often.
    slowest
        For bounds: rows of the setting's compression that keep a session longest ``(candidate,)``. Users
        are then those of as many sessions as the candidate serves, each as long as with that row, whether
        or not long prefills are throttled.
    """
    count = len(candidates)
    pools = pools or Pools(setting)
    columns: dict[str, NDArray[np.generic]] = {}
    for rows in _groups(candidates):
        priced = _price_group(setting, pools, candidates.take(rows), None if slowest is None else slowest[rows])
        for field in fields(Priced):
            values = getattr(priced, field.name)
            if field.name not in columns:
                columns[field.name] = np.empty(count, dtype=values.dtype)
            columns[field.name][rows] = values
    return Priced(**columns)  # type: ignore[arg-type]


def _groups(candidates: Candidates) -> Iterator[Ints]:
    """Yield rows that share their shapes, in blocks."""
    pools = candidates.prefill_shape - PREFILLED
    key = candidates.shape * (int(pools.max(initial=0)) + 1) + pools
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=np.iinfo(np.int64).min))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        for block in range(int(start), int(end), _BLOCK):
            yield order[block : min(block + _BLOCK, int(end))]


def _price_group(setting: Setting, pools: Pools, candidates: Candidates, slowest: Ints | None) -> Priced:
    pool = pools[int(candidates.shape[0])].take(candidates.compression)
    prefill_index = int(candidates.prefill_shape[0])
    fits, resident, serial = _residency(pool, candidates, setting.workload)
    sequences = np.where(serial, 1.0, candidates.decode_sequences.astype(np.float64))
    holder = pools[prefill_index].take(candidates.compression) if prefill_index >= 0 else pool
    traffic = _traffic(setting, holder, candidates, resident, serial, sequences)
    gpus = candidates.replicas.astype(np.float64) * pool.gpus + candidates.reserve_gpus
    if prefill_index >= 0:
        fits = fits & (holder.fit >= 1)
        gpus = gpus + candidates.prefill_replicas * holder.gpus
    phases, steady, document_s = _service(setting, pools, candidates, candidates.compression, traffic)
    if slowest is not None:
        told = steady.sessions_per_s
        longest = _service(setting, pools, candidates, slowest, traffic, told)[1].session_s
        waiting = replace(traffic, throttled=np.zeros_like(traffic.throttled))
        unthrottled = _service(setting, pools, candidates, slowest, waiting, told)[1].session_s
        steady = replace(steady, session_s=np.maximum(longest, unthrottled))
    return _collect(setting, pool, holder, candidates, fits, resident, gpus, phases, steady, document_s)


def _service(
    setting: Setting,
    pools: Pools,
    candidates: Candidates,
    compression: Ints,
    traffic: Traffic,
    sessions_per_s: Floats | None = None,
) -> tuple[Phases, Steady, Floats]:
    """Times of a session's parts, the steady state, and the document's prefill on an idle replica [s]."""
    work, prefill_index = setting.workload, int(candidates.prefill_shape[0])
    pool = pools[int(candidates.shape[0])].take(compression)
    holder = pools[prefill_index].take(compression) if prefill_index >= 0 else pool
    chunk = candidates.prefill_pool_chunk if prefill_index >= 0 else candidates.prefill_chunk
    prefills = prefills_of(work, holder, chunk, feeds=prefill_index != AGGREGATED)
    phases = phases_of(setting, pool, holder, candidates, traffic.decode_sequences, prefills)
    if prefill_index == AGGREGATED:
        return phases, aggregated(phases, traffic, sessions_per_s), prefills.document.latency_s
    if prefill_index == PREFILLED:
        count = len(candidates)
        phases = no_prefill(phases)
        return phases, disaggregated(phases, traffic, no_handover(count), sessions_per_s), np.zeros(count)
    handover = handover_of(setting, pool, holder, candidates)
    return phases, disaggregated(phases, traffic, handover, sessions_per_s), prefills.document.latency_s


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Fed:
    """What one prefill replica reaches whatever decodes, ``(candidate,)`` each: no pair of pools does better."""

    sessions_per_s: Floats
    """0 where no session fits."""
    ttft_cold_s: Floats
    """Without the way to the decode pool, and its step."""
    ttft_warm_s: Floats
    switch_s: Floats


def price_prefill(setting: Setting, candidates: Candidates, pools: Pools) -> Fed:
    """Price prefill replicas of one shape by themselves; `Candidates.shape` and ``prefill_chunk`` are theirs."""
    pool = pools[int(candidates.shape[0])].take(candidates.compression)
    one = np.ones(len(candidates))
    traffic = _traffic(setting, pool, candidates, pool.fit, np.zeros(len(candidates), dtype=np.bool_), one)
    prefills = prefills_of(setting.workload, pool, candidates.prefill_chunk, feeds=True)
    phases = phases_of(setting, pool, pool, candidates, one, prefills)
    phases = replace(phases, step_s=0.0 * one)
    steady = disaggregated(phases, traffic, no_decoding(pool))
    return Fed(
        sessions_per_s=np.where(pool.fit >= 1, steady.sessions_per_s, 0.0),
        ttft_cold_s=steady.ttft_cold_s,
        ttft_warm_s=steady.ttft_warm_s,
        switch_s=phases.switch_s,
    )


def _residency(pool: Pool, candidates: Candidates, work: Workload) -> tuple[Bools, Floats, Bools]:
    """Return whether the decision fits, the sessions resident, and whether service is serial.

    Beside b decoding sessions HBM holds one in prefill (or one arriving from the prefill pool). Where no room
    is left for a session between rounds, which a prefill pool would have, sessions are served one at a time.
    """
    limit = candidates.resident_limit
    resident = np.where(limit == _UNLIMITED, pool.fit, np.minimum(limit, pool.fit))
    sequences = candidates.decode_sequences
    fits = (pool.fit >= 1) & (np.where(limit == _UNLIMITED, 1, limit) <= pool.fit)
    fits &= (sequences == 1) | (sequences + 1 <= resident)
    here = candidates.prefill_shape == AGGREGATED
    between_rounds = (work.rounds > 1) & (candidates.policy != RECOMPUTE) & here
    serial = (resident <= 1) | (between_rounds & (resident <= sequences + 1))
    return fits, np.where(serial, np.minimum(resident, 1.0), resident), serial


def _wanted(candidates: Candidates) -> Floats:
    """The sessions that a decision needs room for at least: what HBM must hold where it doesn't fit."""
    beside_prefill = np.where(candidates.decode_sequences > 1, candidates.decode_sequences + 1, 1)
    return np.maximum(candidates.resident_limit, beside_prefill).astype(np.float64)


def _traffic(
    setting: Setting, holder: Pool, candidates: Candidates, resident: Floats, serial: Bools, sequences: Floats
) -> Traffic:
    work = setting.workload
    held = np.maximum(holder.end_bytes * holder.gpus, 1e-9)
    return Traffic(
        rounds=work.rounds,
        output_tokens=work.output_tokens,
        think_s=work.think_s,
        decode_sequences=sequences,
        resident=resident,
        serial=serial,
        policy=candidates.policy,
        throttled=candidates.throttled,
        tier_sessions=tier_bytes(setting, candidates.tier, holder.gpus) / held,
        gpu_utilisation=setting.efficiency.gpu_utilisation,
        decode_reserves=setting.efficiency.decode_reserves,
        both_ways_ratio=both_ways_ratio(setting),
    )


def _collect(
    setting: Setting,
    pool: Pool,
    holder: Pool,
    candidates: Candidates,
    fits: Bools,
    resident: Floats,
    gpus: Floats,
    phases: Phases,
    steady: Steady,
    document_s: Floats,
) -> Priced:
    work, replicas = setting.workload, candidates.replicas.astype(np.float64)
    sessions = np.where(fits, steady.sessions_per_s * replicas, 0.0)
    interactions = 3600.0 * work.rounds * sessions
    usd_per_hour = gpus * (setting.usd_per_gpu_hour if setting.usd_per_gpu_hour is not None else np.nan)
    per_interaction = np.where(interactions > 0, usd_per_hour / np.maximum(interactions, 1e-300), np.inf)
    users = sessions * steady.session_s
    weights, kv = pool.fullest(np.where(fits, resident, _wanted(candidates)))
    return Priced(
        fits=fits,
        sessions_that_fit=pool.fit,
        resident=resident,
        concurrency=replicas * pool.fit,
        sessions_per_s=sessions,
        users=users,
        interactions_per_hour=interactions,
        bound=np.where(fits, steady.bound, BOUNDS.index("memory")),
        prefill_s=document_s,
        decode_s=work.output_tokens * phases.step_s,
        step_s=phases.step_s,
        tpot_s=steady.tpot_s,
        tpot_mean_s=steady.tpot_mean_s,
        ttft_cold_s=steady.ttft_cold_s,
        ttft_warm_s=steady.ttft_warm_s,
        switch_s=phases.switch_s,
        weights_bytes=weights,
        kv_bytes=kv,
        tier_bytes=np.where(candidates.policy == SWAP, users * holder.end_bytes * holder.gpus, 0.0),
        gpus=gpus,
        power_w=gpus * (np.nan if setting.hardware.tdp is None else setting.hardware.tdp),
        usd_per_hour=usd_per_hour,
        usd_per_interaction=np.where(np.isnan(usd_per_hour), np.nan, per_interaction),
    )
