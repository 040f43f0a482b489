"""Steady state of a replica: how many sessions per second it serves, what bounds it, and how long users wait.

The laws are bounds on throughput X (sessions per second): the GPU's time, the sessions that HBM
holds, the copies that DDR or NVMe holds, and the bytes that PCIe moves. Latencies exclude queueing.
All arrays are ``(candidate,)``, all times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NONE, SWAP, RECOMPUTE = 0, 1, 2
"""Codes of the offload policy."""

BOUNDS = ("gpu", "hbm", "ddr", "pcie", "link", "serial", "prefill", "memory")
"""What throughput meets first; ``memory``: the decision doesn't fit at all. ``ddr`` includes NVMe as tier."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Times of one session's parts on one replica, before any interference."""

    prefill_busy_s: Floats
    """GPU time of the first prompt's prefill (pipeline full)."""
    prefill_latency_s: Floats
    """Time of the first prompt on an idle replica, pipeline filling included."""
    chunks: Floats
    """Chunks of the first prompt."""
    largest_chunk_s: Floats
    """The last chunk's time through the whole pipeline."""
    step_s: Floats
    """A quiet decode step through the whole pipeline."""
    later_prefill_busy_s: Floats
    """GPU time of one later round's prefill: the question, or everything when recomputing."""
    later_prefill_latency_s: Floats
    swap_in_s: Floats
    """One whole cache in; 0 unless swapping."""
    swap_out_total_s: Floats
    """Bytes out of a whole session over the link; 0 unless swapping."""
    switch_s: Floats
    """One whole cache out plus one in, whatever the policy."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the workload and the decision ask of a replica."""

    rounds: int
    output_tokens: int
    think_s: float
    decode_sequences: Floats
    resident: Floats
    """Sessions that may be resident (N used)."""
    serial: Bools
    """One session at a time."""
    policy: NDArray[np.int64]
    throttled: Bools
    tier_sessions: Floats
    """Sessions that the replica's share of the tier holds."""
    gpu_utilisation: float
    both_ways_ratio: float
    """Both directions' bandwidth over one direction's: 2 is full duplex."""


@dataclass(frozen=True, slots=True)
class Steady:
    """Steady state of one replica."""

    sessions_per_s: Floats
    bound: NDArray[np.int64]
    """Index into `BOUNDS`."""
    tpot_s: Floats
    tpot_mean_s: Floats
    ttft_cold_s: Floats
    ttft_warm_s: Floats
    session_s: Floats
    """How long one session lasts."""


def hold_s(traffic: Traffic, phases: Phases) -> Floats:
    """How long a session between two rounds occupies HBM: reading, switching, or not at all [s]."""
    return np.select(
        [traffic.policy == NONE, traffic.policy == SWAP],
        [np.full_like(phases.step_s, traffic.think_s), phases.switch_s],
        0.0,
    )


def aggregated(phases: Phases, traffic: Traffic) -> Steady:
    """Steady state of a replica that prefills and decodes on the same GPUs."""
    later = traffic.rounds - 1
    busy = phases.prefill_busy_s + later * phases.later_prefill_busy_s
    decode = traffic.rounds * traffic.output_tokens * phases.step_s
    shared = ~traffic.serial
    interference = np.where(shared, phases.largest_chunk_s, 0.0)
    ttft_cold = phases.prefill_latency_s + np.where(shared, phases.chunks * phases.step_s, 0.0)
    mixed = phases.step_s + phases.largest_chunk_s
    wait = np.where(shared, np.where(traffic.throttled, mixed, ttft_cold), 0.0)
    ttft_warm = phases.swap_in_s + wait + phases.later_prefill_latency_s + np.where(shared, phases.step_s, 0.0)
    hold = hold_s(traffic, phases)
    serial_length = phases.prefill_latency_s + decode + later * (hold + phases.later_prefill_latency_s)
    waiting = ttft_cold + later * (traffic.think_s + ttft_warm)
    bounds = {
        "gpu": traffic.gpu_utilisation / (busy + decode / traffic.decode_sequences),
        "hbm": _hbm_bound(traffic.resident - traffic.decode_sequences - 1.0, later * hold),
        "pcie": _pcie_bound(phases, traffic, later),
        "ddr": _tier_bound(traffic, waiting, decode, np.where(shared, busy, 0.0)),
    }
    sessions, bound = _smallest(bounds, traffic.serial, traffic.gpu_utilisation / serial_length)
    free = np.maximum(1.0 - np.where(shared, sessions * busy, 0.0), 1e-12)
    tpot_mean = phases.step_s / free
    session_s = ttft_cold + traffic.rounds * traffic.output_tokens * tpot_mean
    session_s = session_s + later * (traffic.think_s + ttft_warm)
    return Steady(sessions, bound, phases.step_s + interference, tpot_mean, ttft_cold, ttft_warm, session_s)


