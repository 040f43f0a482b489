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

from pydantic import ValidationError

from catalog.architecture import Architecture
from catalog.errors import UnknownEntryError
from catalog.load import Catalog
from catalog.ready import Ready
from catalog.schema import Engine, Hardware, KvFormat, Point, Technique, WeightFormat
from planner.cost.workload import Workload
from planner.emit.formats import kv_format_of, weight_format_of
from planner.emit.running import Running
from planner.emit.source import source_of
from planner.errors import InputError
from planner.plan import DIMENSIONS, UNCOMPRESSED, Choice, Decision, Document, Metrics, Pool
from planner.problem import Problem, resolve
from planner.request import Cluster, Request
from planner.space import Run, merged, runs

Role = Literal["serve", "prefill", "decode"]
LOCAL = (
    "the model is a directory of one machine; files for other machines (kubernetes, compose, kserve, ray) "
    "need --checkpoint ID or PATH, what they are to load"
)
NATIVE = "native"
"""Weights of a plan that are as the checkpoint's makers quantised them."""


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

    @property
    def data_parallel(self) -> int:
        """Replicas that share their experts and therefore run as one instance."""
        return max(1, self.ep // self.tp)

    @property
    def instances(self) -> int:
        """Engine instances, each of `data_parallel` replicas."""
        return self.replicas // self.data_parallel

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
    """A plan with its engine, GPUs, model and session looked up."""

    document: Document
    decision: Decision
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
        return max(pool.resident_sessions * pool.replicas, pool.sequences * pool.replicas, users)

    def technology(self, dimension: str) -> Technology | None:
        """Return the technique of a dimension, if any."""
        return next((t for t in self.technologies if t.dimension == dimension), None)

    def tier_bytes_per_instance(self, pool: PoolPlan) -> int:
        """Bytes of the offload tier for one instance, rounded up [bytes]."""
        total = self.metrics.nvme_bytes if self.decision.offload.tier == "nvme" else self.metrics.ddr_bytes
        return -int(-total // pool.instances)


def read_deployment(
    document: Document,
    catalog: Catalog,
    *,
    engine: str | None = None,
    checkpoint: str | None = None,
    offload_backend: Literal["native", "lmcache"] = "native",
    engine_version: str | None = None,
    running: Running | None = None,
) -> Deployment:
    """Look up everything that a plan names.

    Parameters
    ----------
    document
        The plan.
    catalog
        The facts.
    engine
        Engine where the plan leaves it open.
    checkpoint
        A quantised checkpoint to serve; None: one is made from the model's own weights.
    offload_backend
        What moves caches below HBM where the engine has a choice.
    engine_version
        Another version of the engine than the catalog's.
    running
        A server that this one takes the place of.

    Raises
    ------
    InputError
        If the plan can't be deployed: no feasible decision, priced at theoretical peak, made for
        another engine, or naming something that the catalog lacks.
    """
    decision, metrics = document.decision, document.metrics
    if document.status == "infeasible" or decision is None or metrics is None:
        raise InputError("the plan: status infeasible: there is nothing to deploy; relax a limit and plan again")
    try:
        request = Request.model_validate(document.request)
    except ValidationError as error:
        raise InputError(f"the plan: request: {error.errors()[0]['msg']}; take a file that plan has written") from None
    if request.efficiency == "peak":
        raise InputError(
            "the plan: priced at theoretical peak, which fills all of HBM with weights and KV and leaves an engine "
            "no room to run; plan again without --efficiency peak"
        )
    problem = resolve(request, catalog)
    chosen = _engine(decision, engine, catalog)
    technologies = _technologies(decision, catalog)
    weights = _weights(decision.weights, catalog)
    capability = problem.cluster.hardware.compute_capability
    run = runs(problem, chosen, engine_version)
    source = source_of(problem, chosen, weights.point.id if weights else None, checkpoint, running)
    hidden = next((t.point.id for t in technologies if t.dimension == "hidden"), UNCOMPRESSED["hidden"])
    return Deployment(
        document=document,
        decision=decision,
        metrics=metrics,
        request=request,
        problem=problem,
        engine=chosen,
        technologies=technologies,
        weights=weights,
        run=run,
        kv_format=kv_format_of(hidden, run, problem),
        weight_format=weight_format_of(weights.point.id if weights else None, chosen, capability),
        pools=_pools(decision, metrics.concurrency, problem.cluster),
        model_source=source.model,
        config=dict(problem.config),
        checkpoint=source.checkpoint,
        offload_backend=offload_backend,
        ready=source.ready,
        running=running,
        is_local=source.is_local,
        notes=(LOCAL,) if source.is_local else (),
    )


def _engine(decision: Decision, named: str | None, catalog: Catalog) -> Engine:
    if decision.engine == "any":
        if named is None:
            known = ", ".join(e.id for e in catalog.all(Engine))
            raise InputError(f"the plan: engine any: name the engine as a target too, one of {known}")
        return catalog.get(Engine, named)
    engine = catalog.get(Engine, decision.engine)
    if named is not None and catalog.get(Engine, named).id != engine.id:
        raise InputError(
            f"--target {named}: the plan was made for {engine.id}, and its memory and speed are those of {engine.id}; "
            f"plan again with --engine {named}"
        )
    return engine


def _technologies(decision: Decision, catalog: Catalog) -> tuple[Technology, ...]:
    found = []
    for dimension in DIMENSIONS:
        choice: Choice = getattr(decision.compression, dimension)
        if choice.technique in ("none", UNCOMPRESSED[dimension]):
            continue
        try:
            technique, point = _point(choice, catalog)
        except UnknownEntryError as error:
            raise InputError(f"the plan: decision.compression.{dimension}: {error}") from None
        if point.id != UNCOMPRESSED[dimension]:
            found.append(Technology(dimension, technique, point))
    return tuple(found)


def _point(choice: Choice, catalog: Catalog) -> tuple[Technique, Point]:
    """Look up a choice: its point, a technique with its strength, or a technique of one point."""
    if choice.point is not None:
        return catalog.point(choice.point)
    if choice.strength is not None and catalog.has(Technique, choice.technique):
        return catalog.point(f"{choice.technique}:{choice.strength}")
    return catalog.point(choice.technique)


def _weights(name: str, catalog: Catalog) -> Technology | None:
    if name in (NATIVE, "bf16", "w_bf16"):
        return None
    for spelling in (f"w_{name}", name):
        try:
            technique, point = catalog.point(spelling)
        except UnknownEntryError:
            continue
        return Technology("weights", technique, point)
    raise InputError(f"the plan: decision.weights: the catalog has no weight format {name!r}; write for example bf16")


def _pools(decision: Decision, concurrency: int, cluster: Cluster) -> tuple[PoolPlan, ...]:
    if decision.serving == "aggregated":
        pool = Pool(parallel=decision.parallel, batch=decision.batch)
        fits = concurrency // decision.parallel.replicas
        return (_pool("serve", pool, cluster, fits or None),)
    if decision.pools is None:
        raise InputError("the plan: serving disaggregated without pools; give pools.prefill and pools.decode")
    decode = decision.pools.decode
    fits = concurrency // decode.parallel.replicas
    return (
        _pool("prefill", decision.pools.prefill, cluster, None),
        _pool("decode", decode, cluster, fits or None),
    )


def _pool(role: Role, pool: Pool, cluster: Cluster, fits: int | None) -> PoolPlan:
    parallel, batch = pool.parallel, pool.batch
    tp = parallel.tp or cluster.gpus_per_node
    planned = PoolPlan(
        role=role,
        tp=tp,
        pp=parallel.pp,
        dcp=parallel.dcp,
        pcp=parallel.pcp,
        ep=parallel.ep,
        replicas=parallel.replicas,
        decode_sequences=batch.decode_sequences,
        resident_sessions=batch.resident_sessions or fits,
        chunk_tokens=batch.prefill_chunk_tokens,
        throttled=batch.prefill_throttled,
    )
    if parallel.ep > 1 and (parallel.ep % tp or parallel.replicas % planned.data_parallel):
        raise InputError(
            f"the plan: ep {parallel.ep} must be tp {tp} times a divisor of the {parallel.replicas} replicas; "
            "experts spread over whole replicas"
        )
    return planned
