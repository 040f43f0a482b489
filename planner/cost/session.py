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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Phases:
    """Times of one session's parts on one replica, before any interference."""

    prefill_busy_s: Floats
    """GPU time of the first prompt's prefill (pipeline full), by the pool that does it."""
    prefill_latency_s: Floats
    """Time of the first prompt on an idle replica, pipeline filling included."""
    prefill_steps: Floats
    """Decode steps that the first prompt's chunks give way to."""
    largest_chunk_s: Floats
    """The longest chunk that runs on this replica, through the whole pipeline."""
    step_s: Floats
    """A quiet decode step through the whole pipeline."""
    later_prefill_busy_s: Floats
    """GPU time of one later round's prefill: the question, with the answer before it where another pool gave that, or
    everything when recomputing."""
    later_prefill_latency_s: Floats
    later_prefill_steps: Floats
    """Decode steps that the chunks of a later round's prefill give way to."""
    swap_in_s: Floats
    """The session's own cache in; 0 unless swapping."""
    swap_out_s: Floats
    """The session's own cache out, whole; 0 unless swapping."""
    swap_out_total_s: Floats
    """Bytes out of a whole session over the link, each written once; 0 unless swapping."""
    switch_s: Floats
    """One whole cache out plus one in, whatever the policy."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
    """Sessions that the replica's share of the tier holds; the prefill replica's where there are two pools."""
    gpu_utilisation: float
    decode_reserves: bool
    """Room for a prompt is kept where it will be decoded while another pool prefills it."""
    both_ways_ratio: float
    """Both directions' bandwidth over one direction's: 2 is full duplex."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Handover:
    """What a prefill pool is to each decode replica, and the way of caches from one to the other."""

    replicas: Floats
    """Prefill replicas per decode replica."""
    resident: Floats
    """Sessions that one prefill replica holds."""
    transfer_s: Floats
    """One session's cache over the link between the pools after its first prompt."""
    later_transfer_s: Floats
    """The same after a later question: the whole cache again."""
    link_sessions_per_s: Floats
    """Bound from the link, per decode replica."""


def aggregated(phases: Phases, traffic: Traffic, sessions_per_s: Floats | None = None) -> Steady:
    """Steady state of a replica that prefills and decodes on the same GPUs.

    With ``sessions_per_s`` the laws aren't asked: that is how many it serves.
    """
    shared = ~traffic.serial
    ttft_cold = phases.prefill_latency_s + np.where(shared, phases.prefill_steps * phases.step_s, 0.0)
    mixed = phases.step_s + phases.largest_chunk_s
    # A question waits for one mixed step where long prefills are throttled, else for a whole one.
    wait = np.where(traffic.throttled, mixed, ttft_cold)
    later = traffic.rounds - 1
    busy = phases.prefill_busy_s + later * phases.later_prefill_busy_s
    decode = traffic.rounds * traffic.output_tokens * phases.step_s
    ttft_warm = phases.swap_in_s + phases.later_prefill_latency_s
    ttft_warm = ttft_warm + np.where(shared, wait + phases.later_prefill_steps * phases.step_s, 0.0)
    hold = np.where(traffic.policy == NONE, traffic.think_s, phases.swap_in_s + phases.swap_out_s)
    # One session at a time: the time that it takes of its replica.
    alone = phases.prefill_latency_s + decode + later * (hold + phases.later_prefill_latency_s)
    waiting = ttft_cold + later * (traffic.think_s + ttft_warm)
    between = np.where(shared, busy, 0.0)
    tpot = phases.step_s + np.where(shared, phases.largest_chunk_s, 0.0)
    bounds = {
        "gpu": np.where(shared, traffic.gpu_utilisation / (busy + decode / traffic.decode_sequences), np.inf),
        "hbm": np.where(shared, _hbm_bound(traffic.resident - traffic.decode_sequences - 1.0, later * hold), np.inf),
        "serial": np.where(shared, np.inf, traffic.gpu_utilisation / alone),
        "pcie": _pcie_bound(phases, traffic, later),
        "ddr": _tier_bound(traffic, waiting, decode, between, traffic.rounds * traffic.output_tokens * tpot),
    }
    sessions, bound = _least(bounds, sessions_per_s)
    # Every step is mixed at worst: then prefill takes the time in which nobody decodes, too.
    tpot_mean = np.minimum(phases.step_s / np.maximum(1.0 - sessions * between, 1e-12), tpot)
    return Steady(
        sessions_per_s=sessions,
        bound=bound,
        tpot_s=tpot,
        tpot_mean_s=tpot_mean,
        ttft_cold_s=ttft_cold,
        ttft_warm_s=ttft_warm,
        session_s=waiting + traffic.rounds * traffic.output_tokens * tpot_mean,
    )


