"""What the planner would change in a running deployment, and what that buys.

import_text   a command or a manifest becomes a decision
price_running what it gives at the best load that it can carry
make_plan     the best decision for the same model, GPUs, session and limits
advise        the difference: fields, each priced alone too; metrics; flags
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.load import Catalog
from planner.decision import Decision
from planner.emit.carried import Fate
from planner.emit.running import Running
from planner.errors import InputError
from planner.importing import Imported, catalog_model, import_text, running_server
from planner.importing.command import Neighbour, alone
from planner.importing.defaults import Scheduling, scheduling
from planner.pipeline import make_plan
from planner.plan import Document, Metrics
from planner.price import Evaluation, evaluate
from planner.problem import Problem, resolve
from planner.request import Request, read_request
from planner.run_notes import run_notes
from planner.search.solver import Settings
from planner.service import DIMENSIONS, Choice, Service
from planner.space.options import NATIVE, own_weights
from planner.verify import objective_value
from planner.whatif.flag_changes import FlagChange, flag_changes, planned_launches, planned_scheduling
from planner.whatif.running import Priced, price_running

WORTH = 1e-3
"""Relative: a smaller gain in the objective is called nothing."""
_SAME = 0.01
"""Relative: where vLLM's own allocation gives less than the plan by more than this, its figure is compared."""
METRICS = (
    "interactions_per_hour",
    "users",
    "concurrency",
    "ttft_full_s",
    "warm_ttft_full_s",
    "itl_full_s",
    "quality_loss_mean",
    "quality_loss_at_confidence",
    "usd_per_interaction",
    "gpus_used",
)
"""What is compared, in the order of the output."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of the decision that the planner would change."""

    field: str
    now: str
    planned: str
    alone: Metrics | None
    """Metrics with this part of the plan alone, at the best load; None where alone it makes no sense or fits not."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What runs, what would be best, and the difference."""

    imported: Imported
    request: Request | None
    """The question under which both are priced; None where they can't be."""
    running: Priced | None
    plan: Document | None
    planned: Metrics | None
    """What the plan gives, priced as what runs is: with the sessions that vLLM itself would hold."""
    changes: tuple[Change, ...]
    """Empty: nothing is worth changing."""
    flags: tuple[FlagChange, ...]
    notes: tuple[str, ...]
    """What had to be assumed to price it, and what is wrong with what runs."""
    unpriced: str | None = None
    """Why there is no price."""
    server: Running | None = None
    """What clients see of the server, which files of the plan keep."""
    fates: tuple[Fate, ...] = ()
    """What becomes of each of its flags when the plan takes its place."""

    @property
    def broken(self) -> tuple[str, ...]:
        """Limits that what runs doesn't keep."""
        return tuple(row.name for row in self.running.evaluation.violated) if self.running else ()


def advise(
    text: str,
    asked: Mapping[str, str | None],
    catalog: Catalog,
    *,
    beside: Decision | None = None,
    instances: int | None = None,
    settings: Settings | None = None,
    neighbour: Neighbour = alone,
) -> Advice:
    """Price a running deployment and compare it with the best plan for the same question.

    Parameters
    ----------
    text
        A command line, a script, a compose file or manifests.
    asked
        Options of a request; ``gpus`` is needed, ``ctx`` defaults to the longest document that is served.
    catalog
        The facts.
    beside
        The decision of the ``plan.json`` that lies beside the file.
    instances
        Servers like the one in a command line; None: one.
    settings
        Time limit, workers and seed of the solver.
    neighbour
        Files beside the one that is read.

    Raises
    ------
    InputError
        If the text starts no vLLM server, or the options or the decision make no sense.
    """
    gpus = asked.get("gpus")
    if gpus is None:
        raise InputError("--gpus: missing; add the GPUs that it runs on, for example 8xA100")
    imported = import_text(text, gpus, catalog, beside, neighbour)
    served = imported.flags.get("--served-model-name")
    name = served[0] if isinstance(served, list) and served else served
    model, note = catalog_model(imported.model, str(name) if name else None, catalog)
    model = asked.get("model") or model
    unpriced = _unpriced(imported, model)
    if unpriced is not None:
        return Advice(imported, None, None, None, None, (), (), (), unpriced)
    notes = [note] if note is not None and asked.get("model") is None else []
    request = _request({**asked, "model": model}, imported, catalog, notes)
    problem = resolve(request, catalog)
    limits = scheduling(imported, problem.cluster.hardware)
    decision = _assumed(problem, imported, limits, instances, notes)
    imported = replace(imported, decision=imported.decision.model_copy(update={"weights": decision.weights}))
    longest = imported.context_tokens or problem.lengths.declared_tokens
    try:
        running = price_running(problem, decision, limits, longest)
    except InputError as error:
        raise InputError([f"what runs, on --gpus {gpus}: {text}" for text in error.problems]) from None
    notes += [*limits.notes, *run_notes(problem, decision), *_about(problem, running, limits, longest)]
    plan = make_plan(request, catalog, settings=settings)
    if plan.decision is None:
        return Advice(imported, request, running, plan, None, (), (), tuple(notes))
    server = running_server(imported, problem)
    launches, becomes = planned_launches(plan, catalog, notes, server)
    services = plan.decision.services
    planned = _planned(problem, plan.decision, planned_scheduling(launches), notes)
    changes: tuple[Change, ...] = ()
    flags: tuple[FlagChange, ...] = ()
    if _worth(problem, running, planned):
        if len(services) == 1:
            changes = _changes(problem, running, services[0], decision, limits, longest)
        else:
            kinds = " beside ".join(map(_serving, services))
            changes = (Change("serving", _serving(running.evaluation.service), kinds, None),)
        flags = flag_changes(imported, launches)
    return Advice(
        imported, request, running, plan, planned.metrics, changes, flags, tuple(notes), server=server, fates=becomes
    )


