"""Price one decision for one problem, and check it against every limit of the request.

The same functions price what a user wrote by hand, what the solver chose, and what `verify` checks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from catalog.errors import UnknownEntryError
from catalog.schema import Point, Technique
from planner.cost.compression import CompressionTable, compression_table
from planner.cost.price import DDR, NVME, Candidates, Pools, Priced, Setting, price
from planner.cost.quality import LogLoss, prior_loss
from planner.cost.replica import Shape, WeightFormat, shape_problems
from planner.cost.session import BOUNDS, NONE, RECOMPUTE, SWAP
from planner.efficiency import efficiency_of, ends_of, measured_notes, timer_of
from planner.errors import InputError
from planner.limits import Limit, limits_of
from planner.plan import (
    DIMENSIONS,
    PREDICTED,
    UNCOMPRESSED,
    Batch,
    Choice,
    Constraint,
    Decision,
    HbmBytes,
    Interval,
    Metrics,
    Parallel,
)
from planner.problem import Problem
from planner.run_notes import run_notes
from planner.space.compatibility import compatibility
from planner.space.options import NATIVE, Option, WeightOption, own_weights, weight_format

POLICIES = {"none": NONE, "swap": SWAP, "recompute": RECOMPUTE}
TIERS = {"ddr": DDR, "nvme": NVME}
BINDING_SHARE = 0.005
"""A limit with less than this share of slack is called binding."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A priced decision."""

    decision: Decision
    """As completed: nothing left out."""
    batch: Batch
    """What is priced of the batch of the replicas that decode: their caps, as far as sessions fit under them."""
    metrics: Metrics
    constraints: tuple[Constraint, ...]
    bounded_by: str
    assumptions: tuple[str, ...]
    intervals: dict[str, Interval] | None
    """80 % intervals of metrics; None at theoretical peak."""

    @property
    def violated(self) -> tuple[Constraint, ...]:
        """Limits that the decision breaks."""
        return tuple(c for c in self.constraints if c.slack < 0)


@dataclass(frozen=True, slots=True)
class _Read:
    """A decision, looked up in the catalog."""

    decision: Decision
    options: tuple[tuple[Technique, Point] | None, ...]
    weights: WeightOption
    loss: LogLoss


def evaluate(problem: Problem, decision: Decision, *, as_written: bool = False) -> Evaluation:
    """Price a decision; what it leaves out is completed and said.

    Decoding sequences and resident sessions are caps: what fits under them is priced, and said where it is less.

    Parameters
    ----------
    problem, decision
        What is asked, and what is priced.
    as_written
        Price so many sequences and sessions as the decision says, and nothing where they don't fit.

    Raises
    ------
    InputError
        With every reason why the decision makes no sense for this model and these GPUs. A decision
        that makes sense but breaks a limit, or doesn't fit, is priced.
    """
    assumptions: list[str] = []
    completed = complete(problem, decision, assumptions)
    read = _read(problem, completed)
    setting, pools, batch = _opened(problem, read, assumptions, as_written=as_written)
    candidates = _candidate(read, batch)
    priced = price(setting, candidates, pools)
    metrics = _metrics(problem, read, setting, priced)
    constraints = constraints_of(problem, completed, metrics, BOUNDS[int(priced.bound[0])])
    assumptions += run_notes(problem, completed)
    assumptions += measured_notes(problem, completed.engine) + _turns_note(problem, completed, metrics)
    intervals = _intervals(problem, read, setting, candidates, metrics)
    return Evaluation(
        completed, batch, metrics, constraints, BOUNDS[int(priced.bound[0])], tuple(assumptions), intervals
    )


def _turns_note(problem: Problem, decision: Decision, metrics: Metrics) -> list[str]:
    """Where sessions take turns on a replica, how long a question may wait for another session's turn."""
    alone = decision.serving == "aggregated" and metrics.tpot_s == metrics.step_s
    if not alone or decision.offload.policy == "none" or metrics.users <= decision.parallel.replicas:
        return []
    turn = metrics.ttft_cold_s + problem.request.output_tokens * metrics.step_s
    return [
        "sessions take turns on a replica, as no step may hold a foreign prefill chunk or only one session fits; a "
        f"question in another's turn waits for its end, up to {turn:.3g} s, which latencies here leave out"
    ]


def priced_setting(problem: Problem, decision: Decision) -> tuple[Setting, Candidates]:
    """What `evaluate` hands to the cost model for a complete decision: one candidate, and its setting.

    Raises
    ------
    InputError
        As `evaluate`.
    """
    read = _read(problem, decision)
    setting, _, batch = _opened(problem, read, [], as_written=False)
    return setting, _candidate(read, batch)


