"""What somebody already runs, priced: what it gives at the best load that it can carry, and whether it fits.

A running engine doesn't decide how many sequences decode at a time; it only caps them. It is therefore
priced at the number, up to its cap, that serves most within the limits of the request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from planner.cost.allocation import KvCapacity, NotCoveredError, vllm_capacity
from planner.importing.defaults import Scheduling
from planner.plan import HbmBytes
from planner.price import Evaluation, evaluate
from planner.problem import Problem
from planner.service import Batch, OffloadChoice, Parallel, Service

_EACH_UP_TO = 16
"""Every number of decoding sequences is tried up to here, then steps of an eighth."""


@dataclass(frozen=True, slots=True)
class Priced:
    """A decision at its best load."""

    evaluation: Evaluation
    sequences: int
    """Sequences that decode at a time at that load, per replica."""
    free_bytes: float
    """HBM of one GPU that the server leaves to KV [bytes]."""
    session_bytes: float
    """KV of one session on one GPU [bytes]."""
    needed: HbmBytes
    """HBM per GPU with one session, against what the server may take."""
    fits: bool
    """Whether a session fits beside the weights."""
    capacity: KvCapacity | None
    """What vLLM itself says at start; None where its allocation of this model isn't known."""

    @property
    def missing_bytes(self) -> float:
        """HBM per GPU that one session lacks; negative: what is left [bytes]."""
        part = self.needed
        return part.weights + part.kv + part.workspace + part.overhead - part.limit

    @property
    def interactions_per_hour(self) -> float:
        """Throughput of the cluster."""
        return self.evaluation.metrics.interactions_per_hour if self.fits else 0.0


