"""The question against the facts: a request with its model, GPUs, session and price looked up.

`resolve` collects everything that is wrong with a request and tells it at once. What it had to
assume is kept in words, since a default that shapes an answer must be visible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from catalog.architecture import Architecture, UnknownArchitectureError, read_config
from catalog.architecture.read import load_config, read_config_file
from catalog.errors import UnknownEntryError
from catalog.identity import all_names, family_of, hub_id_of, served_name_of
from catalog.load import Catalog
from catalog.schema import Checkpoint, Checkpoints, Engine, Model, Price
from catalog.units import format_tokens
from catalog.window import Window, same_positions, window_of
from planner.cost.quality import LogLoss, window_loss
from planner.cost.workload import Workload
from planner.default_model import choice_text, default_model
from planner.errors import InputError
from planner.limits import limits_of
from planner.measured.machine import has_kernels
from planner.objectives import OBJECTIVES
from planner.request import Cluster, Request, resolve_cluster
from planner.targets import PLATFORMS, check_targets, left_out

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A request, resolved."""

    request: Request
    catalog: Catalog
    cluster: Cluster
    model_id: str
    """Catalog id, or the path that was given."""
    model_entry: Model | None
    hub_id: str | None
    """The checkpoint that was asked for, as the hub spells it; None for a path, or where nobody publishes weights."""
    checkpoint: Checkpoint | None
    """The ready checkpoint that was asked for by its hub id: its weights are what it has."""
    served_name: str
    """Name of the model for clients: as it was asked for."""
    architecture: Architecture
    workload: Workload
    engines: tuple[Engine, ...]
    """Engines that may serve it: the named one, or all that run on this GPU."""
    price: Price | None
    """Offer behind `usd_per_gpu_hour`; None where the request names a price or nobody offers the GPU."""
    usd_per_gpu_hour: float | None
    cluster_choice: str | None = None
    """How many GPUs were taken, and whether fewer do, where the request leaves it open."""
    model_choice: str | None = None
    """Which model was taken, and why, where the request names none."""
    assumptions: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The model's ``config.json``, parsed: the catalog's, or the file that was given."""
        return self.model_entry.config if self.model_entry is not None else load_config(Path(self.model_id))

    @cached_property
    def lengths(self) -> Window:
        """How long a context the model holds, by its training and by which method."""
        own = window_of(self.architecture, self.config, self.model_entry)
        if self.model_entry is not None or self.workload.end_tokens <= own.declared_tokens:
            return own
        alike = same_positions(self.config, self.catalog.all(Model))
        return own if alike is None else window_of(self.architecture, self.config, alike)

    @property
    def window_tokens(self) -> int:
        """Longest context by the model's training, or by a method that engines run [tokens]."""
        return self.lengths.reach_tokens

    @property
    def most_gpus(self) -> int:
        """GPUs that a plan may use: the cluster's, or fewer where a limit on what they add up to allows no more."""
        gpus, hardware = self.cluster.gpus, self.cluster.hardware
        allowed = [limit.gpus(amount, hardware) for limit, amount in limits_of(self.request) if limit.per_gpu]
        return min([gpus, *allowed])

    @property
    def model_name(self) -> str:
        """The model as it was asked for, or the id of the one that was chosen."""
        return self.request.model or self.model_id

    @property
    def window(self) -> LogLoss:
        """Loss from running beyond the trained window, which no decision changes."""
        return window_loss(self.request.ctx, self.lengths.trained_tokens, self.window_tokens)


def resolve(request: Request, catalog: Catalog) -> Problem:
    """Look up everything that a request names.

    Raises
    ------
    InputError
        With every problem of the request: unknown GPU, model or engine, a session that makes no sense.
    """
    problems: list[str] = []
    assumptions: list[str] = []
    cluster = _try(problems, "--gpus", lambda: resolve_cluster(request.gpus, catalog))
    engines = _try(problems, "--engine", lambda: _engines(request, catalog, cluster, assumptions))
    model = _try(problems, "--model", lambda: _model(request, catalog, cluster, engines))
    problems += _session_problems(request) + _power_problems(request, cluster)
    if problems or cluster is None or model is None or engines is None:
        raise InputError(problems)
    model_id, architecture, entry, choice = model
    ready = _ready(request.model, catalog)
    if request.target is not None:
        cluster = _written(request, cluster, assumptions)
    if cluster.assumed_node:
        assumptions.append(f"--gpus {request.gpus}: servers taken to be {cluster.node.name}")
    offer = None
    if request.usd_per_gpu_hour is None:
        offer = next((o for o in catalog.offers(cluster.hardware) if o.kind == "on-demand"), None)
    problem = Problem(
        request=request,
        catalog=catalog,
        cluster=cluster,
        model_id=model_id,
        model_entry=entry,
        hub_id=_hub_id(entry, request.model, ready),
        checkpoint=ready,
        served_name=ready.hub_id if ready is not None else _served_name(model_id, request.model, entry),
        architecture=architecture,
        workload=workload_of(request),
        engines=engines,
        price=offer,
        usd_per_gpu_hour=offer.usd_per_gpu_hour if offer else request.usd_per_gpu_hour,
        model_choice=choice,
        assumptions=tuple(assumptions),
    )
    return replace(problem, warnings=tuple(_model_warnings(problem)))


