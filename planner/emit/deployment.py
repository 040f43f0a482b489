"""A plan in the words of a deployment: everything that is looked up, once, before anything is written.

Nothing is priced or chosen here. Each value is the plan's own, or one that the plan's contract defines
from it (the longest session, batched tokens = chunk + decodes), or a fact of the catalog.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from catalog.architecture import Architecture
from catalog.ready import Ready
from catalog.schema import Engine, Hardware, KvFormat, Point, Technique, WeightFormat
from planner.cost.workload import Workload
from planner.emit.running import Running
from planner.plan import Document, Metrics
from planner.problem import Problem
from planner.request import Cluster, Request
from planner.service import Service
from planner.space import Run, merged

Role = Literal["serve", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Technology:
    """A technique of the plan at its strength."""

    dimension: str
    technique: Technique
    point: Point


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool of equal engine instances: all of them, or the prefill or decode part."""

    role: Role
    tp: int
    pp: int
    dcp: int
    pcp: int
    ep: int
    replicas: int
    decode_sequences: int
    resident_sessions: int | None
    """Sessions in HBM of one replica; None: as many as fit."""
    chunk_tokens: int | None
    """None: the whole prompt in one piece."""
    throttled: bool
    kind: str = ""
    """Group of the plan, where several kinds of replicas stand side by side."""
    places: int = 1
    """Of a kind: sessions that the router counts for one replica, in proportion to the other kinds'."""
    servers: tuple[int, ...] = ()
    """Of a kind: server of each instance, from 0."""
    spare_replicas: int = 0
    """Of the replicas in reserve: the plan's users and sessions are those of the others."""

    @property
    def name(self) -> str:
        """Name of the pool's files, services and workloads: its role, and its kind where there are several."""
        return f"{self.role}-{self.kind}" if self.kind else self.role

    @property
    def data_parallel(self) -> int:
        """Replicas that share their experts and therefore run as one instance."""
        return max(1, self.ep // self.tp)

    @property
    def instances(self) -> int:
        """Engine instances, each of `data_parallel` replicas."""
        return self.replicas // self.data_parallel

    @property
    def spare_instances(self) -> int:
        """Instances in reserve."""
        return self.spare_replicas // self.data_parallel

    @property
    def instance_gpus(self) -> int:
        """GPUs of one instance."""
        return self.tp * self.pp * self.pcp * self.data_parallel

    @property
    def sequences(self) -> int:
        """Sequences that an engine works on at a time: those that decode, and one in prefill; or one session alone."""
        return 1 if self.resident_sessions == 1 else self.decode_sequences + 1


@dataclass(frozen=True, slots=True)
class Deployment:
    """A plan with its engine, GPUs, model and session looked up; of several kinds, the cluster's metrics and all pools.

    What differs between kinds (engine, weights, techniques) is asked of `services` then, by `of`.
    """

    document: Document
    decision: Service
    metrics: Metrics
    request: Request
    problem: Problem
    engine: Engine
    technologies: tuple[Technology, ...]
    """Techniques other than 'none', in the order of `planner.plan.DIMENSIONS`."""
    weights: Technology | None
    """None: as the checkpoint has them (bf16, or quantised by its makers)."""
    run: Run
    """How the engine runs the model on this GPU."""
    kv_format: KvFormat | None
    """None: the engine's own precision."""
    weight_format: WeightFormat | None
    pools: tuple[PoolPlan, ...]
    model_source: str
    """Hugging Face id or local directory."""
    config: dict[str, Any]
    """The model's ``config.json``."""
    checkpoint: str | None = None
    """An existing quantised checkpoint that the operator named."""
    offload_backend: Literal["native", "lmcache"] = "native"
    is_local: bool = False
    """Whether the model is a directory of one machine, and no checkpoint was named for others."""
    ready: Ready | None = None
    """The published checkpoint of the plan's weights, where no other was named."""
    running: Running | None = None
    """The server that this one takes the place of."""
    kept_window_tokens: int | None = None
    """Window of that server, where a request of that length fits [tokens]."""
    notes: tuple[str, ...] = field(default=())
    services: tuple[Deployment, ...] = ()
    """Each kind of replicas by itself, where there are several."""
    others_at_most: int = 0
    """Of one of several kinds: requests that the others have in the system at a time."""

    @property
    def mixed(self) -> bool:
        """Whether several kinds of replicas stand side by side, or this is one of them."""
        return any(pool.kind for pool in self.pools)

    @property
    def disaggregated(self) -> bool:
        """Whether prompts are prefilled in a pool of their own."""
        return any(pool.role != "serve" for pool in self.pools)

    def of(self, pool: PoolPlan) -> Deployment:
        """Return the deployment of a pool's own kind."""
        return next((service for service in self.services if pool in service.pools), self)

    @property
    def hardware(self) -> Hardware:
        """The GPU."""
        return self.problem.cluster.hardware

    @property
    def cluster(self) -> Cluster:
        """The GPUs and their servers."""
        return self.problem.cluster

    @property
    def architecture(self) -> Architecture:
        """The model."""
        return self.problem.architecture

    @property
    def gpus(self) -> int:
        """GPUs that the plan uses, of all pools."""
        return sum(pool.instance_gpus * pool.instances for pool in self.pools)

    @property
    def workload(self) -> Workload:
        """The session, growing with each round, as it does at run time."""
        work = self.problem.workload
        return Workload(
            work.ctx_tokens,
            work.rounds,
            work.question_tokens,
            work.output_tokens,
            work.think_s,
            work.shared_prefix_tokens,
            growth=True,
        )

    @property
    def max_model_len(self) -> int:
        """Longest session: the document and every round's question and answer [tokens]."""
        return self.workload.end_tokens

    @property
    def window_tokens(self) -> int:
        """Longest request that is served: the longest session, or the longer window of the server before [tokens]."""
        return max(self.max_model_len, self.kept_window_tokens or 0)

    @property
    def served_name(self) -> str:
        """Name under which clients ask for the model."""
        if self.running is not None and self.running.served_names:
            return self.running.served_names[0]
        return self.problem.served_name

    @property
    def tokenizer(self) -> str:
        """What clients that count tokens load: of the checkpoint that was named, else of the model."""
        named = self.checkpoint
        return self.model_source if named is None or named.lower().endswith(".gguf") else named

    @property
    def slug(self) -> str:
        """A name for Kubernetes and Docker objects: lower case, digits and dashes."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.served_name.lower()).strip("-")[:40].strip("-")
        return f"plan-{plain}" if plain else "plan-model"

    @property
    def kv_option(self) -> str | None:
        """The engine's name of the format that KV is kept in: said always, as a checkpoint may change its default."""
        if self.kv_format is None:
            return None
        return (self.technology("hidden") is None and self.run.kv_cache_dtype) or self.kv_format.option

    def config_overrides(self, window: Mapping[str, Any]) -> dict[str, Any]:
        """Return the changes to ``config.json`` with which the engine starts, those of a longer window included."""
        return merged(self.run.overrides or {}, window)

    @property
    def memory_share(self) -> float:
        """Share of HBM that the plan fills, of 1."""
        return round(self.metrics.hbm_bytes_per_gpu.limit / self.hardware.hbm, 4)

    @property
    def reuses_prefixes(self) -> bool:
        """Whether caches outlive a request: always, but where the plan recomputes them and none is shared."""
        return self.decision.offload.policy != "recompute" or self.request.shared_prefix_tokens > 0

    @property
    def local_paths(self) -> list[str]:
        """Directories of the server that the engine reads."""
        path = self.checkpoint or self.model_source
        return [path] if path.startswith("/") else []

    def kv_tokens(self, pool: PoolPlan) -> int | None:
        """Tokens of the pool's resident sessions at their full length; None where the plan counts none [tokens]."""
        return None if pool.resident_sessions is None else pool.resident_sessions * self.max_model_len

    def batched_tokens(self, pool: PoolPlan) -> int:
        """Tokens of one step: the prefill chunk and one per decoding sequence [tokens]."""
        whole = self.max_model_len
        if pool.role == "decode" and pool.chunk_tokens is None:
            whole = max(self.request.question_tokens, 1)  # the document is prefilled elsewhere
        return max((pool.chunk_tokens or whole) + pool.decode_sequences, pool.sequences)

    @property
    def requests_at_most(self) -> int | None:
        """Requests that the whole service has in the system at a time; None where the plan counts no sessions.

        One per session that HBM holds, and where sessions wait below HBM, in another pool or nowhere, also one per
        planned user. Every instance takes that many: a router can place sessions unevenly, and the promised users are
        never refused.
        """
        pool = self.pools[-1]
        if pool.resident_sessions is None:
            return None
        waits_here = self.decision.offload.policy == "none" and pool.role == "serve"
        users = 0 if waits_here else math.ceil(self.metrics.users)
        own = max(pool.resident_sessions * pool.replicas, pool.sequences * pool.replicas, users)
        return own + self.others_at_most

    def technology(self, dimension: str) -> Technology | None:
        """Return the technique of a dimension, if any."""
        return next((t for t in self.technologies if t.dimension == dimension), None)

    def tier_bytes_per_instance(self, pool: PoolPlan) -> int:
        """Bytes of the offload tier for one instance, rounded up [bytes]."""
        total = self.metrics.nvme_bytes if self.decision.offload.tier == "nvme" else self.metrics.ddr_bytes
        return -int(-total // (pool.instances - pool.spare_instances))