def _unpriced(imported: Imported, model: str | None) -> str | None:
    if model is None:
        named = f"the catalog has no model {imported.model!r}" if imported.model else "the command names no model"
        return f"{named}; add --model ID (plan catalog list models) or --model PATH/config.json to price it"
    if imported.unpriced:
        return f"{'; '.join(imported.unpriced)}: what depends on it can't be priced; give the value in the file"
    open_pools = [field for field in imported.undetermined if field in ("pools.prefill", "pools.decode")]
    if open_pools:
        return f"{open_pools[0]} isn't in the file; give manifests or a compose file with both pools to price it"
    return None


def _request(asked: Mapping[str, str | None], imported: Imported, catalog: Catalog, notes: list[str]) -> Request:
    """The request under which both are priced: vLLM again, and the longest document, unless asked otherwise."""
    values: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    values.setdefault("engine", "vllm")
    if "ctx" in values:
        return read_request(values)
    probe = read_request({**values, "ctx": "1K"})
    longest = imported.context_tokens or resolve(probe, catalog).lengths.declared_tokens
    growth = probe.rounds * (probe.question_tokens + probe.output_tokens)
    if longest <= growth:
        raise InputError(
            f"--ctx: missing; the server takes {longest} tokens, {probe.rounds} rounds of questions and answers alone "
            f"are {growth}; add --ctx, or fewer --rounds"
        )
    notes.append(
        f"no --ctx given: documents of {longest - growth} tokens, the longest whose {probe.rounds} rounds of "
        f"{probe.question_tokens} + {probe.output_tokens} tokens stay within the served {longest}"
    )
    return read_request({**values, "ctx": longest - growth})


def _assumed(
    problem: Problem, imported: Imported, limits: Scheduling, instances: int | None, notes: list[str]
) -> Service:
    """The imported decision with what no flag says filled in as vLLM would, and said."""
    decision = imported.decision
    listed = None if imported.model is None else problem.catalog.checkpoint(imported.model)
    if listed is not None and listed[1].point is not None:
        decision = decision.model_copy(update={"weights": listed[1].point.removeprefix("w_")})
    native = own_weights(problem).id
    if native == NATIVE and decision.weights in ("bf16", "fp8"):
        decision = decision.model_copy(update={"weights": NATIVE})
    elif "weights" in imported.undetermined:
        decision = decision.model_copy(update={"weights": native})
        notes.append(f"weights: taken to be {native}, as the catalog's checkpoint has them")
    if "compression.hidden" in imported.undetermined:
        notes.append("compression.hidden: the KV format isn't known here; priced as bf16")
    batch = decision.batch
    if decision.pools is None and "batch.prefill_chunk_tokens" in imported.undetermined:
        batch = batch.model_copy(update={"prefill_chunk_tokens": max(1, limits.batched_tokens - 1)})
    parallel = decision.parallel
    if instances is not None and decision.pools is None:
        each = decision.parallel.replicas if "parallel.replicas" not in imported.undetermined else 1
        data = int(imported.flags.get("--data-parallel-size", 1)) if each == 1 else each
        parallel = parallel.model_copy(update={"replicas": instances * max(1, data)})
    elif "parallel.replicas" in imported.undetermined:
        notes.append("a command starts one server; priced as one (--instances N if there are more like it)")
    return decision.model_copy(update={"batch": batch, "parallel": parallel})


def _about(problem: Problem, running: Priced, limits: Scheduling, longest: int) -> list[str]:
    """What is worth knowing of what runs, beside its metrics."""
    notes = []
    end = problem.workload.end_tokens
    if end > longest:
        notes.append(
            f"sessions end at {end} tokens, the server takes {longest}: it refuses their last rounds; raise "
            "--max-model-len or plan with a shorter --ctx"
        )
    cap = limits.sequences
    if running.fits and running.sequences + 1 < cap:
        many = "1 sequence decodes" if running.sequences == 1 else f"{running.sequences} sequences decode"
        notes.append(
            f"at its best load {many} at a time; --max-num-seqs lets {cap} in, and those beyond what fits push other "
            "sessions' caches out"
        )
    planned = running.evaluation.metrics.hbm_bytes_per_gpu.limit / problem.cluster.hardware.hbm
    if limits.memory_share > planned * (1 + 1e-9):
        notes.append(
            f"it may take {limits.memory_share:.0%} of HBM; priced with the {planned:.0%} that the catalog has for "
            "vLLM, since the rest is needed by what vLLM doesn't count"
        )
    return notes