def workload_of(request: Request) -> Workload:
    """The session of a request; at theoretical peak everything is priced at the document's length."""
    return Workload(
        ctx_tokens=request.ctx,
        rounds=request.rounds,
        question_tokens=request.question_tokens,
        output_tokens=request.output_tokens,
        think_s=request.think_time,
        shared_prefix_tokens=request.shared_prefix_tokens,
        growth=request.efficiency != "peak",
    )


def _try(problems: list[str], option: str, look_up: Callable[[], T]) -> T | None:
    try:
        return look_up()
    except InputError as error:
        problems.extend(error.problems)
    except (UnknownEntryError, UnknownArchitectureError) as error:
        problems.append(f"{option}: {error}")
    return None


def _session_problems(request: Request) -> list[str]:
    problems = []
    if request.shared_prefix_tokens >= request.ctx:
        problems.append(
            f"--shared-prefix-tokens {request.shared_prefix_tokens}: isn't shorter than --ctx {request.ctx}; "
            "the shared prefix is the beginning of the document"
        )
    if OBJECTIVES[request.objective].needs_users and request.users is None:
        problems.append(
            f"--objective {request.objective}: add --users N; one user alone is always served fastest, and without loss"
        )
    return problems


def _power_problems(request: Request, cluster: Cluster | None) -> list[str]:
    """Limits on what GPUs add up to, of a GPU whose share nobody knows."""
    if cluster is None:
        return []
    gpu = cluster.hardware
    return [
        f"{limit.typed(amount)}: the catalog has no {limit.per_gpu} for {gpu.id}; write it with its source into a "
        f"catalog/hardware/{gpu.id}.yaml of your own, or leave {limit.option} out"
        for limit, amount in limits_of(request)
        if limit.per_gpu is not None and getattr(gpu, limit.per_gpu) is None
    ]


def _model(
    request: Request, catalog: Catalog, cluster: Cluster | None, engines: tuple[Engine, ...] | None
) -> tuple[str, Architecture, Model | None, str | None] | None:
    name = request.model
    if name is None:
        if cluster is None or engines is None:
            return None  # what is wrong with them is told
        entry, default = default_model(request.ctx, catalog, cluster, engines)
        return entry.id, _architecture(catalog, entry.id), entry, choice_text(entry, default, request.ctx)
    if catalog.has(Model, name):
        entry = catalog.get(Model, name)
        return entry.id, _architecture(catalog, entry.id), entry, None
    listed = catalog.checkpoint(name)
    if listed is not None:
        entry = catalog.get(Model, listed[0])
        return entry.id, _architecture(catalog, entry.id), entry, None
    path = Path(name).expanduser()
    if path.exists() or path.suffix == ".json" or name.startswith((".", "/", "~")):
        return str(path), read_config_file(path), None, None
    raise _unknown_model(name, catalog)


@lru_cache(maxsize=64)
def _architecture(catalog: Catalog, model: str) -> Architecture:
    """Read once: changed requests about a model share what is known of its times, which goes by the object."""
    return read_config(catalog.get(Model, model).config)


def _unknown_model(name: str, catalog: Catalog) -> UnknownEntryError:
    family = family_of(name, catalog)
    if family is not None and "/" in name:
        hint = (
            f"(the catalog doesn't list it; if it is a fine-tune or a quantisation of {family}, plan with "
            f"--model {family}, and emit with --checkpoint {name})"
        )
        return UnknownEntryError("models", name, [], hint)
    known = [spelling for model in catalog.all(Model) for spelling in all_names(model)]
    known += [ready.hub_id for entry in catalog.all(Checkpoints) for ready in entry.checkpoints]
    return UnknownEntryError("models", name, known, "(plan catalog list models; the path of a config.json works too)")


def _ready(name: str | None, catalog: Catalog) -> Checkpoint | None:
    """Return the ready checkpoint that a name means, where it means no model."""
    found = None if name is None or catalog.has(Model, name) else catalog.checkpoint(name)
    return None if found is None else found[1]


def _hub_id(entry: Model | None, asked: str | None, ready: Checkpoint | None) -> str | None:
    if entry is None:
        return None
    return hub_id_of(entry, ready.base if ready is not None else asked or entry.id)


