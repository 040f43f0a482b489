"""The parts of a session on a pool: first prompt, decode step, later questions, swaps, transfers.

A prefill depends on a candidate only through its chunk and a few factors of its compression, so it is
computed once for each of these that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.cost.candidates import Candidates, Floats, Ints, Setting
from planner.cost.links import between_pools_bytes_per_s, link_bytes_per_s
from planner.cost.pool import Pool
from planner.cost.session import RECOMPUTE, SWAP, Phases, PrefillPool
from planner.cost.workload import Workload


@dataclass(frozen=True, slots=True)
class Prefill:
    """One prefill, ``(candidate,)`` each."""

    busy_s: Floats
    """GPU time, pipeline full."""
    latency_s: Floats
    steps: Floats
    """Decode steps that its chunks give way to."""
    largest_s: Floats
    """Its longest chunk through the whole pipeline."""


@dataclass(frozen=True, slots=True)
class Prefills:
    """The prefills that a pool may do."""

    prompt: Prefill
    """The first one: the document and, with growth, the first question."""
    document: Prefill
    question: Prefill
    """A later question after a cache that was kept."""
    again: Prefill
    """A later question after a cache that was dropped: everything."""


def prefills_of(work: Workload, pool: Pool, chunk: Ints) -> Prefills:
    """Price every prefill in chunks of these sizes ``(candidate,)``; 0 asks for one piece."""
    left = pool.left
    first, inverse = _distinct(
        (chunk, left.prefill_linear, left.prefill_attention, left.prefix_share, left.element_share, left.prefill_time)
    )
    pool, chunk = pool.take(first), chunk[first]
    known: dict[tuple[float, float], Prefill] = {}

    def prefill(start: float, end: float) -> Prefill:
        # Without growth several of these are the same.
        if (start, end) not in known:
            known[start, end] = _prefill(pool, chunk, start, end)
        return known[start, end]

    start = float(work.shared_prefix_tokens)
    document, prompt = prefill(start, float(work.ctx_tokens)), prefill(start, float(work.prompt_tokens))
    zero = np.zeros(len(first))
    question = again = Prefill(zero, zero, zero, zero)
    if work.rounds > 1:
        asked, grown = float(work.question_tokens), float(work.question_tokens if work.growth else 0)
        if asked > 0:
            mean = prefill(work.warm_tokens, work.warm_tokens + asked)
            last = prefill(work.last_warm_tokens, work.last_warm_tokens + asked)
            question = Prefill(mean.busy_s, mean.latency_s, mean.steps, last.largest_s)
        # The mean of rounds 2 and R is no less than that over the rounds, as prefill is convex.
        early = prefill(start, 2.0 * work.warm_tokens - work.last_warm_tokens + grown)
        last = prefill(start, work.last_warm_tokens + grown)
        again = Prefill((early.busy_s + last.busy_s) / 2.0, last.latency_s, last.steps, last.largest_s)
    parts = (prompt, document, question, again)
    return Prefills(*(Prefill(*(getattr(part, f.name)[inverse] for f in fields(Prefill))) for part in parts))


def _prefill(pool: Pool, chunk: Ints, start: float, end: float) -> Prefill:
    tokens = max(end - start, 1.0)
    size = np.where(chunk <= 0, tokens, np.minimum(chunk, tokens))
    busy, latency = pool.prefill_s(start, end, size)
    return Prefill(busy, latency, pool.slots(end - start, size), pool.chunk_s(size, np.maximum(end - size, start)))


def _distinct(columns: Sequence[NDArray[Any]]) -> tuple[Ints, Ints]:
    """Rows that differ in some column, and for every row which of them it equals."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        if (column != column[0]).any():
            values, codes = np.unique(column, return_inverse=True)
            _, key = np.unique(key * len(values) + codes, return_inverse=True)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first, inverse


def phases_of(
    setting: Setting, pool: Pool, candidates: Candidates, sequences: Floats, prefills: Prefills, has_prefill_pool: bool
) -> Phases:
    """Times of a session's parts on the replica that decodes it."""
    work = setting.workload
    zero = np.zeros(len(candidates))
    prompt = Prefill(zero, zero, zero, zero) if has_prefill_pool else prefills.prompt
    recomputes = candidates.policy == RECOMPUTE
    later = Prefill(
        *(
            np.where(recomputes, getattr(prefills.again, f.name), getattr(prefills.question, f.name))
            for f in fields(Prefill)
        )
    )
    into, out = link_bytes_per_s(setting, candidates.tier)
    swaps = (candidates.policy == SWAP) & (work.rounds > 1)
    return Phases(
        prefill_busy_s=prompt.busy_s,
        prefill_latency_s=prompt.latency_s,
        prefill_steps=prompt.steps,
        largest_chunk_s=np.maximum(prompt.largest_s, later.largest_s),
        step_s=pool.step_s(sequences, work.decode_tokens),
        later_prefill_busy_s=later.busy_s,
        later_prefill_latency_s=later.latency_s,
        later_prefill_steps=later.steps,
        swap_in_s=np.where(swaps, pool.warm_bytes / into, 0.0),
        swap_out_s=np.where(swaps, pool.warm_bytes / out, 0.0),
        swap_out_total_s=np.where(swaps, pool.last_warm_bytes / out, 0.0),
        switch_s=pool.whole_warm_bytes / into + pool.whole_warm_bytes / out,
    )


def prefill_pool_of(
    setting: Setting, pool: Pool, prefill: Pool, candidates: Candidates, prompt: Prefill
) -> PrefillPool:
    """What a prefill pool and the link to it give each replica of the decode pool."""
    rho = setting.efficiency.gpu_utilisation
    ratio = candidates.prefill_replicas / candidates.replicas
    gpus = candidates.replicas * pool.gpus + candidates.prefill_replicas * prefill.gpus
    per_gpu = between_pools_bytes_per_s(setting, gpus)
    # Every decode GPU receives its part, replicated heads included.
    session = pool.prompt_bytes * pool.gpus
    return PrefillPool(
        sessions_per_s=rho * ratio / prompt.busy_s,
        latency_s=prompt.latency_s,
        transfer_s=session / (per_gpu * min(pool.gpus, prefill.gpus)),
        link_sessions_per_s=rho * per_gpu * np.minimum(pool.gpus, prefill.gpus * ratio) / session,
    )


def free_prefill(candidates: int) -> PrefillPool:
    """A prefill pool that takes no time: what a decode pool reaches at best."""
    never, nothing = np.full(candidates, np.inf), np.zeros(candidates)
    return PrefillPool(sessions_per_s=never, latency_s=nothing, transfer_s=nothing, link_sessions_per_s=never)