def setting_of(
    problem: Problem,
    shapes: tuple[Shape, ...],
    weight_formats: dict[str, WeightFormat],
    compression: CompressionTable,
    engine: str,
) -> Setting:
    """What all candidates of one pricing have in common."""
    return Setting(
        architecture=problem.architecture,
        hardware=problem.cluster.hardware,
        node=problem.cluster.node,
        gpus_per_node=problem.cluster.gpus_per_node,
        cluster_gpus=problem.cluster.gpus,
        workload=problem.workload,
        efficiency=efficiency_of(problem, engine),
        shapes=shapes,
        weight_formats=weight_formats,
        compression=compression,
        usd_per_gpu_hour=problem.usd_per_gpu_hour,
        timer=timer_of(problem, engine),
    )


def complete(problem: Problem, decision: Decision, assumptions: list[str]) -> Decision:
    """Fill in what a decision leaves out, and note what was filled in."""
    node = min(problem.cluster.gpus_per_node, problem.cluster.gpus)
    given = decision.model_fields_set
    if "weights" not in given:
        native = own_weights(problem).id
        decision = decision.model_copy(update={"weights": native})
        assumptions.append(f"weights: {native}, as the checkpoint has them")
    if "compression" not in given:
        assumptions.append("compression: none")
    if decision.serving == "aggregated":
        if "parallel" not in given:
            assumptions.append(f"parallel: tensor parallel over the {node} GPUs of a server")
        if "batch" not in given:
            assumptions.append("batch: one decoding sequence, the prompt in one piece")
    if "offload" not in given:
        assumptions.append("offload: none, caches stay in HBM between rounds")
    offload = decision.offload
    if offload.policy == "swap" and offload.tier is None:
        offload = offload.model_copy(update={"tier": "ddr"})
        assumptions.append("offload tier: host memory (ddr)")
    parallel = _with_tp(decision.parallel, node)
    pools = decision.pools
    if pools is not None:
        prefill = pools.prefill.model_copy(update={"parallel": _with_tp(pools.prefill.parallel, node)})
        decode = pools.decode.model_copy(update={"parallel": _with_tp(pools.decode.parallel, node)})
        pools = pools.model_copy(update={"prefill": prefill, "decode": decode})
    return decision.model_copy(update={"parallel": parallel, "pools": pools, "offload": offload})


def _with_tp(parallel: Parallel, node: int) -> Parallel:
    return parallel if parallel.tp is not None else parallel.model_copy(update={"tp": node})


def _read(problem: Problem, decision: Decision) -> _Read:
    problems: list[str] = []
    options = tuple(_choice(problem, name, getattr(decision.compression, name), problems) for name in DIMENSIONS)
    weights = _weights(problem, decision.weights, problems)
    problems += _engine_problems(problem, decision)
    problems += _split_problems(problem, decision)
    problems += _offload_problems(problem, decision)
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
    return _Read(decision, options, weights, loss)


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


def _engine_problems(problem: Problem, decision: Decision) -> list[str]:
    from catalog.schema import Engine

    if decision.engine == "any" or problem.catalog.has(Engine, decision.engine):
        return []
    known = ", ".join(engine.id for engine in problem.catalog.all(Engine))
    return [f"engine: unknown engine {decision.engine!r}; use one of {known}"]


def _split_problems(problem: Problem, decision: Decision) -> list[str]:
    parallels = {"parallel": decision.parallel}
    if decision.serving == "disaggregated":
        if decision.pools is None:
            return ["serving: disaggregated needs pools.prefill and pools.decode; add them"]
        parallels = {
            "pools.prefill.parallel": decision.pools.prefill.parallel,
            "pools.decode.parallel": decision.pools.decode.parallel,
        }
    elif decision.pools is not None:
        return ["pools: only with serving: disaggregated; remove them or change serving"]
    problems = []
    used = 0
    for where, parallel in parallels.items():
        shape = shape_of(parallel, "w")
        used += shape.gpus * parallel.replicas
        problems += [f"{where}: {what}" for what in shape_problems(problem.architecture, shape, parallel.replicas)]
        if shape.tp > problem.cluster.gpus_per_node:
            problems.append(
                f"{where}.tp: {shape.tp} exceeds the {problem.cluster.gpus_per_node} GPUs of a server; use pp"
            )
    if used > problem.cluster.gpus:
        problems.append(
            f"{' + '.join(parallels)}: tp x pp x pcp x replicas is {used} GPUs of {problem.cluster.gpus}; use fewer"
        )
    return problems


