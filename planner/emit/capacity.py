"""KV memory to reserve, so that an engine holds the sessions that the plan counted, and what else is free.

The plan's minimum would do if an engine dropped ended sessions first. It drops what was used longest ago: often a
session whose user is still thinking. Free memory beyond the minimum keeps both.

vLLM allocates whole blocks and keeps one for itself, so a plan's bytes would hold a session too few.
The blocks are asked of `planner.cost.allocation`, which equals vLLM's own planner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.cost.allocation import KvCapacity, NotCoveredError, vllm_capacity
from planner.emit.deployment import Deployment, PoolPlan

LARGEST_LATENT_BLOCK = 128
"""Largest block of the MLA backends from Hopper on: 64 of FlashMLA, 128 of CUTLASS MLA (vLLM 0.33) [tokens]."""
FREE_SHARE = 0.75
"""Share of the memory that the plan leaves free which goes to KV as well; the rest is for what the workspace's and the
engine's estimates miss. A judgement, not a measurement: nothing here has run on a GPU."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """KV memory of one rank, and what vLLM makes of it."""

    bytes_per_gpu: int
    planned_bytes: int
    """Of it, what the plan's sessions need [bytes]."""
    capacity: KvCapacity | None
    """None where vLLM's allocation of this model isn't known exactly."""
    note: str | None = None
    exact: bool = True
    """False: vLLM may use smaller blocks than the reservation was rounded to, and hold a little more."""


def reserve(deployment: Deployment, pool: PoolPlan, batched_tokens: int) -> Reservation | None:
    """Return the KV memory for the pool's resident sessions; None where the plan counts none.

    Parameters
    ----------
    deployment
        The plan.
    pool
        Its pool.
    batched_tokens
        ``--max-num-batched-tokens`` [tokens].
    """
    if pool.resident_sessions is None:
        return None
    hbm = deployment.metrics.hbm_bytes_per_gpu
    free = int(hbm.limit - hbm.weights - hbm.workspace - hbm.overhead)
    kv_format = deployment.kv_format if deployment.technology("hidden") else None

    block, exact = _block_tokens(deployment)

    def capacity(available: int, length: int) -> KvCapacity:
        return vllm_capacity(
            deployment.architecture,
            available_bytes=available,
            max_model_len=length,
            max_num_batched_tokens=batched_tokens,
            kv_format=kv_format,
            tp=pool.tp,
            pp=pool.pp,
            dcp=pool.dcp,
            block_tokens=block,
            prefix_caching=deployment.decision.offload.policy != "recompute",
        )

    try:
        unit = capacity(0, deployment.max_model_len)
    except NotCoveredError as error:
        note = f"vLLM's allocation of this model isn't known exactly ({error}); all free KV memory is given to it"
        return Reservation(max(free, int(hbm.kv)), int(hbm.kv), None, note)
    shared = _shared_blocks(deployment, unit)
    own = pool.resident_sessions * (unit.blocks_per_request - shared)
    longest = capacity(0, deployment.window_tokens).blocks_per_request
    wanted = (max(own + shared, longest) + 1) * unit.bytes_per_block
    # Rounding to blocks may exceed the plan's bytes by a block per session and group, not by more.
    rounding = (pool.resident_sessions * len(unit.groups) + 1) * unit.bytes_per_block
    if wanted <= max(free, int(hbm.kv)) + rounding:
        given = wanted + _beyond(deployment, wanted, free) // unit.bytes_per_block * unit.bytes_per_block
        return Reservation(given, wanted, capacity(given, deployment.window_tokens), exact=exact)
    held = capacity(max(free, int(hbm.kv)), deployment.window_tokens)
    note = (
        f"the plan counts {pool.resident_sessions} sessions in HBM; vLLM, which pads and groups this model's layers, "
        f"holds {held.concurrency:.2f} of the full length in the same memory"
    )
    return Reservation(max(free, int(hbm.kv)), int(hbm.kv), held, note, exact)


def _beyond(deployment: Deployment, planned: int, free: int) -> int:
    """Return what KV gets beyond the planned sessions, nothing where no cache outlives a request [bytes]."""
    return int(FREE_SHARE * max(0, free - planned)) if deployment.reuses_prefixes else 0


def kv_tokens(deployment: Deployment, pool: PoolPlan) -> int | None:
    """Return the tokens that a replica holds, for engines that are told tokens; None where the plan counts none.

    Those of the plan's sessions at their full length, and what fits the free memory beyond. Where layers keep less
    than the whole session, tokens aren't proportional to bytes, and the plan's are taken [tokens].
    """
    planned = deployment.kv_tokens(pool)
    if planned is None or deployment.architecture.attention_kinds & {"sliding", "chunked", "linear"}:
        return planned
    hbm = deployment.metrics.hbm_bytes_per_gpu
    free = int(hbm.limit - hbm.weights - hbm.workspace - hbm.overhead)
    return planned + int(planned * _beyond(deployment, int(hbm.kv), free) / hbm.kv) if hbm.kv else planned


def with_running(deployment: Deployment) -> Deployment:
    """Return a deployment that keeps the window of the server before, where one such request fits."""
    if deployment.running is None:
        return deployment
    kept = replace(deployment, kept_window_tokens=deployment.running.window_tokens)
    for pool in kept.pools:
        unchunked = pool.chunk_tokens is None and pool.role != "decode"  # vLLM then batches no less than the window
        held = reserve(kept, pool, kept.batched_tokens(pool))
        known = None if held is None else held.capacity
        if unchunked or (held is not None and (known is None or not known.starts)):
            return deployment
    return kept


def _shared_blocks(deployment: Deployment, unit: KvCapacity) -> int:
    """Blocks of the prefix that all users share: stored once where every layer keeps the whole session."""
    if deployment.architecture.attention_kinds & {"sliding", "chunked", "linear"}:
        return 0
    return deployment.request.shared_prefix_tokens // unit.block_tokens * len(unit.groups)


def _block_tokens(deployment: Deployment) -> tuple[int, bool]:
    """Return the block to round to, and whether it is vLLM's own; latent caches' backends each choose one [tokens]."""
    own = deployment.engine.kv_block_tokens
    if "mla" not in deployment.architecture.attention_kinds or deployment.hardware.compute_capability.startswith("8."):
        return own, True
    return LARGEST_LATENT_BLOCK, False