def _served_name(model_id: str, asked: str | None, entry: Model | None) -> str:
    if entry is not None:
        return served_name_of(entry, asked or entry.id)
    path = Path(model_id).absolute()
    folder = path.parent if path.is_file() else path
    return folder.name.lstrip("-") or "model"  # a leading dash would be read as a flag


def _model_warnings(problem: Problem) -> Iterator[str]:
    entry, ctx, lengths = problem.model_entry, problem.request.ctx, problem.lengths
    said, bits = problem.architecture.quantised_by, problem.architecture.native_weight_bits
    if said is not None and bits is None:
        yield (
            f"the checkpoint is quantised by {said}, which isn't understood here: its weights are priced at 16 bits, "
            "more than they take; whether an engine loads them isn't known"
        )
    if entry is not None and entry.config_grade == "recalled":
        yield (
            f"the config of {problem.model_id} was written down from memory, so its sizes and times may be off; give "
            "--model the path of the real config.json before you rely on them"
        )
    if ctx <= lengths.trained_tokens:
        return
    trained, name = format_tokens(lengths.trained_tokens), problem.model_id
    if ctx <= lengths.reach_tokens:
        step = next((step for step in lengths.extension.steps if step.to_tokens >= ctx), None)
        how = f"YaRN with factor {step.factor:g}, as its publisher says" if step else "a method of its publisher's"
        yield (
            f"{format_tokens(ctx)} tokens are beyond the {trained} that {name} was trained for, and within the "
            f"{format_tokens(lengths.reach_tokens)} that it reaches by {how}; expect somewhat worse answers"
        )
        return
    fitting = [m for m in problem.catalog.all(Model) if m.config_grade != "recalled" and m.trained_tokens >= ctx]
    fitting.sort(key=lambda m: (m.trained_tokens, m.id))
    names = ", ".join(model.id for model in fitting[:4])
    instead = f"trained for it: {names}" if names else "no model of the catalog is trained for it"
    held = format_tokens(lengths.reach_tokens)
    if lengths.extension.method == "dca":
        held += f" (no engine runs dual chunk attention, by which it would reach {lengths.extension.to_tokens})"
    reached = "was trained for" if lengths.reach_tokens == lengths.trained_tokens else "reaches"
    yield (
        f"{format_tokens(ctx)} tokens are beyond the {held} that {name} {reached}; "
        f"expect worse answers than any compression costs ({instead})"
    )


def _written(request: Request, cluster: Cluster, assumptions: list[str]) -> Cluster:
    """The cluster that a request's targets can use: one server of it where a platform has one."""
    assert request.target is not None  # noqa: S101
    _, platforms, _ = check_targets(request.target)
    without = left_out(request.target)
    how = f"planned without {', '.join(without)}" if without else "only what its files can express is planned"
    assumptions.append(f"--target {request.target}: {how}")
    if cluster.nodes > 1 and any(PLATFORMS[name].one_server for name in platforms):
        assumptions.append(f"--target {request.target}: one of the {cluster.nodes} servers is used")
        return replace(cluster, gpus=cluster.gpus_per_node)
    return cluster


def _engines(
    request: Request, catalog: Catalog, cluster: Cluster | None, assumptions: list[str]
) -> tuple[Engine, ...] | None:
    named = request.engine
    targets = check_targets(request.target)[0] if request.target is not None else []
    if targets and named not in ("any", targets[0]):
        raise InputError(f"--engine {named} and --target {targets[0]} are two engines; name one")
    named = targets[0] if targets else named
    if named != "any":
        engine = catalog.get(Engine, named)
        if cluster is not None and not runs_on(engine, cluster.hardware.compute_capability):
            gpus = ", ".join(engine.compute_capabilities)
            raise InputError(
                f"--engine {named}: {engine.name} {engine.version} doesn't run on {cluster.hardware.name} "
                f"(capability {cluster.hardware.compute_capability}; it has {gpus}); leave --engine out"
            )
        return (engine,)
    if cluster is None:
        return None
    capability = cluster.hardware.compute_capability
    found = tuple(e for e in catalog.all(Engine) if e.continuous_batching and runs_on(e, capability))
    if not found:
        raise InputError(f"--gpus {request.gpus}: no engine of the catalog runs on {cluster.hardware.name}")
    if request.efficiency == "peak":
        return found
    # Another engine's kernels say what an engine may reach, not that it's faster than those measured.
    measured = tuple(engine for engine in found if has_kernels(catalog, engine.id))
    others = ", ".join(engine.id for engine in found if engine not in measured)
    if measured and others:
        assumptions.append(f"not chosen without being named by --engine, as nobody measured their kernels: {others}")
    return measured or found


def runs_on(engine: Engine, capability: str) -> bool:
    """Whether an engine runs on GPUs of a compute capability."""
    return capability in engine.compute_capabilities