def price_running(problem: Problem, decision: Service, limits: Scheduling, longest_tokens: int) -> Priced:
    """Price a decision under a server's own limits.

    Parameters
    ----------
    problem
        The question.
    decision
        What runs, complete.
    limits
        Sequences, tokens and memory that the server may take.
    longest_tokens
        ``--max-model-len`` [tokens].

    Raises
    ------
    InputError
        If the decision makes no sense for the model and these GPUs.
    """
    one = evaluate(problem, _with(decision, 1, limits, resident=1, probe=True), as_written=True)
    two = evaluate(problem, _with(decision, 1, limits, resident=2, probe=True), as_written=True)
    hbm = one.metrics.hbm_bytes_per_gpu
    each = two.metrics.hbm_bytes_per_gpu.kv - hbm.kv
    limit = limits.memory_share * problem.cluster.hardware.hbm
    free = limit - hbm.weights - hbm.workspace - hbm.overhead
    if limits.kv_bytes_per_gpu is not None:
        free = min(float(limits.kv_bytes_per_gpu), problem.cluster.hardware.hbm - hbm.weights)
        limit = free + hbm.weights + hbm.workspace + hbm.overhead
    sessions = _sessions(problem, decision, limits, free, free - (hbm.kv - each), each)
    fitting = min(sessions, one.metrics.concurrency // _promised(decision, one))
    best = _best_load(problem, decision, limits, fitting) if fitting >= 1 else None
    if best is not None:
        held = best.metrics.model_copy(update={"concurrency": fitting * _promised(decision, one)})
        best = replace(best, metrics=held)
    return Priced(
        evaluation=best or evaluate(problem, _with(decision, 1, limits, resident=1)),
        sequences=_batch(best.service).decode_sequences if best else 1,
        free_bytes=free,
        session_bytes=each,
        needed=hbm.model_copy(update={"limit": limit}),
        fits=best is not None,
        capacity=_capacity(problem, decision, limits, int(free), longest_tokens),
    )


def _sessions(
    problem: Problem, decision: Service, limits: Scheduling, free: float, unshared: float, each: float
) -> int:
    """Sessions that the free memory holds at their full length: by vLLM's own blocks where they are known."""
    capacity = _capacity(problem, decision, limits, int(free), problem.workload.end_tokens)
    if capacity is not None and problem.workload.shared_prefix_tokens == 0:
        return max(0, (capacity.blocks - 1) // capacity.blocks_per_request)
    if each <= 0:
        return 10**6 if unshared >= 0 else 0
    return max(0, math.floor(unshared / each * (1 + 1e-9)))


def _best_load(problem: Problem, decision: Service, limits: Scheduling, sessions: int) -> Evaluation | None:
    cap = max(1, min(limits.sequences - 1, max(1, sessions - 1)))
    # With one sequence, sessions take turns whatever else the memory holds.
    resident = 1 if limits.sequences == 1 else sessions
    tried = [evaluate(problem, _with(decision, b, limits, resident=resident)) for b in _ladder(cap)]
    fitting = [found for found in tried if found.bounded_by != "memory"]
    return max(
        fitting,
        # A server that has room for several sessions doesn't serve one at a time to keep a limit: it breaks it.
        key=lambda e: (
            not e.violated and e.bounded_by != "serial",
            e.metrics.interactions_per_hour,
            -_batch(e.service).decode_sequences,
        ),
        default=None,
    )


def _ladder(cap: int) -> list[int]:
    steps, value = set(range(1, min(cap, _EACH_UP_TO) + 1)), _EACH_UP_TO
    while value < cap:
        steps.add(value)
        value += max(1, value // 8)
    return sorted({*steps, cap})


def _with(
    decision: Service, sequences: int, limits: Scheduling, *, resident: int | None, probe: bool = False
) -> Service:
    """The decision with so many sequences decoding, and the chunk that the batched tokens then leave.

    A probe asks for bytes only: without sessions that wait between rounds, so that several may be resident.
    """
    batch = _batch(decision)
    chunk = batch.prefill_chunk_tokens
    if chunk is not None and decision.pools is None:
        chunk = max(1, limits.batched_tokens - sequences)
    updated = batch.model_copy(
        update={"decode_sequences": sequences, "resident_sessions": resident, "prefill_chunk_tokens": chunk}
    )
    changes: dict[str, Any] = {"offload": OffloadChoice(policy="recompute")} if probe else {}
    if decision.pools is None:
        return decision.model_copy(update={**changes, "batch": updated})
    decode = decision.pools.decode.model_copy(update={"batch": updated})
    return decision.model_copy(update={**changes, "pools": decision.pools.model_copy(update={"decode": decode})})


def _batch(decision: Service) -> Batch:
    return decision.pools.decode.batch if decision.pools else decision.batch


def _parallel(decision: Service) -> Parallel:
    return decision.pools.decode.parallel if decision.pools else decision.parallel


def _promised(decision: Service, priced: Evaluation) -> int:
    """Replicas whose sessions are counted: all but those in reserve."""
    return _parallel(decision).replicas - priced.metrics.groups[-1].spare_replicas


def _capacity(
    problem: Problem, decision: Service, limits: Scheduling, free: int, longest_tokens: int
) -> KvCapacity | None:
    """What vLLM reports at start for this KV memory; None where its allocation isn't known, or nothing is free."""
    from catalog.schema import Engine

    parallel = _parallel(decision)
    hidden = decision.compression.hidden
    engine = problem.catalog.get(Engine, "vllm")
    wanted = hidden.point if hidden.technique != "none" else None
    kv_format = next((f for f in engine.kv_formats if wanted is not None and f.technique_point == wanted), None)
    try:
        return vllm_capacity(
            problem.architecture,
            available_bytes=max(free, 0),
            max_model_len=longest_tokens,
            max_num_batched_tokens=limits.batched_tokens,
            kv_format=kv_format,
            tp=parallel.tp or 1,
            pp=parallel.pp,
            dcp=parallel.dcp,
            prefix_caching=decision.offload.policy != "recompute",
        )
    except NotCoveredError:
        return None
