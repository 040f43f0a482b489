"""What an engine can't do is said, not dropped: every decision without a flag, with the engines that have one."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from catalog.schema import Engine
from planner.emit.deployment import Deployment, PoolPlan, Technology
from planner.errors import InputError
from planner.space import runs
from planner.space.pools import handover_problem
from planner.space.ready import has_experts
from planner.space.runs import serves
from planner.space.splits import Split
from planner.targets import ENGINES


def refuse_unshipped(deployment: Deployment, version: str) -> None:
    """Refuse a plan that the engine's files can't express.

    Parameters
    ----------
    deployment
        The plan.
    version
        Of the engine, for the messages.

    Raises
    ------
    InputError
        With every decision that has no flag here.
    """
    files = ENGINES[deployment.engine.id]
    who = f"{deployment.engine.id} {version}"
    problems = [
        *_gpu_problems(deployment, who),
        *_technique_problems(deployment, who, files.dimensions, files.statuses),
        *_weight_problems(deployment, who, files.weights),
        *_serving_problems(deployment, who),
    ]
    for pool in deployment.pools:
        problems += [p for p in _parallel_problems(deployment, pool, who) if p not in problems]
    if problems:
        raise InputError(problems)


def _all_engines(deployment: Deployment) -> list[Engine]:
    return deployment.problem.catalog.all(Engine)


def _having(names: Iterable[str]) -> str:
    known = ", ".join(sorted(set(names)))
    return f"; engines that have it: {known}" if known else "; no engine of the catalog has it"


def _not_written(deployment: Deployment, who: str, what: str, having: list[str]) -> str:
    """Say that an engine has no flag for something, or that it has one and its files aren't written with it."""
    own = deployment.engine.id
    if own in having:
        others = [name for name in having if name != own]
        return f"{who} has {what}, but files with it aren't written here" + (_having(others) if others else "")
    return f"{who} has no flag for {what}{_having(having)}"


def _gpu_problems(deployment: Deployment, who: str) -> list[str]:
    engine, gpu = deployment.engine, deployment.hardware
    capability = gpu.compute_capability
    if gpu.vendor == "other":
        return [f"{gpu.name} isn't a GPU, and the files are for servers with GPUs; start {engine.name} by hand"]
    if capability not in engine.compute_capabilities:
        others = [e.id for e in _all_engines(deployment) if capability in e.compute_capabilities]
        return [f"{who} doesn't run on {gpu.name} (capability {capability}){_having(others)}"]
    run = deployment.run
    refused = [f"{who} {refusal}" for refusal in run.refusals]
    if not run.named and engine.continuous_batching:
        refused.append(
            f"the config of {deployment.problem.model_name} names no architectures, and {who} needs them; add them"
        )
    if not refused:
        return []
    others = [e.id for e in _all_engines(deployment) if e.id != engine.id and serves(deployment.problem, e)]
    return [*refused[:-1], refused[-1] + (f"; engines that run it: {', '.join(others)}" if others else "")]


def _technique_problems(
    deployment: Deployment, who: str, dimensions: Collection[str], statuses: Collection[str]
) -> list[str]:
    problems = []
    for used in deployment.technologies:
        if used.technique.requires_native_model:
            continue
        if used.dimension == "hidden":
            problems += _format_problems(deployment, used, who)
        elif used.dimension not in dimensions or not _supports(used, deployment.engine, statuses):
            having = [s.engine for s in used.technique.engines if s.status == "ships"]
            problems.append(f"{used.dimension}: {_not_written(deployment, who, used.point.id, having)}")
    return problems


def _supports(used: Technology, engine: Engine, statuses: Collection[str]) -> bool:
    return any(
        support.engine == engine.id
        and support.status in statuses
        and used.point.id in (support.points or (used.point.id,))
        for support in used.technique.engines
    )


def _format_problems(deployment: Deployment, used: Technology, who: str) -> list[str]:
    kv_format, problem = deployment.kv_format, deployment.problem
    misfits = deployment.run.misfits(kv_format, problem) if kv_format is not None else []
    if kv_format is not None and not misfits:
        return []
    having = [e.id for e in _all_engines(deployment) if runs(problem, e).kv_formats(used.point.id, problem)]
    if kv_format is None:
        return [f"hidden: {who} has no KV format for {used.point.id}{_having(having)}"]
    on = deployment.hardware.name
    return [f"hidden: {who}: {kv_format.option} KV on {on} {misfit}{_having(having)}" for misfit in misfits]