def _offload_problems(problem: Problem, decision: Decision) -> list[str]:
    offload = decision.offload
    if offload.policy != "swap" and offload.tier is not None:
        return [f"offload.tier: only with policy swap; remove it or change policy {offload.policy}"]
    if offload.tier == "nvme" and problem.cluster.node.nvme is None:
        return [f"offload.tier: {problem.cluster.node.name} has no NVMe; use ddr"]
    return []


def shape_of(parallel: Parallel, weights: str) -> Shape:
    """The shape of a replica; `complete` has filled ``tp`` in."""
    return Shape(parallel.tp or 1, parallel.pp, parallel.dcp, parallel.pcp, parallel.ep, weights)


def _opened(problem: Problem, read: _Read, assumptions: list[str], *, as_written: bool) -> tuple[Setting, Pools, Batch]:
    """What all prices of a decision have in common, and of its batch what fits."""
    decision = read.decision
    main = decision.pools.decode if decision.pools else decision
    shapes = [shape_of(main.parallel, read.weights.id)]
    if decision.pools:
        shapes.append(shape_of(decision.pools.prefill.parallel, read.weights.id))
    formats = {read.weights.id: read.weights.format}
    setting = setting_of(problem, tuple(shapes), formats, compression_table([read.options]), decision.engine)
    pools = Pools(setting)
    if as_written:
        return setting, pools, main.batch
    where = "pools.decode.batch" if decision.pools else "batch"
    return setting, pools, _that_fits(main.batch, int(pools[0].fit[0]), where, assumptions)


def _that_fits(batch: Batch, sessions: int, where: str, assumptions: list[str]) -> Batch:
    """A batch whose caps are no larger than what fits of them; as it is where not one session fits.

    Beside decoding sessions, one is in prefill or arriving. A single one may decode alone.
    """
    decoding, resident = batch.decode_sequences, batch.resident_sessions
    if sessions < 1:
        return batch
    if resident is not None and resident > sessions:
        assumptions.append(f"{where}.resident_sessions {resident}: a cap; {sessions} sessions fit a replica")
        resident = sessions
    room = resident or sessions
    most = max(1, room - 1)
    if decoding > most:
        why = (
            f"as {room} sessions fit a replica, one of them in prefill" if room > 1 else "as one session fits a replica"
        )
        assumptions.append(f"{where}.decode_sequences {decoding}: a cap; priced with {most} at a time, {why}")
        decoding = most
    return batch.model_copy(update={"decode_sequences": decoding, "resident_sessions": resident})


