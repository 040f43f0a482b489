"""The parts of a session on a pool: first prompt, decode step, later questions, swaps, transfers.

A prefill depends on a candidate only through its chunk and a few factors of its compression, so it is
computed once for each of these that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.cost.candidates import Candidates, Floats, Ints, Setting
from planner.cost.links import between_pools_bytes_per_s, link_bytes_per_s
from planner.cost.pool import Pool
from planner.cost.session import RECOMPUTE, SWAP, Handover, Phases
from planner.cost.workload import Workload

MOST_WORKLOADS = 4
"""Workloads whose prefills are remembered: a request, its parity at 4K, what explanations ask."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prefill:
    """One prefill, ``(candidate,)`` each."""

    busy_s: Floats
    """GPU time, pipeline full."""
    latency_s: Floats
    steps: Floats
    """Decode steps that its chunks give way to."""
    largest_s: Floats
    """Its longest chunk through the whole pipeline."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Prefills:
    """The prefills that a pool may do."""

    prompt: Prefill
    """The first one: the document and, with growth, the first question."""
    document: Prefill
    question: Prefill
    """A later question after a cache that was kept; with the answer before it where another pool gave that."""
    again: Prefill
    """A later question after a cache that was dropped: everything."""


def prefills_of(work: Workload, pool: Pool, chunk: Ints, *, feeds: bool = False) -> Prefills:
    """Price every prefill in chunks of these sizes ``(candidate,)``; 0 asks for one piece.

    Parameters
    ----------
    feeds
        Whether another pool decodes: a later question then comes with the answer before it.
    """
    left = pool.left
    columns = (
        *(chunk, left.prefill_linear, left.prefill_attention),
        *(left.prefix_share, left.element_share, left.prefill_time),
    )
    first, inverse = _distinct(columns)
    if pool.times is None:
        found = _all_prefills(work, pool.take(first), chunk[first], feeds)
    else:
        keys = list(zip(*(column[first].tolist() for column in columns), strict=True))
        if (work, feeds) not in pool.times.known and len(pool.times.known) >= MOST_WORKLOADS:
            pool.times.known.clear()  # A sweep over workloads would keep them all.
        known = pool.times.known.setdefault((work, feeds), {})
        missing = [row for row, key in enumerate(keys) if key not in known]
        if missing:
            rows = first[missing]
            answers = _all_prefills(work, pool.take(rows), chunk[rows], feeds)
            known.update(zip((keys[row] for row in missing), answers.T, strict=True))
        found = np.stack([known[key] for key in keys], axis=-1)
    count = len(fields(Prefill))
    return Prefills(*(Prefill(*found[i : i + count, inverse]) for i in range(0, len(found), count)))


def _all_prefills(work: Workload, pool: Pool, chunk: Ints, feeds: bool) -> Floats:
    """The fields of `Prefills`, one after the other, ``(field, candidate)``."""
    start, asked = float(work.shared_prefix_tokens), float(work.question_tokens)
    grown = asked if work.growth else 0.0
    answered = float(work.output_tokens) if feeds else 0.0
    before = answered if work.growth else 0.0
    spans = [(start, float(work.ctx_tokens)), (start, float(work.prompt_tokens))]
    if work.rounds > 1:
        lengths = (work.warm_tokens - before, work.last_warm_tokens - before)
        spans += [(length, length + answered + asked) for length in lengths]
        spans += [
            (start, 2.0 * work.warm_tokens - work.last_warm_tokens + grown),
            (start, work.last_warm_tokens + grown),
        ]
    found = _prefill(pool, chunk, spans)
    document, prompt = found[:2]
    zero = np.zeros(len(chunk))
    question = again = Prefill(zero, zero, zero, zero)
    if work.rounds > 1:
        mean, last, early, late = found[2:]
        if answered + asked > 0:
            question = Prefill(mean.busy_s, mean.latency_s, mean.steps, last.largest_s)
        # The mean of rounds 2 and R is no less than that over the rounds, as prefill is convex.
        again = Prefill((early.busy_s + late.busy_s) / 2.0, late.latency_s, late.steps, late.largest_s)
    parts = (prompt, document, question, again)
    return np.stack([getattr(part, f.name) for part in parts for f in fields(Prefill)])


def _prefill(pool: Pool, chunk: Ints, spans: Sequence[tuple[float, float]]) -> list[Prefill]:
    """Prefills of several spans of tokens, priced together: without growth several of them are the same."""
    distinct = list(dict.fromkeys(spans))
    rows = len(chunk)
    start, end = (np.repeat(np.array(side), rows) for side in zip(*distinct, strict=True))
    pool = pool.take(np.tile(np.arange(rows), len(distinct)))
    chunk = np.tile(chunk, len(distinct))
    tokens = np.maximum(end - start, 1.0)
    size = np.where(chunk <= 0, tokens, np.minimum(chunk, tokens))
    busy, latency = pool.prefill_s(start, end, size)
    columns = (busy, latency, pool.slots(end - start, size), pool.chunk_s(size, np.maximum(end - size, start)))
    each = [[column[i * rows : (i + 1) * rows] for column in columns] for i in range(len(distinct))]
    return [Prefill(*each[distinct.index(span)]) for span in spans]


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
    setting: Setting, pool: Pool, holder: Pool, candidates: Candidates, sequences: Floats, prefills: Prefills
) -> Phases:
    """Times of a session's parts.

    Parameters
    ----------
    pool
        Decodes.
    holder
        Prefills, and keeps caches between rounds: the same pool, or the prefill pool.
    sequences
        That decode together.
    prefills
        Of the holder.
    """
    work = setting.workload
    prompt = prefills.prompt
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
        swap_in_s=np.where(swaps, holder.warm_bytes / into, 0.0),
        swap_out_s=np.where(swaps, holder.warm_bytes / out, 0.0),
        swap_out_total_s=np.where(swaps, holder.last_warm_bytes / out, 0.0),
        switch_s=holder.whole_warm_bytes / into + holder.whole_warm_bytes / out,
    )


def handover_of(setting: Setting, pool: Pool, prefill: Pool, candidates: Candidates) -> Handover:
    """What a prefill pool and the link to it give each replica of the decode pool."""
    work = setting.workload
    ratio = candidates.prefill_replicas / candidates.replicas
    gpus = candidates.replicas * pool.gpus + candidates.prefill_replicas * prefill.gpus + candidates.reserve_gpus
    per_gpu = between_pools_bytes_per_s(setting, gpus)
    # Every decode GPU receives its part, replicated heads included.
    first, later = pool.prompt_bytes * pool.gpus, pool.later_prompt_bytes * pool.gpus
    at_once = per_gpu * min(pool.gpus, prefill.gpus)
    share = setting.efficiency.gpu_utilisation * per_gpu * np.minimum(pool.gpus, prefill.gpus * ratio)
    return Handover(
        replicas=ratio,
        resident=prefill.fit,
        transfer_s=first / at_once,
        later_transfer_s=later / at_once,
        link_sessions_per_s=share / (first + (work.rounds - 1) * later),
    )


def no_handover(candidates: int) -> Handover:
    """Prefill replicas without number, behind a link that takes no time: what a decode pool reaches at best."""
    never, nothing = np.full(candidates, np.inf), np.zeros(candidates)
    return Handover(
        replicas=never, resident=never, transfer_s=nothing, later_transfer_s=nothing, link_sessions_per_s=never
    )


def no_decoding(prefill: Pool) -> Handover:
    """One prefill replica whose caches are gone at once: what it reaches at best."""
    nothing = np.zeros(len(prefill.fit))
    return Handover(
        replicas=nothing + 1.0,
        resident=prefill.fit,
        transfer_s=nothing,
        later_transfer_s=nothing,
        link_sessions_per_s=nothing + np.inf,
    )


def no_prefill(phases: Phases) -> Phases:
    """The same without prefills and copies: what a decode pool has to do itself."""
    zero = np.zeros_like(phases.step_s)
    return replace(phases, **{f.name: zero for f in fields(Phases) if f.name != "step_s"})
