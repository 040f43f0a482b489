"""The parts of a session on a pool: first prompt, decode step, later questions, swaps, transfers."""

from __future__ import annotations

import numpy as np

from planner.cost.candidates import Candidates, Floats, Ints, Setting
from planner.cost.links import link_bytes_per_s, pool_link_bytes_per_s
from planner.cost.pool import Pool
from planner.cost.session import RECOMPUTE, SWAP, Phases, PrefillPool
from planner.cost.workload import Workload


def phases_of(
    setting: Setting, pool: Pool, candidates: Candidates, sequences: Floats, has_prefill_pool: bool
) -> Phases:
    """Times of a session's parts on the replica that decodes it."""
    work = setting.workload
    start, prompt = float(work.shared_prefix_tokens), float(work.prompt_tokens)
    busy = latency = steps = largest = np.zeros(len(candidates))
    if not has_prefill_pool:
        size = chunk_sizes(candidates.prefill_chunk, prompt - start)
        busy, latency = pool.prefill_s(start, prompt, size)
        steps = pool.slots(prompt - start, size)
        largest = pool.chunk_s(size, np.maximum(prompt - size, start))
    later_busy, later_latency, later_steps, later_largest = _later_prefill(work, pool, candidates)
    into, out = link_bytes_per_s(setting, candidates.tier)
    swaps = (candidates.policy == SWAP) & (work.rounds > 1)
    return Phases(
        prefill_busy_s=busy,
        prefill_latency_s=latency,
        prefill_steps=steps,
        largest_chunk_s=np.maximum(largest, later_largest),
        step_s=pool.step_s(sequences, work.decode_tokens),
        later_prefill_busy_s=later_busy,
        later_prefill_latency_s=later_latency,
        later_prefill_steps=later_steps,
        swap_in_s=np.where(swaps, pool.warm_bytes / into, 0.0),
        swap_out_s=np.where(swaps, pool.warm_bytes / out, 0.0),
        swap_out_total_s=np.where(swaps, pool.last_warm_bytes / out, 0.0),
        switch_s=pool.whole_warm_bytes / into + pool.whole_warm_bytes / out,
    )


def chunk_sizes(chunk: Ints, tokens: float) -> Floats:
    """Tokens per chunk of a prefill of ``tokens`` tokens; 0 asks for one piece ``(candidate,)`` [tokens]."""
    whole = max(tokens, 1.0)
    return np.where(chunk <= 0, whole, np.minimum(chunk, whole))


def _later_prefill(work: Workload, pool: Pool, candidates: Candidates) -> tuple[Floats, Floats, Floats, Floats]:
    """GPU time, latency, decode steps given way to, and largest chunk of a later round's prefill.

    A later round prefills its question after the cache; where the cache was dropped, everything.
    """
    zero = np.zeros(len(candidates))
    if work.rounds == 1:
        return zero, zero, zero, zero
    asked = float(work.question_tokens)
    question = (zero, zero, zero, zero)
    if asked > 0:
        size = chunk_sizes(candidates.prefill_chunk, asked)
        busy, latency = pool.prefill_s(work.warm_tokens, work.warm_tokens + asked, size)
        largest = pool.chunk_s(size, work.last_warm_tokens + asked - size)
        question = (busy, latency, pool.slots(asked, size), largest)
    recomputes = candidates.policy == RECOMPUTE
    if not recomputes.any():
        return question
    again = _recomputed(work, pool, candidates)
    busy, latency, steps, largest = (np.where(recomputes, a, q) for a, q in zip(again, question, strict=True))
    return busy, latency, steps, largest


def _recomputed(work: Workload, pool: Pool, candidates: Candidates) -> tuple[Floats, Floats, Floats, Floats]:
    """As `_later_prefill`, of a cache that was dropped: the mean of rounds 2 and R, and the longest of them.

    Prefill is convex in the length, so the mean of the two ends is no less than that over the rounds.
    """
    start = float(work.shared_prefix_tokens)
    grown = float(work.question_tokens if work.growth else 0)
    first = 2.0 * work.warm_tokens - work.last_warm_tokens + grown
    last = work.last_warm_tokens + grown
    size = chunk_sizes(candidates.prefill_chunk, last - start)
    early_busy, _ = pool.prefill_s(start, first, size)
    busy, latency = pool.prefill_s(start, last, size)
    largest = pool.chunk_s(size, np.maximum(last - size, start))
    return (early_busy + busy) / 2.0, latency, pool.slots(last - start, size), largest


def document_s(work: Workload, pool: Pool, chunk: Ints) -> Floats:
    """Time of the document alone, without a question, on an idle replica ``(candidate,)`` [s]."""
    start, ctx = float(work.shared_prefix_tokens), float(work.ctx_tokens)
    return pool.prefill_s(start, ctx, chunk_sizes(chunk, ctx - start))[1]


def prefill_pool_of(
    setting: Setting, pool: Pool, prefill: Pool, candidates: Candidates, gpu_utilisation: float
) -> PrefillPool:
    """What a prefill pool and the link to it give each replica of the decode pool."""
    work = setting.workload
    start, prompt = float(work.shared_prefix_tokens), float(work.prompt_tokens)
    busy, latency = prefill.prefill_s(start, prompt, chunk_sizes(candidates.prefill_pool_chunk, prompt - start))
    ratio = candidates.prefill_replicas / candidates.replicas
    per_gpu = pool_link_bytes_per_s(setting, candidates, pool.gpus, prefill.gpus)
    # Every decode GPU receives its part, replicated heads included.
    session = pool.prompt_bytes * pool.gpus
    return PrefillPool(
        sessions_per_s=gpu_utilisation * ratio / busy,
        latency_s=latency,
        transfer_s=session / (per_gpu * min(pool.gpus, prefill.gpus)),
        link_sessions_per_s=gpu_utilisation * per_gpu * np.minimum(pool.gpus, prefill.gpus * ratio) / session,
    )