def _candidate(read: _Read, batch: Batch) -> Candidates:
    decision = read.decision
    pools = decision.pools
    main = pools.decode if pools else decision

    def one(value: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([value], dtype=np.int64)

    return Candidates(
        shape=one(0),
        compression=one(0),
        replicas=one(main.parallel.replicas),
        decode_sequences=one(batch.decode_sequences),
        resident_limit=one(batch.resident_sessions or 0),
        prefill_chunk=one(main.batch.prefill_chunk_tokens or 0),
        throttled=np.array([(pools.prefill if pools else main).batch.prefill_throttled]),
        policy=one(POLICIES[decision.offload.policy]),
        tier=one(TIERS[decision.offload.tier or "ddr"]),
        prefill_shape=one(1 if pools else -1),
        prefill_replicas=one(pools.prefill.parallel.replicas if pools else 0),
        prefill_pool_chunk=one((pools.prefill.batch.prefill_chunk_tokens or 0) if pools else 0),
    )


def _metrics(problem: Problem, read: _Read, setting: Setting, priced: Priced) -> Metrics:
    architecture, ctx = problem.architecture, problem.request.ctx

    def at(name: str) -> float:
        return float(getattr(priced, name)[0])

    def finite(name: str) -> float | None:
        value = at(name)
        return value if math.isfinite(value) else None

    whole = architecture.kv_bytes(ctx)
    kept = kv_bytes_per_session(problem, setting.compression)
    tier = read.decision.offload.tier
    interactions = at("interactions_per_hour")
    usd_per_hour = finite("usd_per_hour")
    tokens = interactions * problem.request.output_tokens
    confidence = problem.request.confidence
    return Metrics(
        concurrency=int(at("concurrency")),
        users=at("users"),
        sessions_per_hour=3600.0 * at("sessions_per_s"),
        interactions_per_hour=interactions,
        prefill_s=at("prefill_s"),
        decode_s=at("decode_s"),
        step_s=at("step_s"),
        tpot_s=at("tpot_s"),
        tpot_mean_s=finite("tpot_mean_s"),
        ttft_cold_s=at("ttft_cold_s"),
        ttft_warm_s=finite("ttft_warm_s"),
        switch_s=at("switch_s"),
        kv_bytes_per_session=kept,
        kv_ratio=kept / whole if whole else 1.0,
        hbm_bytes_per_gpu=HbmBytes(
            weights=at("weights_bytes"),
            kv=at("kv_bytes"),
            workspace=setting.efficiency.workspace_bytes,
            overhead=setting.efficiency.overhead_bytes,
            limit=setting.hardware.hbm * setting.efficiency.hbm_utilisation,
        ),
        ddr_bytes=at("tier_bytes") if tier == "ddr" else 0.0,
        nvme_bytes=at("tier_bytes") if tier == "nvme" else 0.0,
        quality_loss_mean=read.loss.loss_mean,
        quality_loss_at_confidence=read.loss.loss_at(confidence),
        window_loss_mean=problem.window.loss_mean,
        window_loss_at_confidence=problem.window.loss_at(confidence),
        usd_per_hour=usd_per_hour,
        usd_per_interaction=finite("usd_per_interaction"),
        usd_per_million_output_tokens=usd_per_hour / tokens * 1e6 if usd_per_hour is not None and tokens > 0 else None,
        cost_ratio_vs_4k=None,
        gpus_used=int(at("gpus")),
        gpus_idle=problem.cluster.gpus - int(at("gpus")),
        power_w=finite("power_w"),
    )


def _intervals(
    problem: Problem, read: _Read, setting: Setting, candidates: Candidates, metrics: Metrics
) -> dict[str, Interval] | None:
    """80 % interval of every predicted time and throughput: the same decision, priced at both ends of its times."""
    ends = ends_of(setting, problem, read.decision.engine)
    if ends is None:
        return None
    found = [metrics, *(_metrics(problem, read, end, price(end, candidates)) for end in ends)]
    intervals = {}
    for name in PREDICTED:
        values = [value for one in found if (value := getattr(one, name)) is not None]
        if getattr(metrics, name) is not None:
            intervals[name] = (min(values), max(values))
    return intervals


def kv_bytes_per_session(problem: Problem, table: CompressionTable) -> float:
    """Logical bytes of one session's cache at the document's length, constant states included [bytes]."""
    ctx = problem.request.ctx
    kept = float(table.stored_tokens(ctx, ctx)[0])
    narrow = float(table.element_share()[0])
    total = 0.0
    for layer in problem.architecture.layers:
        total += layer.state_bytes
        for term in layer.cache:
            size = term.stored_elements * term.element_bytes / term.stride_tokens
            if term.window_tokens is not None:
                total += size * min(ctx, term.window_tokens) * (narrow if term.compressible else 1.0)
            else:
                total += size * (kept if term.compressible else ctx)
    return total


def constraints_of(problem: Problem, decision: Decision, metrics: Metrics, bounded_by: str) -> tuple[Constraint, ...]:
    """Every limit of the request and of the hardware, with its slack; the unit is in the name."""
    request, hbm = problem.request, metrics.hbm_bytes_per_gpu
    used = hbm.weights + hbm.kv + hbm.workspace + hbm.overhead
    rows = [
        _at_most("gpus", problem.cluster.gpus, metrics.gpus_used),
        _at_most("hbm_bytes_per_gpu", hbm.limit, used, bounded_by in ("hbm", "memory")),
    ]
    tier = decision.offload.tier
    if tier is not None:
        node = problem.cluster.node
        capacity = node.host_memory if tier == "ddr" or node.nvme is None else node.nvme.capacity
        share = metrics.gpus_used / node.gpus
        rows.append(
            _at_most(f"{tier}_bytes", capacity * share, metrics.ddr_bytes + metrics.nvme_bytes, bounded_by == "ddr")
        )
    rows += [
        _row(limit, name, amount, getattr(metrics, name) or 0.0)
        for limit, amount in limits_of(request)
        for name in limit.metrics
    ]
    return tuple(rows)


def _row(limit: Limit, name: str, amount: float, value: float) -> Constraint:
    if not limit.at_least:
        return _at_most(name, amount, value)
    slack = limit.slack(amount, value)
    return Constraint(name=name, limit=amount, value=value, slack=slack, binding=slack <= BINDING_SHARE * amount)


def _at_most(name: str, limit: float, value: float, binding: bool | None = None) -> Constraint:
    slack = limit - value
    tight = slack <= BINDING_SHARE * limit if binding is None else binding
    return Constraint(name=name, limit=limit, value=value, slack=slack, binding=tight and value > 0)
