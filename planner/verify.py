"""Is the plan what was asked? Every limit once more, in floats, with none of the solver's arithmetic.

A plan that fails here is never shown. For a file from anywhere, `verify_document` prices its decision
again and compares every number that it claims.
"""

from __future__ import annotations

import math

from catalog.load import Catalog
from catalog.schema import Engine
from planner.decision import Decision
from planner.errors import InputError, PlannerError
from planner.limits import is_floor
from planner.objectives import Figures, sought
from planner.plan import Document
from planner.price import Evaluation, by_itself, evaluate
from planner.problem import Problem, resolve
from planner.request import Cluster, read_request
from planner.service import DIMENSIONS, Parallel, Service
from planner.space import Space, open_space
from planner.space.pools import handover_problem
from planner.space.splits import Split, engine_runs

LIMIT_TOLERANCE = 1e-9
"""Relative: rounding of floats, not of a plan."""
OBJECTIVE_TOLERANCE = 1e-4
"""Relative: how far an objective in integers may be from the cost model's floats."""
CLAIM_TOLERANCE = 1e-6
"""Relative: how far a number in a file may be from the one computed again."""


class VerificationError(PlannerError):
    """A plan isn't what it claims: each problem with its numbers."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(["the plan doesn't hold:", *(f"  {text}" for text in problems)]))


def verify(problem: Problem, space: Space, evaluation: Evaluation, claimed: float | None = None) -> None:
    """Check a priced decision against its request and its space.

    Parameters
    ----------
    claimed
        What the solver says that the objective is, in the unit of `objective_value`; None: no claim.

    Raises
    ------
    VerificationError
        With every limit that is broken, and every claim that isn't so.
    """
    problems = broken_limits(evaluation) + unavailable(problem, space, evaluation)
    if claimed is not None:
        real = objective_value(problem, evaluation)
        if not math.isclose(real, claimed, rel_tol=OBJECTIVE_TOLERANCE, abs_tol=1e-7):
            problems.append(f"objective: the solver claims {claimed:.9g}, the cost model says {real:.9g}")
    if problems:
        raise VerificationError(problems)


def objective_value(problem: Problem, evaluation: Evaluation) -> float:
    """The number that a request minimises: hours or GPU-hours per interaction, GPUs, seconds, or a loss.

    Throughput and GPUs are those of all services; a time or a loss is the worst service's.
    """
    figures = Figures(
        interactions_per_hour=evaluation.metrics.interactions_per_hour,
        gpus=evaluation.metrics.gpus_used,
        latency_s=max(one.figures.latency_s for one in evaluation.services),
        quality_loss=max(one.figures.quality_loss_at_confidence for one in evaluation.services),
    )
    return float(sought(problem.request).minimised(figures))


def broken_limits(evaluation: Evaluation) -> list[str]:
    """Limits that a decision breaks, with amounts.

    Latency, quality and memory hold in each service by itself; GPUs, servers and users for all together.
    """
    broken = []
    several = len(evaluation.services) > 1
    rows = [("", row) for row in evaluation.constraints]
    if several:
        rows = [("", row) for row in evaluation.constraints if not by_itself(row)]
        for groups, one in zip(evaluation.decision.groups_of_services, evaluation.services, strict=True):
            rows += [(f"group {groups[-1].id}: ", row) for row in one.constraints if by_itself(row)]
    for where, row in rows:
        if row.slack < -LIMIT_TOLERANCE * max(abs(row.limit), 1e-12):
            side = "below" if is_floor(row.name) else "above"
            broken.append(f"{where}{row.name}: {row.value:.6g} is {side} the limit {row.limit:.6g}")
    for groups, one in zip(evaluation.decision.groups_of_services, evaluation.services, strict=True):
        if one.figures.concurrency < 1:
            where = f"group {groups[-1].id}: " if several else ""
            broken.append(f"{where}hbm_bytes_per_gpu: not one session fits beside the weights")
    return broken + _without_room(evaluation)


def _without_room(evaluation: Evaluation) -> list[str]:
    """Groups whose replicas find no room on the servers, though the GPUs are enough."""
    return [
        f"servers: not every replica of group {group.id} finds {group.replica_gpus} free GPUs on a server"
        for group in evaluation.decision.groups
        if sum(on.replicas for on in group.servers) < group.replicas
    ]


def unavailable(problem: Problem, space: Space, evaluation: Evaluation) -> list[str]:
    """Choices that the request's space doesn't hold: what the request leaves out, the engine or the GPU doesn't run."""
    problems = [text for one in evaluation.services for text in _unavailable(problem, space, one.service)]
    return list(dict.fromkeys(problems))


