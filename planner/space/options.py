"""The options of each compression dimension and of the weights, for one request.

By default an option must be shipped by an engine that runs it on the request's GPU; ``--techniques
published`` opens everything with a sourced prior; a list of ids opens just those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from catalog.ready import Ready
from catalog.schema import Engine, Point, Technique
from planner.cost.quality import LogLoss, prior_loss
from planner.cost.replica import WeightFormat
from planner.errors import InputError
from planner.problem import Problem
from planner.service import DIMENSIONS, UNCOMPRESSED
from planner.space.ready import has_experts, has_to_be_made, making_is_known, ready_checkpoint
from planner.space.runs import Run

NATIVE = "native"
"""Weights as the checkpoint has them, where it is itself quantised."""


@dataclass(frozen=True, slots=True)
class Option:
    """A technique at one strength; without a point it is 'no technique'."""

    dimension: str
    technique: Technique | None
    point: Point | None
    loss: LogLoss
    engines: frozenset[str]
    """Engines that may run it."""

    @property
    def id(self) -> str:
        """The catalog point's id, or ``none``."""
        return self.point.id if self.point else "none"


@dataclass(frozen=True, slots=True)
class WeightOption:
    """A weight precision."""

    id: str
    """Catalog point without its ``w_``, or ``native``."""
    technique: Technique | None
    point: Point | None
    format: WeightFormat
    loss: LogLoss
    engines: frozenset[str]
    made_for: frozenset[str] = frozenset()
    """Engines for which somebody has to make the checkpoint first."""


@dataclass(slots=True)
class Dropped:
    """What isn't offered, and why: id -> reason."""

    reasons: dict[str, str]

    def add(self, name: str, reason: str) -> None:
        """Keep the first reason for a name."""
        self.reasons.setdefault(name, reason)


def dimension_options(problem: Problem, running: Iterable[Run], dropped: Dropped) -> dict[str, tuple[Option, ...]]:
    """Options per dimension, 'none' first, then by id.

    Raises
    ------
    InputError
        If ``--techniques`` names something that the catalog doesn't have, or that can't be planned.
    """
    running = tuple(running)
    everyone = frozenset(run.engine.id for run in running)
    named = _named_points(problem)
    found: dict[str, list[Option]] = {
        dimension: [Option(dimension, None, None, LogLoss(), everyone)] for dimension in DIMENSIONS
    }
    for technique in problem.catalog.all(Technique):
        if technique.dimension not in found:
            continue
        for point in technique.points:
            if point.id in UNCOMPRESSED.values() or (named is not None and point.id not in named):
                continue
            option = _option(problem, running, technique, point, named is not None, dropped)
            if option is not None:
                found[technique.dimension].append(option)
    return {name: tuple(sorted(options, key=lambda o: (o.id != "none", o.id))) for name, options in found.items()}


def _named_points(problem: Problem) -> frozenset[str] | None:
    """Points that ``--techniques`` names: none of any dimension for ``none``; None where it names a field of them."""
    text = problem.request.techniques
    if text in ("deployable", "published"):
        return None
    if text == "none":
        return frozenset()
    return frozenset().union(*named_techniques(problem).values())


def named_techniques(problem: Problem) -> dict[str, frozenset[str]]:
    """Points of each technique that ``--techniques`` names by its id; none where it names a field of them.

    Raises
    ------
    InputError
        If the catalog has no such technique.
    """
    text = problem.request.techniques
    if text in ("deployable", "published", "none"):
        return {}
    names = [name.strip() for name in text.split(",") if name.strip()]
    found: dict[str, frozenset[str]] = {}
    unknown = []
    for name in names:
        if name in ("none", "deployable", "published"):
            unknown.append(f"--techniques {text}: {name} stands alone; give it by itself, or ids only")
            continue
        try:
            if problem.catalog.has(Technique, name):
                found[name] = frozenset(point.id for point in problem.catalog.get(Technique, name).points)
            else:
                found[name] = frozenset((problem.catalog.point(name)[1].id,))
        except LookupError as error:
            unknown.append(f"--techniques: {error}")
    if unknown or not names:
        raise InputError(
            unknown or "--techniques: empty; write deployable, published, none, or ids separated by commas"
        )
    return found