def _planned(problem: Problem, decision: Decision, limits: Scheduling | None, notes: list[str]) -> Evaluation:
    """Price the plan as it would be started, so that both sides are measured with the same rule."""
    evaluation = evaluate(problem, decision)
    if limits is None or len(decision.services) > 1:
        return evaluation
    started = price_running(problem, decision.service, limits, problem.workload.end_tokens)
    if not started.fits:
        return evaluation
    metrics, held = evaluation.metrics, started.evaluation.metrics
    if held.interactions_per_hour < metrics.interactions_per_hour * (1 - _SAME):
        notes.append(
            f"vLLM, which pads and groups this model's layers, holds {held.concurrency} sessions in the memory of the "
            f"plan's {metrics.concurrency}: {held.interactions_per_hour:.0f} of {metrics.interactions_per_hour:.0f} "
            "interactions/h, which is what is compared here"
        )
        return started.evaluation
    return evaluation


def _worth(problem: Problem, running: Priced, planned: Evaluation) -> bool:
    """Whether the plan is better than what runs by more than nothing, or keeps limits that what runs breaks."""
    if not running.fits or running.evaluation.violated:
        return True
    now = objective_value(problem, running.evaluation)
    best = objective_value(problem, planned)
    return now > best * (1 + WORTH)


def _changes(
    problem: Problem, running: Priced, planned: Service, decision: Service, limits: Scheduling, longest: int
) -> tuple[Change, ...]:
    """Every part of the decision that differs, with what it gives alone."""
    now = running.evaluation.service

    def alone(update: Mapping[str, Any], under: Scheduling = limits) -> Metrics | None:
        try:
            priced = price_running(problem, decision.model_copy(update=dict(update)), under, longest)
        except InputError:
            return None
        return priced.evaluation.metrics if priced.fits else None

    found = []
    if now.engine != planned.engine:
        found.append(Change("engine", now.engine, planned.engine, None))
    if now.weights != planned.weights:
        found.append(Change("weights", now.weights, planned.weights, alone({"weights": planned.weights})))
    for name in DIMENSIONS:
        old, new = getattr(now.compression, name), getattr(planned.compression, name)
        if _choice(old) != _choice(new):
            with_it = decision.compression.model_copy(update={name: new})
            found.append(Change(f"compression.{name}", _choice(old), _choice(new), alone({"compression": with_it})))
    if now.serving != planned.serving or now.pools is not None:
        if now.serving != planned.serving or now.pools != planned.pools:
            found.append(Change("serving", _serving(now), _serving(planned), None))
    else:
        if _split(now) != _split(planned):
            found.append(Change("parallel", _split(now), _split(planned), alone({"parallel": planned.parallel})))
        if _batch(now) != _batch(planned):
            found.append(Change("batch", _batch(now), _batch(planned), alone(*_batch_alone(decision, planned, limits))))
    if now.offload != planned.offload:
        found.append(Change("offload", _offload(now), _offload(planned), alone({"offload": planned.offload})))
    return tuple(found)


def _batch_alone(decision: Service, planned: Service, limits: Scheduling) -> tuple[dict[str, Any], Scheduling]:
    batch = planned.batch
    sequences = batch.decode_sequences
    under = replace(limits, sequences=sequences + 1)
    if batch.prefill_chunk_tokens is not None:
        under = replace(under, batched_tokens=batch.prefill_chunk_tokens + sequences)
    return {"batch": batch}, under


def _choice(choice: Choice) -> str:
    if choice.technique == "none":
        return "none"
    return choice.point or (choice.technique if choice.strength is None else f"{choice.technique}:{choice.strength:g}")


def _split(decision: Service) -> str:
    parallel = decision.parallel
    parts = [f"{name} {getattr(parallel, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
    kept = [part for part in parts if not part.endswith(" 1")] or ["tp 1"]
    return f"{' x '.join(kept)}, {parallel.replicas} replica{'s' if parallel.replicas != 1 else ''}"


def _batch(decision: Service) -> str:
    batch = decision.batch
    chunk = f"chunks of {batch.prefill_chunk_tokens}" if batch.prefill_chunk_tokens else "prompts in one piece"
    yields = ", long prefills yield" if batch.prefill_throttled else ""
    return f"{batch.decode_sequences} decoding, {chunk}{yields}"


def _offload(decision: Service) -> str:
    tier = f" to {decision.offload.tier}" if decision.offload.tier else ""
    return f"{decision.offload.policy}{tier}"


def _serving(decision: Service) -> str:
    if decision.pools is None:
        return f"aggregated ({_split(decision)}; {_batch(decision)})"
    pools = []
    for role in ("prefill", "decode"):
        pool = getattr(decision.pools, role)
        one = Service(parallel=pool.parallel, batch=pool.batch)
        pools.append(f"{role}: {_split(one)}, {_batch(one)}")
    return f"disaggregated ({'; '.join(pools)})"
