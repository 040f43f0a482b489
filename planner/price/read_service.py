"""A service by hand or from a plan: completed, looked up in the catalog, and refused where it makes no sense."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.errors import UnknownEntryError
from catalog.schema import Point, Technique
from planner.cost.quality import LogLoss, prior_loss
from planner.cost.replica import Shape, WeightFormat, shape_problems
from planner.errors import InputError
from planner.problem import Problem
from planner.service import DIMENSIONS, UNCOMPRESSED, Choice, Parallel, Service
from planner.space.compatibility import compatibility
from planner.space.options import NATIVE, Option, WeightOption, own_weights, weight_format


@dataclass(frozen=True, slots=True)
class ReadService:
    """A service, looked up in the catalog."""

    service: Service
    options: tuple[tuple[Technique, Point] | None, ...]
    weights: WeightOption
    loss: LogLoss


def complete(problem: Problem, service: Service, assumptions: list[str]) -> Service:
    """Fill in what a service leaves out, and note what was filled in."""
    node = min(problem.cluster.gpus_per_node, problem.cluster.gpus)
    given = service.model_fields_set
    if "weights" not in given:
        native = own_weights(problem).id
        service = service.model_copy(update={"weights": native})
        assumptions.append(f"weights: {native}{_as_checkpoint(problem, native)}")
    if "compression" not in given:
        assumptions.append("compression: none")
    if service.serving == "aggregated":
        if "parallel" not in given:
            assumptions.append(f"parallel: tensor parallel over the {node} GPUs of a server")
        if "batch" not in given:
            assumptions.append("batch: one decoding sequence, the prompt in one piece")
    if "offload" not in given:
        assumptions.append("offload: none, caches stay in HBM between rounds")
    offload = service.offload
    if offload.policy == "swap" and offload.tier is None:
        offload = offload.model_copy(update={"tier": "ddr"})
        assumptions.append("offload tier: host memory (ddr)")
    parallel = _with_tp(service.parallel, node)
    pools = service.pools
    if pools is not None:
        prefill = pools.prefill.model_copy(update={"parallel": _with_tp(pools.prefill.parallel, node)})
        decode = pools.decode.model_copy(update={"parallel": _with_tp(pools.decode.parallel, node)})
        pools = pools.model_copy(update={"prefill": prefill, "decode": decode})
    return service.model_copy(update={"parallel": parallel, "pools": pools, "offload": offload})


def _as_checkpoint(problem: Problem, weights: str) -> str:
    """Say how the checkpoint itself has its weights."""
    said, bits = problem.architecture.quantised_by, problem.architecture.native_weight_bits
    if said is None or problem.checkpoint is not None:
        return ", as the checkpoint has them"
    if bits is None:
        return f"'s 16 bits, as the checkpoint's quantization_config ({said}) isn't understood here"
    return f", as the checkpoint has them ({said}, {bits:g} bits a weight with its scales)"


def _with_tp(parallel: Parallel, node: int) -> Parallel:
    return parallel if parallel.tp is not None else parallel.model_copy(update={"tp": node})


def read_service(problem: Problem, service: Service) -> ReadService:
    """Look up a complete service.

    Raises
    ------
    InputError
        With every reason why it makes no sense for this model and these GPUs.
    """
    problems: list[str] = []
    options = tuple(_choice(problem, name, getattr(service.compression, name), problems) for name in DIMENSIONS)
    weights = _weights(problem, service.weights, problems)
    problems += _engine_problems(problem, service)
    problems += _split_problems(problem, service)
    problems += _offload_problems(problem, service)
    if problems or weights is None:
        raise InputError([f"decision: {text}" for text in problems])
    chosen = [
        Option(name, *option, LogLoss(), frozenset())
        for name, option in zip(DIMENSIONS, options, strict=True)
        if option
    ]
    rules = compatibility(problem, chosen, [weights], ())
    ids = [option.id for option in chosen] + ([weights.point.id] if weights.point else [])
    clashes = sorted(" and ".join(sorted(pair)) for pair in rules.pairs if pair <= set(ids))
    if clashes:
        raise InputError([f"decision: compression: {clash} exclude each other" for clash in clashes])
    loss = rules.surcharge(ids) + weights.loss
    request = problem.request
    for prior in (option.point.prior for option in chosen if option.point):
        if prior is not None:
            loss = loss + prior_loss(prior, request.task, request.rounds, request.ctx)
    return ReadService(service, options, weights, loss)


def _choice(problem: Problem, dimension: str, choice: Choice, problems: list[str]) -> tuple[Technique, Point] | None:
    if choice.technique in ("none", UNCOMPRESSED[dimension]):
        return None
    name = choice.point or choice.technique
    if choice.point is None and choice.strength is not None:
        name = f"{choice.technique}:{choice.strength:g}"
    try:
        technique, point = problem.catalog.point(name)
    except UnknownEntryError as error:
        problems.append(f"compression.{dimension}: {error}")
        return None
    if technique.dimension != dimension:
        problems.append(
            f"compression.{dimension}: {technique.id} works on the {technique.dimension} dimension; move it"
        )
        return None
    if point.prior is None:
        problems.append(
            f"compression.{dimension}: {point.id} has no sourced prior for its loss; choose another strength"
        )
        return None
    if technique.requires_native_model:
        problems.append(
            f"compression.{dimension}: {technique.id} is a property of the checkpoint; choose a model that has it"
        )
        return None
    return technique, point


def _weights(problem: Problem, name: str, problems: list[str]) -> WeightOption | None:
    native = own_weights(problem)
    wanted = name.lower().removeprefix("w_")
    if problem.checkpoint is not None and wanted != native.id:
        problems.append(
            f"weights: {problem.checkpoint.hub_id} is {native.id}, not {name}; leave weights out, or ask for "
            f"{problem.hub_id}"
        )
        return None
    if wanted == native.id:
        return native
    if wanted == "bf16":
        return WeightOption("bf16", None, None, WeightFormat(), LogLoss(), frozenset())
    for technique in problem.catalog.all(Technique):
        for point in technique.points if technique.dimension == "weights" else ():
            if point.id.removeprefix("w_") == wanted and point.prior is not None:
                request = problem.request
                loss = prior_loss(point.prior, request.task, request.rounds, request.ctx)
                return WeightOption(wanted, technique, point, weight_format(point, problem), loss, frozenset())
    known = sorted(
        point.id.removeprefix("w_")
        for technique in problem.catalog.all(Technique)
        if technique.dimension == "weights"
        for point in technique.points
    )
    problems.append(f"weights: unknown precision {name!r}; use one of {', '.join([*known, NATIVE])}")
    return None


def _engine_problems(problem: Problem, service: Service) -> list[str]:
    from catalog.schema import Engine

    if service.engine == "any" or problem.catalog.has(Engine, service.engine):
        return []
    known = ", ".join(engine.id for engine in problem.catalog.all(Engine))
    return [f"engine: unknown engine {service.engine!r}; use one of {known}"]


def _split_problems(problem: Problem, service: Service) -> list[str]:
    parallels = {"parallel": service.parallel}
    if service.serving == "disaggregated":
        if service.pools is None:
            return ["serving: disaggregated needs pools.prefill and pools.decode; add them"]
        parallels = {
            "pools.prefill.parallel": service.pools.prefill.parallel,
            "pools.decode.parallel": service.pools.decode.parallel,
        }
    elif service.pools is not None:
        return ["pools: only with serving: disaggregated; remove them or change serving"]
    problems = []
    used = 0
    for where, parallel in parallels.items():
        shape = shape_of(parallel, "w")
        used += shape.gpus * parallel.replicas
        problems += [f"{where}: {what}" for what in shape_problems(problem.architecture, shape, parallel.replicas)]
        node = problem.cluster.gpus_per_node
        if shape.tp > node and shape.tp % node:
            problems.append(f"{where}.tp: {shape.tp} is no multiple of the {node} GPUs of a server; use pp")
    if used > problem.cluster.gpus:
        problems.append(
            f"{' + '.join(parallels)}: tp x pp x pcp x replicas is {used} GPUs of {problem.cluster.gpus}; use fewer"
        )
    return problems


def _offload_problems(problem: Problem, service: Service) -> list[str]:
    offload = service.offload
    if offload.policy != "swap" and offload.tier is not None:
        return [f"offload.tier: only with policy swap; remove it or change policy {offload.policy}"]
    if offload.tier == "nvme" and problem.cluster.node.nvme is None:
        return [f"offload.tier: {problem.cluster.node.name} has no NVMe; use ddr"]
    return []


def shape_of(parallel: Parallel, weights: str) -> Shape:
    """The shape of a replica; `complete` has filled ``tp`` in."""
    return Shape(parallel.tp or 1, parallel.pp, parallel.dcp, parallel.pcp, parallel.ep, weights)