def _unavailable(problem: Problem, space: Space, decision: Service) -> list[str]:
    request = problem.request
    engine = next((e for e in space.engines if e.id == decision.engine), None)
    if engine is None:
        if request.engine != "any":
            return [f"engine: {decision.engine} isn't the --engine {request.engine} that was asked for"]
        known = ", ".join(e.id for e in space.engines)
        return [f"engine: {decision.engine} doesn't serve {problem.model_name} on these GPUs; {known} do"]
    problems = []
    ids = set()
    for name in DIMENSIONS:
        choice = getattr(decision.compression, name)
        wanted = choice.point or choice.technique
        option = next(
            (o for o in space.options[name] if wanted in (o.id, o.technique.id if o.technique else "none")), None
        )
        if option is None or not space.option_runs(option, engine):
            problems.append(f"compression.{name}: {wanted}: {_why_not(problem, space, engine, wanted)}")
        elif option.point is not None:
            ids.add(option.id)
    weights = next((w for w in space.weights if w.id == decision.weights), None)
    if weights is None and request.weights not in ("any", decision.weights):
        problems.append(f"weights: {decision.weights} aren't the --weights {request.weights} that were asked for")
    elif weights is None or engine.id not in weights.engines:
        problems.append(f"weights: {engine.id} doesn't load {decision.weights} on {problem.cluster.hardware.name}")
    elif weights.point is not None:
        ids.add(weights.point.id)
    problems += [f"{text}, which the request fixes" for text in space.pins.broken(decision, problem.catalog)]
    return problems + _not_together(space, engine, ids) + _not_deployed(space, engine, decision, ids)


def _why_not(problem: Problem, space: Space, engine: Engine, wanted: str) -> str:
    named = problem.request.techniques
    if named == "none":
        return "--techniques none asks for no compression"
    if named not in ("deployable", "published") and wanted not in space.dropped:
        return f"isn't among the --techniques {named} that were asked for"
    return space.dropped.get(wanted, f"{engine.id} doesn't run it here")


def _not_together(space: Space, engine: Engine, ids: set[str]) -> list[str]:
    """Options that exclude each other."""
    rules = space.compatibility
    problems = [f"compression: {' and '.join(sorted(pair))} exclude each other" for pair in rules.pairs if pair <= ids]
    return problems + [
        f"compression: {' and '.join(sorted(pair))} exclude each other on {name}"
        for pair, name in rules.engine_pairs
        if name == engine.id and pair <= ids
    ]