@dataclass(frozen=True, slots=True)
class PrefillPool:
    """What the prefill pool of a disaggregated deployment gives each decode replica."""

    sessions_per_s: Floats
    """Bound from the prefill GPUs' time, per decode replica."""
    latency_s: Floats
    transfer_s: Floats
    """One session's cache over the link between the pools."""
    link_sessions_per_s: Floats
    """Bound from the link, per decode replica."""


def disaggregated(phases: Phases, traffic: Traffic, pool: PrefillPool) -> Steady:
    """Steady state of one decode replica whose first prompts are prefilled elsewhere.

    Later questions are prefilled where the cache is, in the decode pool, whose worst step counts
    that small chunk.
    """
    later = traffic.rounds - 1
    busy = later * phases.later_prefill_busy_s
    decode = traffic.rounds * traffic.output_tokens * phases.step_s
    shared = ~traffic.serial
    interference = np.where(shared & (later > 0), phases.later_prefill_latency_s, 0.0)
    ttft_cold = pool.latency_s + pool.transfer_s + phases.step_s
    ttft_warm = phases.swap_in_s + phases.later_prefill_latency_s
    ttft_warm = ttft_warm + np.where(shared, 2.0 * phases.step_s + interference, 0.0)
    hold = hold_s(traffic, phases)
    serial_length = pool.transfer_s + decode + later * (hold + phases.later_prefill_latency_s)
    waiting = ttft_cold + later * (traffic.think_s + ttft_warm)
    bounds = {
        "gpu": traffic.gpu_utilisation / (busy + decode / traffic.decode_sequences),
        "hbm": _hbm_bound(traffic.resident - traffic.decode_sequences - 1.0, later * hold),
        "pcie": _pcie_bound(phases, traffic, later),
        "ddr": _tier_bound(traffic, waiting, decode, np.where(shared, busy, 0.0)),
        "prefill": pool.sessions_per_s,
        "link": pool.link_sessions_per_s,
    }
    serial = np.minimum(traffic.gpu_utilisation / serial_length, pool.sessions_per_s)
    sessions, bound = _smallest(bounds, traffic.serial, serial)
    free = np.maximum(1.0 - np.where(shared, sessions * busy, 0.0), 1e-12)
    tpot_mean = phases.step_s / free
    session_s = ttft_cold + traffic.rounds * traffic.output_tokens * tpot_mean
    session_s = session_s + later * (traffic.think_s + ttft_warm)
    return Steady(sessions, bound, phases.step_s + interference, tpot_mean, ttft_cold, ttft_warm, session_s)


def _hbm_bound(spare: Floats, held_s: Floats) -> Floats:
    """``b + 1 + X (R-1) t_hold <= N``: sessions between rounds share what decoding and prefill leave."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(held_s > 0, np.maximum(spare, 0.0) / held_s, np.inf)


def _pcie_bound(phases: Phases, traffic: Traffic, later: int) -> Floats:
    """In: R-1 whole caches. Out: the cache once, then what each round added. Each direction, and their sum."""
    into = later * phases.swap_in_s
    out = np.where(traffic.policy == SWAP, phases.swap_out_total_s, 0.0)
    slowest = np.maximum(np.maximum(into, out), (into + out) / traffic.both_ways_ratio)
    with np.errstate(divide="ignore"):
        return np.where(slowest > 0, traffic.gpu_utilisation / np.maximum(slowest, 1e-300), np.inf)


def _tier_bound(traffic: Traffic, waiting_s: Floats, decode_s: Floats, busy_s: Floats) -> Floats:
    """Largest X with ``X (waiting + decode / (1 - X busy)) <= sessions that the tier holds``.

    The tier is inclusive: it keeps a session's copy from its first prefill to its end. The smaller
    root of the quadratic, in the form that doesn't cancel.
    """
    held = traffic.tier_sessions
    middle = waiting_s + decode_s + held * busy_s
    root = np.sqrt(np.maximum(middle * middle - 4.0 * waiting_s * busy_s * held, 0.0))
    bound = 2.0 * held / (middle + root)
    return np.where(traffic.policy == SWAP, bound, np.inf)


def _smallest(bounds: dict[str, Floats], serial: Bools, serial_rate: Floats) -> tuple[Floats, NDArray[np.int64]]:
    names = list(bounds)
    stacked = np.stack(list(bounds.values()))
    least = np.argmin(stacked, axis=0)
    sessions = np.take_along_axis(stacked, least[None], axis=0)[0]
    codes = np.array([BOUNDS.index(name) for name in names])[least]
    # Serial service still has to respect the tier and the links.
    capped = np.minimum(serial_rate, stacked[names.index("ddr")])
    sessions = np.where(serial, capped, sessions)
    bound = np.where(serial, np.where(capped < serial_rate, BOUNDS.index("ddr"), BOUNDS.index("serial")), codes)
    return sessions, bound.astype(np.int64)