def _option(
    problem: Problem,
    running: tuple[Run, ...],
    technique: Technique,
    point: Point,
    is_named: bool,
    dropped: Dropped,
) -> Option | None:
    if technique.requires_native_model:
        dropped.add(point.id, "a property of the checkpoint, priced from its config.json where it has it")
        return None
    if point.prior is None:
        dropped.add(point.id, "no sourced prior for its quality loss")
        return None
    capped = any(t.read_cap_tokens or t.stride_tokens > 1 for la in problem.architecture.layers for t in la.cache)
    if capped and technique.dimension in ("token", "attention", "head"):
        dropped.add(point.id, "the model selects tokens by itself (sparse indexer); nobody showed both together")
        return None
    open_field = is_named or problem.request.techniques == "published"
    able = frozenset(run.engine.id for run in running if _runs(run, technique, point, problem, open_field))
    if not able:
        dropped.add(point.id, _why_not_run(problem, running, technique, point, open_field))
        return None
    request = problem.request
    loss = prior_loss(point.prior, request.task, request.rounds, request.ctx)
    return Option(technique.dimension, technique, point, loss, able)


def _why_not_run(
    problem: Problem, running: tuple[Run, ...], technique: Technique, point: Point, open_field: bool
) -> str:
    if open_field and technique.per_head_budgets:
        return "heads keep different numbers of tokens, which saves nothing in a paged cache"
    shipped = sorted({s.engine for s in technique.engines if s.status == "ships" and _speaks_of(s.points, point)})
    misfits = [
        f"{run.engine.id}'s {kv_format.option} {'; '.join(run.misfits(kv_format, problem))}"
        for run in running
        for kv_format in run.engine.kv_formats
        if kv_format.technique_point == point.id
    ]
    if misfits:
        return ", ".join(dict.fromkeys(misfits))
    if shipped:
        return f"shipped by {', '.join(shipped)}, but not for this GPU, model or engine"
    return "no engine ships it"


def _runs(run: Run, technique: Technique, point: Point, problem: Problem, open_field: bool) -> bool:
    engine, capability = run.engine, run.compute_capability
    supports = [s for s in technique.engines if s.engine == engine.id and _speaks_of(s.points, point)]
    on_gpu = [s for s in supports if not s.compute_capabilities or capability in s.compute_capabilities]
    if technique.dimension == "hidden" and run.kv_formats(point.id, problem):
        # An engine may take a format that it only emulates on this GPU.
        return open_field or not on_gpu or any(s.status == "ships" for s in on_gpu)
    if technique.dimension == "hidden" and not open_field:
        return False  # An engine's formats are listed one by one; none fits.
    if any(s.status == "ships" for s in on_gpu):
        return True
    if not open_field:
        return False
    if technique.per_head_budgets and is_paged(engine):
        return any(s.status == "fork" for s in on_gpu)
    return True


def _speaks_of(points: tuple[str, ...], point: Point) -> bool:
    return not points or point.id in points


def is_paged(engine: Engine) -> bool:
    """Whether an engine keeps KV in blocks of several tokens with one table for all heads."""
    return engine.kv_block_tokens > 1


def weight_options(problem: Problem, engines: Iterable[Engine], dropped: Dropped) -> tuple[WeightOption, ...]:
    """Weight precisions: as the checkpoint is, and those that an engine loads on this GPU.

    Raises
    ------
    InputError
        If ``--weights`` names a precision that isn't among them.
    """
    engines = tuple(engines)
    everyone = frozenset(engine.id for engine in engines)
    if problem.checkpoint is not None:
        return _chosen_weights(problem.request.weights, [checkpoint_weights(problem, engines)])
    found = [native_weights(problem, everyone)]
    open_field = problem.request.techniques == "published"
    named = problem.request.weights != "any"
    for technique in problem.catalog.all(Technique):
        for point in technique.points if technique.dimension == "weights" else ():
            name = point.id.removeprefix("w_")
            if found[0].id == NATIVE or name == found[0].id:
                continue
            able = frozenset(engine.id for engine in engines if loads(problem, engine, point.id))
            if not able or point.prior is None:
                dropped.add(point.id, "no engine loads it on this GPU" if not able else "no sourced prior")
                continue
            made = frozenset(engine.id for engine in engines if has_to_be_made(problem, engine, point.id))
            if not (open_field or named or making_is_known(problem)):
                able -= made
                if not able:
                    dropped.add(point.id, f"nobody publishes one or has shown how; --weights {name} opens it")
                    continue
            request = problem.request
            loss = prior_loss(point.prior, request.task, request.rounds, request.ctx)
            weights = weight_format(point, problem)
            found.append(WeightOption(name, technique, point, weights, loss, everyone if open_field else able, made))
    return _chosen_weights(problem.request.weights, found)


