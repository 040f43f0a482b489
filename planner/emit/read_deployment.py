"""Look up everything that a plan names, once, before anything is written.

Each value is the plan's own, or one that the plan's contract defines from it, or a fact of the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from catalog.errors import UnknownEntryError
from catalog.load import Catalog
from catalog.schema import Engine, Point, Technique
from planner.emit.deployment import Deployment, PoolPlan, Role, Technology
from planner.emit.formats import kv_format_of, weight_format_of
from planner.emit.kinds import check_kinds, metrics_of_kind, side_by_side
from planner.emit.running import Running
from planner.emit.source import source_of
from planner.errors import InputError
from planner.plan import Document, Metrics
from planner.problem import Problem, resolve
from planner.request import Cluster, Request
from planner.service import DIMENSIONS, UNCOMPRESSED, Choice, Pool, Service
from planner.space import runs

LOCAL = (
    "the model is a directory of one machine; files for other machines (kubernetes, compose, kserve, ray) "
    "need --checkpoint ID or PATH, what they are to load"
)
NATIVE = "native"
"""Weights of a plan that are as the checkpoint's makers quantised them."""


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
    known = _Known(document, request, problem, catalog, checkpoint, offload_backend, engine_version, running)
    if len(decision.services) == 1:
        return _deployment(known, decision.services[0], metrics, engine)
    check_kinds(decision, known.checkpoint, known.engine_version, known.running)
    kinds = [
        _deployment(known, service, metrics_of_kind(metrics, decision, index), engine)
        for index, service in enumerate(decision.services)
    ]
    return side_by_side(decision, metrics, kinds)


@dataclass(frozen=True, slots=True)
class _Known:
    """What all services of a plan share, and what the operator said."""

    document: Document
    request: Request
    problem: Problem
    catalog: Catalog
    checkpoint: str | None
    offload_backend: Literal["native", "lmcache"]
    engine_version: str | None
    running: Running | None


def _deployment(known: _Known, service: Service, metrics: Metrics, engine: str | None) -> Deployment:
    """Look up one service."""
    problem, catalog = known.problem, known.catalog
    chosen = _engine(service, engine, catalog)
    technologies = _technologies(service, catalog)
    weights = _weights(service.weights, catalog)
    capability = problem.cluster.hardware.compute_capability
    run = runs(problem, chosen, known.engine_version)
    source = source_of(problem, chosen, weights.point.id if weights else None, known.checkpoint, known.running)
    hidden = next((t.point.id for t in technologies if t.dimension == "hidden"), UNCOMPRESSED["hidden"])
    return Deployment(
        document=known.document,
        decision=service,
        metrics=metrics,
        request=known.request,
        problem=problem,
        engine=chosen,
        technologies=technologies,
        weights=weights,
        run=run,
        kv_format=kv_format_of(hidden, run, problem),
        weight_format=weight_format_of(weights.point.id if weights else None, chosen, capability),
        pools=_pools(service, metrics, problem.cluster),
        model_source=source.model,
        config=dict(problem.config),
        checkpoint=source.checkpoint,
        offload_backend=known.offload_backend,
        ready=source.ready,
        running=known.running,
        is_local=source.is_local,
        notes=(LOCAL,) if source.is_local else (),
    )


def _engine(decision: Service, named: str | None, catalog: Catalog) -> Engine:
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


def _technologies(decision: Service, catalog: Catalog) -> tuple[Technology, ...]:
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


def _pools(decision: Service, metrics: Metrics, cluster: Cluster) -> tuple[PoolPlan, ...]:
    spare = [group.spare_replicas for group in metrics.groups]
    if decision.serving == "aggregated":
        pool = Pool(parallel=decision.parallel, batch=decision.batch)
        fits = metrics.concurrency // (decision.parallel.replicas - spare[0])
        return (_pool("serve", pool, cluster, fits or None, spare[0]),)
    if decision.pools is None:
        raise InputError("the plan: serving disaggregated without pools; give pools.prefill and pools.decode")
    decode = decision.pools.decode
    fits = metrics.concurrency // (decode.parallel.replicas - spare[1])
    return (
        _pool("prefill", decision.pools.prefill, cluster, None, spare[0]),
        _pool("decode", decode, cluster, fits or None, spare[1]),
    )


def _pool(role: Role, pool: Pool, cluster: Cluster, fits: int | None, spare: int) -> PoolPlan:
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
        spare_replicas=spare,
    )
    if parallel.ep > 1 and (parallel.ep % tp or parallel.replicas % planned.data_parallel):
        raise InputError(
            f"the plan: ep {parallel.ep} must be tp {tp} times a divisor of the {parallel.replicas} replicas; "
            "experts spread over whole replicas"
        )
    return planned