def _not_deployed(space: Space, engine: Engine, decision: Service, ids: set[str]) -> list[str]:
    """What the engine can't do with several GPUs and between rounds."""
    pools, offload = decision.pools, decision.offload
    places = {"parallel": decision.parallel}
    holds = set()
    problems = []
    if pools is not None:
        places = {"pools.prefill.parallel": pools.prefill.parallel, "pools.decode.parallel": pools.decode.parallel}
        holds.add("disaggregated")
        if engine.disaggregated is None:
            problems.append(f"serving: {engine.id} has no separate prefill and decode pools")
        else:
            sides = (_split(pools.prefill.parallel), _split(pools.decode.parallel))
            apart = handover_problem(engine, *sides, space.latent)
            problems += [f"pools: {apart}"] if apart else []
    for where, parallel in places.items():
        split = _split(parallel)
        if not engine_runs(engine, split):
            sizes = [f"{name} {getattr(split, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
            problems.append(f"{where}: {engine.id} can't split by {', '.join(s for s in sizes if s[-2:] != ' 1')}")
        if split.tp > 1:
            holds.add("tensor_parallel")
    if offload.policy == "swap":
        holds.add("offload")
        if not any(o.tier == offload.tier for o in engine.offload):
            problems.append(f"offload: {engine.id} has no {offload.tier} tier")
    clashes = sorted((point, kind) for point, kind in space.compatibility.conditions if point in ids and kind in holds)
    words = {"tensor_parallel": "tensor parallelism", "offload": "offload", "disaggregated": "separate pools"}
    return problems + [f"compression: {point} doesn't go with {words[kind]}" for point, kind in clashes]


def _split(parallel: Parallel) -> Split:
    return Split(parallel.tp or 1, parallel.pp, parallel.dcp, parallel.pcp, parallel.ep)


def verify_document(document: Document, catalog: Catalog) -> Evaluation:
    """Price a plan file's decision again and compare everything that it claims; what is null claims nothing.

    Raises
    ------
    InputError
        If the file holds no decision, or its request can't be understood.
    VerificationError
        With every broken limit, and every number that isn't what the cost model says.
    """
    if document.decision is None or document.metrics is None:
        raise InputError("the plan holds no decision; there is nothing to verify in an infeasible request")
    problem = resolve(read_request(document.request, "request"), catalog)
    evaluation = evaluate(problem, document.decision)
    problems = broken_limits(evaluation)
    if any(service.engine != "any" for service in document.decision.services):
        problems += unavailable(problem, open_space(problem), evaluation)
    problems += _misplaced(document.decision, problem.cluster)
    shares = {"weights": evaluation.decision.router.weights}
    problems += _other_numbers({"weights": document.decision.router.weights}, shares, "decision.router")
    claimed = document.metrics.model_dump(exclude_unset=True)
    problems += _other_numbers(claimed, evaluation.metrics.model_dump(), "metrics")
    if document.intervals is not None:
        real = {} if evaluation.intervals is None else evaluation.intervals.model_dump()
        problems += _other_numbers(document.intervals.model_dump(), real, "intervals")
    if problems:
        raise VerificationError(problems)
    return evaluation


_NOT_COMPARED = ("cost_ratio_vs_4k",)
"""A comparison with another plan, not a property of this one."""


def _misplaced(decision: Decision, cluster: Cluster) -> list[str]:
    """What is wrong with where a plan says that its replicas are; a group that says nothing may be anywhere."""
    problems = []
    used: dict[int, int] = {}
    for group in decision.groups:
        placed = sum(on.replicas for on in group.servers)
        if group.servers and placed != group.replicas:
            problems.append(f"decision.groups.{group.id}.servers: {placed} replicas are placed, of {group.replicas}")
        for on in group.servers:
            server, left = on.server, group.replica_gpus
            while left > 0:  # A replica of several servers begins at the one that is named.
                used[server] = used.get(server, 0) + on.replicas * min(left, cluster.gpus_per_node)
                server, left = server + 1, left - cluster.gpus_per_node
    for server, gpus in sorted(used.items()):
        there = min(cluster.gpus_per_node, cluster.gpus - server * cluster.gpus_per_node)
        if gpus > there:
            problems.append(f"decision: server {server} holds {gpus} GPUs of replicas, and has {max(there, 0)}")
    return problems


_SAID_AGAIN = ("load", "services")
"""What tells numbers of the whole once more, for its part: compared last."""


def _other_numbers(claimed: object, real: object, where: str) -> list[str]:
    """Leaves of a plan that aren't what the cost model says; those of lists by their place."""
    if claimed is None:
        return []
    if isinstance(claimed, dict):
        found = real if isinstance(real, dict) else {}
        names = sorted((name for name in claimed if name not in _NOT_COMPARED), key=_SAID_AGAIN.__contains__)
        return [text for name in names for text in _other_numbers(claimed[name], found.get(name), f"{where}.{name}")]
    if isinstance(claimed, list | tuple):
        others = list(real) if isinstance(real, list | tuple) else []
        if len(others) != len(claimed):
            return [f"{where}: the plan has {len(claimed)} entries, the cost model {len(others)}"]
        of_interval = where.startswith("intervals.") and all(isinstance(one, float) for one in claimed)
        places = ("low end", "high end") if of_interval else tuple(map(str, range(len(claimed))))
        rows = zip(places, claimed, others, strict=True)
        return [text for place, one, other in rows for text in _other_numbers(one, other, f"{where}.{place}")]
    if isinstance(claimed, int | float) and isinstance(real, int | float):
        if math.isclose(claimed, real, rel_tol=CLAIM_TOLERANCE, abs_tol=1e-9):
            return []
        return [f"{where}: the plan says {claimed:.9g}, the cost model {real:.9g}"]
    return [] if claimed == real else [f"{where}: the plan says {claimed}, the cost model {real}"]