def loads(problem: Problem, engine: Engine, point: str) -> bool:
    """Whether an engine runs weights of a precision on the request's GPU."""
    capability = problem.cluster.hardware.compute_capability
    formats = (
        f for f in engine.weight_formats if f.technique_point == point and (f.experts or not has_experts(problem))
    )
    if any(capability in f.compute_capabilities for f in formats):
        return True
    ready = ready_checkpoint(problem, engine, point)
    return ready is not None and not _unpacks(problem, ready)


def _unpacks(problem: Problem, ready: Ready) -> bool:
    """Whether an engine only unpacks weights that the GPU could multiply in: slower than their precision is priced."""
    return ready.format.weight_only and weight_format(_point(problem, ready), problem).flops_precision != "bf16"


def _point(problem: Problem, ready: Ready) -> Point:
    return problem.catalog.point(str(ready.checkpoint.point))[1]


def checkpoint_weights(problem: Problem, engines: Iterable[Engine]) -> WeightOption:
    """The weights of a ready checkpoint that was asked for by name.

    Raises
    ------
    InputError
        If the catalog can't price its precision, or no engine is known to load it here.
    """
    ready = problem.checkpoint
    if ready is None:
        raise ValueError("no checkpoint was asked for")
    other = f"ask for {problem.hub_id} and let its weights be chosen"
    if ready.point is None:
        what = (
            " ".join(part for part in (ready.quant_method, ready.algorithm) if part) or "of a method that isn't known"
        )
        raise InputError(f"--model {ready.hub_id}: its weights ({what}) can't be priced yet; {other}")
    technique, point = problem.catalog.point(ready.point)
    engines = tuple(engines)
    able = frozenset(engine.id for engine in engines if ready_checkpoint(problem, engine, point.id) is not None)
    if not able:
        gpu = problem.cluster.hardware.name
        named = problem.request.engine != "any"
        who = f"{problem.request.engine} isn't" if named else "none of the engines here is"
        raise InputError(f"--model {ready.hub_id}: {who} known to load {ready.quant_method} on {gpu}; {other}")
    if point.prior is None:
        raise InputError(f"--model {ready.hub_id}: nobody measured what {point.id} costs in quality; {other}")
    request = problem.request
    loss = prior_loss(point.prior, request.task, request.rounds, request.ctx)
    found = [one for engine in engines if (one := ready_checkpoint(problem, engine, point.id)) is not None]
    weights = weight_format(point, problem)
    if any(_unpacks(problem, one) for one in found):
        weights = WeightFormat(point.weight_bytes, flops_precision="bf16")
    return WeightOption(point.id.removeprefix("w_"), technique, point, weights, loss, able)


def own_weights(problem: Problem) -> WeightOption:
    """The weights that a request's checkpoint comes with: those of a ready one that was named, else the model's own.

    Raises
    ------
    InputError
        If no engine is known to load the checkpoint that was named.
    """
    if problem.checkpoint is not None:
        return checkpoint_weights(problem, problem.engines)
    return native_weights(problem, frozenset())


def native_weights(problem: Problem, engines: frozenset[str]) -> WeightOption:
    """The checkpoint's own precision: bf16, or what its ``quantization_config`` says."""
    bits = problem.architecture.native_weight_bits
    if bits is None or bits >= 16:
        return WeightOption("bf16", None, None, WeightFormat(), LogLoss(), engines)
    fp8 = bits == 8.0 and problem.cluster.hardware.flops.fp8 is not None
    only_experts = bits < 8.0 and any(layer.experts for layer in problem.architecture.layers)
    weights = WeightFormat(bits / 16.0, experts_only=only_experts, flops_precision="fp8" if fp8 else "bf16")
    return WeightOption(NATIVE, None, None, weights, LogLoss(), engines)


def weight_format(point: Point, problem: Problem) -> WeightFormat:
    """What a catalog point does to bytes and FLOP/s; hardware without the precision multiplies in bf16."""
    precision = point.weight_compute
    if getattr(problem.cluster.hardware.flops, precision) is None:
        precision = "bf16"
    return WeightFormat(point.weight_bytes, flops_precision=precision)


def _chosen_weights(name: str, found: list[WeightOption]) -> tuple[WeightOption, ...]:
    if name == "any":
        return tuple(sorted(found, key=lambda option: (option.point is not None, option.id)))
    wanted = name.lower().removeprefix("w_")
    chosen = [option for option in found if option.id == wanted]
    if not chosen and wanted == "bf16" and found[0].id == NATIVE:
        chosen = [WeightOption("bf16", None, None, WeightFormat(), LogLoss(), found[0].engines)]
    if not chosen:
        known = ", ".join(["any", *sorted(option.id for option in found)])
        raise InputError(f"--weights {name!r}: not available for this model on these GPUs; use one of {known}")
    return tuple(chosen)