def _weight_problems(deployment: Deployment, who: str, weights: Collection[str]) -> list[str]:
    if deployment.weights is None or deployment.ready is not None:
        return []
    point, gpu = deployment.weights.point.id, deployment.hardware
    if deployment.config.get("quantization_config"):
        return [
            f"weights: {deployment.model_source!r} is quantised by its makers and can't be made "
            f"{deployment.decision.weights}; plan with --weights native, or a model that comes in bf16"
        ]
    having = [
        engine.id
        for engine in _all_engines(deployment)
        for f in engine.weight_formats
        if f.technique_point == point and gpu.compute_capability in f.compute_capabilities
    ]
    found = deployment.weight_format
    if found is None or point not in weights:
        return [f"weights: {_not_written(deployment, who, deployment.decision.weights, having)}"]
    if gpu.compute_capability not in found.compute_capabilities:
        runs = ", ".join(found.compute_capabilities)
        return [
            f"weights: {who} runs {deployment.decision.weights} on capabilities {runs}, not on {gpu.name} "
            f"({gpu.compute_capability}){_having(having)}"
        ]
    if not found.experts and has_experts(deployment.problem):
        dense = f"weights: {who} runs {deployment.decision.weights} in dense layers only, not in a mixture of experts"
        return [f"{dense}; another engine or precision does"]
    return []


def _parallel_problems(deployment: Deployment, pool: PoolPlan, who: str) -> list[str]:
    has = deployment.engine.parallelism
    asked = (
        ("tp", pool.tp > 1, "tensor"),
        ("pp", pool.pp > 1, "pipeline"),
        ("dcp", pool.dcp > 1, "decode_context"),
        ("pcp", pool.pcp > 1, "prefill_context"),
        ("ep", pool.ep > 1, "expert"),
        ("ep over replicas", pool.data_parallel > 1, "attention_data"),
    )
    problems = []
    for name, wanted, field in asked:
        if wanted and not getattr(has, field):
            having = [e.id for e in _all_engines(deployment) if getattr(e.parallelism, field)]
            problems.append(f"parallel: {who} has no {name}{_having(having)}")
    return problems


def _serving_problems(deployment: Deployment, who: str) -> list[str]:
    engine, decision = deployment.engine, deployment.decision
    problems = []
    if decision.serving == "disaggregated" and engine.disaggregated is None:
        having = [e.id for e in _all_engines(deployment) if e.disaggregated]
        problems.append(f"serving: {who} has no disaggregated prefill and decode{_having(having)}")
    if len(deployment.pools) == 2:
        prefill, decode = (Split(p.tp, p.pp, p.dcp, p.pcp, p.ep) for p in deployment.pools)
        latent = "mla" in deployment.architecture.attention_kinds
        apart = handover_problem(engine, prefill, decode, latent)
        problems += [f"pools: {apart}; plan again"] if apart else []
    if any(pool.throttled for pool in deployment.pools) and engine.long_prefill_throttle is None:
        having = [e.id for e in _all_engines(deployment) if e.long_prefill_throttle]
        problems.append(f"batch: {who} can't make long prefills yield to short ones{_having(having)}")
    whole = deployment.request.ctx  # a chunk of the whole document is none
    if any(pool.chunk_tokens and pool.chunk_tokens < whole for pool in deployment.pools) and not engine.chunked_prefill:
        having = [e.id for e in _all_engines(deployment) if e.chunked_prefill]
        problems.append(f"batch: {who} has no chunked prefill{_having(having)}")
    tier = decision.offload.tier or "ddr"
    if decision.offload.policy == "swap" and not any(o.tier == tier for o in engine.offload):
        having = [e.id for e in _all_engines(deployment) if any(o.tier == tier for o in e.offload)]
        problems.append(f"offload: {who} moves no KV to {tier}{_having(having)}")
    return problems