def disaggregated(phases: Phases, traffic: Traffic, handover: Handover, sessions_per_s: Floats | None = None) -> Steady:
    """Steady state of one decode replica to which prefill replicas hand every prompt.

    Every request goes to a prefill replica first (docs/adr/0007): there caches wait between rounds, there a later
    question is prefilled with the answer before it, and from there the whole cache is sent again. A decode
    replica holds what it decodes and what arrives. With ``sessions_per_s`` the laws aren't asked: that is how many
    it serves.
    """
    later, rho, step = traffic.rounds - 1, traffic.gpu_utilisation, phases.step_s
    shared = ~traffic.serial
    busy = phases.prefill_busy_s + later * phases.later_prefill_busy_s
    latency = phases.prefill_latency_s + later * phases.later_prefill_latency_s
    answer = traffic.output_tokens * step
    moved = handover.transfer_s + later * handover.later_transfer_s
    ttft_cold = phases.prefill_latency_s + handover.transfer_s + step
    # A question waits for one chunk where long prefills are throttled, else for a whole document.
    wait = np.where(traffic.throttled, phases.largest_chunk_s, phases.prefill_latency_s)
    ttft_warm = phases.swap_in_s + wait + phases.later_prefill_latency_s + handover.later_transfer_s + step
    session = ttft_cold + later * (traffic.think_s + ttft_warm) + traffic.rounds * answer
    # The prefill replica keeps a cache while it is sent, and between rounds where nothing else does.
    hold = np.where(traffic.policy == NONE, traffic.think_s + answer, phases.swap_in_s + phases.swap_out_s)
    kept = np.where(traffic.policy == RECOMPUTE, 0.0, later * hold)
    arriving = moved
    if traffic.decode_reserves:
        arriving = ttft_cold + later * ttft_warm - traffic.rounds * step
    with np.errstate(divide="ignore", invalid="ignore"):
        decoding = np.where(shared, _rate(traffic.resident - traffic.decode_sequences, arriving), np.inf)
        waiting = _rate(handover.replicas * handover.resident, latency / rho + kept + moved)
        swapped = handover.replicas * traffic.tier_sessions / session
        bounds = {
            "gpu": np.where(shared, _rate(rho * traffic.decode_sequences, traffic.rounds * answer), np.inf),
            "hbm": np.minimum(decoding, waiting),
            "serial": np.where(shared, np.inf, _rate(rho, arriving + traffic.rounds * answer)),
            "pcie": handover.replicas * _pcie_bound(phases, traffic, later),
            "ddr": np.where(traffic.policy == SWAP, swapped, np.inf),
            "prefill": _rate(rho * handover.replicas, busy),
            "link": handover.link_sessions_per_s,
        }
    sessions, bound = _least(bounds, sessions_per_s)
    return Steady(
        sessions_per_s=sessions,
        bound=bound,
        tpot_s=step,
        tpot_mean_s=step,
        ttft_cold_s=ttft_cold,
        ttft_warm_s=ttft_warm,
        session_s=session,
    )


def _least(bounds: dict[str, Floats], told: Floats | None) -> tuple[Floats, NDArray[np.int64]]:
    """Sessions per second, the least of the bounds unless told, and which bound that is."""
    stacked = np.stack(list(bounds.values()))
    least = np.argmin(stacked, axis=0)
    sessions = np.take_along_axis(stacked, least[None], axis=0)[0] if told is None else told
    codes = np.array([BOUNDS.index(name) for name in bounds], dtype=np.int64)
    return sessions, codes[least]


def _rate(amount: Floats | float, each: Floats) -> Floats:
    """``amount / each``, and without a bound where nothing is taken."""
    return np.where(each > 0, np.maximum(amount, 0.0) / np.where(each > 0, each, 1.0), np.inf)


def _hbm_bound(spare: Floats, held_s: Floats) -> Floats:
    """``b + 1 + X (R-1) t_hold <= N``: sessions between rounds share what decoding and prefill leave."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(held_s > 0, np.maximum(spare, 0.0) / held_s, np.inf)


def _pcie_bound(phases: Phases, traffic: Traffic, later: int) -> Floats:
    """In: R-1 whole caches. Out: the cache once, then what each round added. Each direction, and their sum."""
    into = later * phases.swap_in_s
    out = phases.swap_out_total_s
    slowest = np.maximum(np.maximum(into, out), (into + out) / traffic.both_ways_ratio)
    with np.errstate(divide="ignore"):
        return np.where(slowest > 0, traffic.gpu_utilisation / np.maximum(slowest, 1e-300), np.inf)


def _tier_bound(traffic: Traffic, waiting_s: Floats, decode_s: Floats, busy_s: Floats, mixed_s: Floats) -> Floats:
    """Largest X with ``X (waiting + min(decode / (1 - X busy), mixed)) <= sessions that the tier holds``.

    The tier is inclusive: it keeps a session's copy from its first prefill to its end. The smaller
    root of the quadratic, in the form that doesn't cancel; or decoding in mixed steps only.
    """
    held = traffic.tier_sessions
    middle = waiting_s + decode_s + held * busy_s
    root = np.sqrt(np.maximum(middle * middle - 4.0 * waiting_s * busy_s * held, 0.0))
    bound = np.maximum(2.0 * held / (middle + root), held / (waiting_s + mixed_s))
    return np.where(traffic.policy == SWAP, bound, np.inf)
