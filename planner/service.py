"""One service: one kind of replica, or a prefill pool with the decode pool that it feeds.

`Service` describes what is priced at once. It is also what a user may write by hand for
``plan evaluate``; what it leaves out has the defaults below. A `planner.decision.Decision` is made of
services, which it tells as groups of replicas.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DIMENSIONS = ("layer", "head", "token", "hidden", "attention")
"""The compression dimensions of a decision, in the order of every document."""

UNCOMPRESSED = {
    "layer": "layer_none",
    "head": "head_none",
    "token": "token_none",
    "hidden": "kv_bf16",
    "attention": "attn_dense",
}
"""Catalog point that means 'no technique' in each dimension."""

Count = Annotated[int, Field(ge=1, le=10**9)]


class Part(BaseModel):
    """Part of a document: nothing unknown in it, and nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Choice(Part):
    """A technique and its strength; ``none`` is no technique."""

    technique: str = "none"
    point: str | None = None
    """Catalog id of the point, where technique and strength don't name one; plans always give it."""
    strength: float | None = None


class Compression(Part):
    """One choice per dimension of the KV cache, and one for attention's reads and prefill."""

    layer: Choice = Choice()
    head: Choice = Choice()
    token: Choice = Choice()
    hidden: Choice = Choice()
    attention: Choice = Choice()


class Division(Part):
    """How a replica's model is divided over GPUs. ``tp`` None: over all GPUs of a server."""

    tp: Count | None = None
    pp: Count = 1
    dcp: Count = 1
    pcp: Count = 1
    ep: Count = 1


class Parallel(Division):
    """How a model is divided, and how many replicas there are."""

    replicas: Count = 1


class Batch(Part):
    """What a replica works on at a time. None: as many sessions as fit; the prompt in one piece."""

    decode_sequences: Count = 1
    resident_sessions: Count | None = None
    prefill_chunk_tokens: Count | None = None
    prefill_throttled: bool = False
    """Long prefills yield to short ones (vLLM: long-prefill-token-threshold below the batched tokens)."""


class OffloadChoice(Part):
    """Where the cache is between two rounds: in HBM (none), in a lower tier (swap), nowhere (recompute)."""

    policy: Literal["none", "swap", "recompute"] = "none"
    tier: Literal["ddr", "nvme"] | None = None


class Pool(Part):
    """One pool of a disaggregated deployment."""

    parallel: Parallel = Parallel()
    batch: Batch = Batch()


class Pools(Part):
    """Prefill and decode pools of a disaggregated deployment."""

    prefill: Pool
    decode: Pool


class Service(Part):
    """Replicas of one kind, or a prefill pool with the decode pool that it feeds.

    What is left out means bf16 weights, no compression, tensor parallelism over all GPUs of a node,
    one decoding sequence, unchunked prefill and no offload.
    """

    engine: str = "any"
    weights: str = "bf16"
    compression: Compression = Compression()
    parallel: Parallel = Parallel()
    batch: Batch = Batch()
    serving: Literal["aggregated", "disaggregated"] = "aggregated"
    pools: Pools | None = None
    offload: OffloadChoice = OffloadChoice()
    users_per_replica: Count | None = None
    """Whole users that each replica that decodes promises to serve; None: no number is promised per replica."""
