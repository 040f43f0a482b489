"""What an engine does with a request's model, on its GPU, at its length: whether it starts, and how.

The facts are the catalog's: which architectures an engine has (``catalog/engine_architectures``), what
attention it has on which GPU (``catalog/engines``), and its rules (``catalog/engine_rules``). Opening the
space, pricing a decision by hand and writing files all ask here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.engine_models import EngineModels, Implementation, models_of
from catalog.schema import Engine, EngineRule, KvFormat
from catalog.units import format_tokens
from planner.cost.workload import Workload
from planner.problem import Problem
from planner.space.conditions import INNER, Subject, applies, architectures_of, value_of


@dataclass(frozen=True, slots=True)
class Run:
    """One engine with one request."""

    engine: Engine
    version: str
    compute_capability: str
    implementation: Implementation | None
    """How the engine has the architecture; None: it hasn't, or the config doesn't name it."""
    refusals: tuple[str, ...] = ()
    """Why it can't run the model here, each to be read after the engine's name; empty: it can."""
    excluded: Mapping[str, str] | None = None
    """KV formats, by the engine's own name, that the model can't be kept in here -> why."""
    backends: Mapping[str, str] | None = None
    """KV format, by the engine's own name, or ``*`` -> attention kernels that it takes, where it has no choice."""
    kv_cache_dtype: str | None = None
    """What stands for KV in the engine's own precision, where its usual word is refused."""
    environment: Mapping[str, str] | None = None
    flags: tuple[tuple[str, str | bool], ...] = ()
    overrides: Mapping[str, Any] | None = None
    """Changes to the config with which it starts."""
    told: tuple[str, ...] = ()
    """What an operator should know."""
    named: bool = True
    """Whether the config names an architecture; without, no engine loads it."""

    @property
    def who(self) -> str:
        """The engine and its version."""
        return f"{self.engine.id} {self.version}"

    def kv_formats(self, point: str, problem: Problem) -> list[KvFormat]:
        """The engine's formats of a catalog point that keep this model's KV on this GPU."""
        return [f for f in self.engine.kv_formats if f.technique_point == point and not self.misfits(f, problem)]

    def misfits(self, kv_format: KvFormat, problem: Problem) -> list[str]:
        """Say why the engine can't keep this model's KV in a format on this GPU; empty: it can."""
        architecture = problem.architecture
        found = []
        if self.compute_capability not in kv_format.compute_capabilities:
            runs = ", ".join(kv_format.compute_capabilities)
            found.append(
                f"is for capabilities {runs}, not for {problem.cluster.hardware.name} ({self.compute_capability})"
            )
        kinds = (
            sorted(architecture.attention_kinds - {"linear"} - set(kv_format.attention)) if kv_format.attention else []
        )
        if kinds:
            found.append(f"is for {', '.join(kv_format.attention)} attention, not for {', '.join(kinds)}")
        terms = [term for layer in architecture.layers for term in layer.cache]
        dims = sorted({t.k_dim for t in terms if t.v_dim} - set(kv_format.head_dims)) if kv_format.head_dims else []
        if dims:
            heads = ", ".join(map(str, kv_format.head_dims))
            found.append(f"is for heads of {heads}, not of {', '.join(map(str, dims))}")
        if architecture.attention_sinks and not kv_format.attention_sinks:
            found.append("isn't for attention sinks")
        if kv_format.option in (self.excluded or {}):
            found.append(f"isn't for this model: {(self.excluded or {})[kv_format.option]}")
        return found

    def backend_of(self, kv_format: KvFormat | None) -> str | None:
        """Attention kernels that it takes with a KV format; None: not known here."""
        forced = self.backends or {}
        if kv_format is None:
            return forced.get("*")
        usual = kv_format.backend.get(self.compute_capability)
        return forced.get(kv_format.option) or forced.get("*") or usual


def runs(problem: Problem, engine: Engine, version: str | None = None) -> Run:
    """Judge one engine on a request.

    Parameters
    ----------
    problem
        The request, resolved.
    engine
        The engine.
    version
        Another version of it than the catalog's.
    """
    at = version or engine.version
    known = models_of(engine.id, at)
    names = architectures_of(problem.config)
    implementation = known.implementation(names) if known else None
    subject = Subject(
        config=problem.config,
        architecture=problem.architecture,
        compute_capability=problem.cluster.hardware.compute_capability,
        ctx_tokens=problem.request.ctx,
        session_tokens=session_tokens(problem),
        rounds=problem.request.rounds,
        implementation=implementation,
    )
    if known is not None and not known.has_stages(names):
        alone = engine.parallelism.model_copy(update={"pipeline": False})
        engine = engine.model_copy(update={"parallelism": alone})
    run = Run(engine, at, subject.compute_capability, implementation, told=_unnamed(problem, known, names))
    run = replace(run, named=bool(names))
    if known is not None and names and implementation is None:
        run = replace(run, refusals=(_lacks(known, names),))
    rules = [r for r in problem.catalog.all(EngineRule) if r.engine == engine.id and applies(r, subject, at)]
    for rule in rules:
        run = _ruled(run, rule, problem)
    return replace(run, refusals=(*run.refusals, *_attention(problem, engine)))


def serves(problem: Problem, engine: Engine) -> bool:
    """Whether an engine is a server that runs on the request's GPU and takes its model."""
    on_gpu = problem.cluster.hardware.compute_capability in engine.compute_capabilities
    return engine.continuous_batching and on_gpu and not runs(problem, engine).refusals


def session_tokens(problem: Problem) -> int:
    """The longest session: the document and every round's question and answer [tokens]."""
    work = problem.workload
    grown = Workload(work.ctx_tokens, work.rounds, work.question_tokens, work.output_tokens, growth=True)
    return grown.end_tokens


def where_it_runs(problem: Problem) -> str:
    """Say which engines of the catalog have the model's architecture, and which had it once.

    Empty where the config names none, or every engine of the request has it and something else is in the way.
    """
    names = architectures_of(problem.config)
    asked = [models_of(engine.id, engine.version) for engine in problem.engines]
    if not names or all(known is None or known.implementation(names) for known in asked):
        return ""
    have, had, others = [], [], []
    for engine in problem.catalog.all(Engine):
        known = models_of(engine.id, engine.version)
        if known is None:
            continue
        if known.implementation(names) is not None:
            have.append(engine.id)
        elif names[0] in known.removed:
            had.append(f"{engine.id} had it until {known.removed[names[0]]}")
        else:
            others += [f"{engine.id}'s {name} engine, which isn't planned" for name in _other(known, names)]
    has = f"engines that have it: {', '.join(have)}" if have else "no engine of the catalog has it"
    return "; ".join([has, *had, *others])


def _unnamed(problem: Problem, known: EngineModels | None, names: tuple[str, ...]) -> tuple[str, ...]:
    if known is None:
        return ("which architectures it has isn't known here",)
    if names:
        return ()
    return (f"the config of {problem.model_id} names no architectures, so whether it has the model isn't known",)


def _lacks(known: EngineModels, names: tuple[str, ...]) -> str:
    text = f"has no {' or '.join(names)}"
    if names[0] in known.removed:
        return f"{text} any more; {known.removed[names[0]]} had it last"
    other = _other(known, names)
    return f"{text} in the engine that is planned, only in its {other[0]} one" if other else text


def _other(known: EngineModels, names: tuple[str, ...]) -> list[str]:
    return [engine for engine, of_it in known.other_engine.items() if any(name in of_it for name in names)]


def _attention(problem: Problem, engine: Engine) -> tuple[str, ...]:
    gpu = problem.cluster.hardware
    missing = sorted(
        kind
        for kind in problem.architecture.attention_kinds
        if gpu.compute_capability not in engine.attention.get(kind, ())
    )
    return (f"has no {', '.join(missing)} attention on {gpu.name}",) if missing else ()


def _ruled(run: Run, rule: EngineRule, problem: Problem) -> Run:
    """Add what a rule that applies says."""
    if rule.verdict == "refuses":
        return replace(run, refusals=(*run.refusals, _told(rule)))
    trusted = _trusted(rule, problem)
    if trusted is not None and problem.request.ctx > trusted:
        limit = f"; up to {format_tokens(trusted)} tokens, not to {format_tokens(problem.request.ctx)}"
        run = replace(run, refusals=(*run.refusals, f"doesn't hold this length: {rule.why}{limit}"))
    if rule.verdict == "tells":
        return replace(run, told=(*run.told, rule.why))
    excluded = dict(run.excluded or {})
    backends = dict(run.backends or {})
    if rule.verdict == "forces" and rule.backend is not None:
        backends = {**dict.fromkeys(rule.kv_formats or ("*",), rule.backend), **backends}
    elif rule.verdict == "excludes":
        excluded |= dict.fromkeys(rule.kv_formats, rule.why)
    return replace(
        run,
        excluded=excluded,
        backends=backends,
        kv_cache_dtype=run.kv_cache_dtype or rule.kv_cache_dtype,
        environment={**(run.environment or {}), **rule.environment},
        flags=(*run.flags, *((name, value or True) for name, value in rule.flags.items())),
        overrides=merged(run.overrides or {}, _placed(problem.config, rule.overrides)),
    )


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return two changes to a config as one; of a key that both change, the second's value.

    >>> merged({"text_config": {"a": 1}}, {"text_config": {"b": None}})
    {'text_config': {'a': 1, 'b': None}}
    """
    both = {
        k: merged(first[k], second[k])
        for k in first
        if isinstance(first[k], Mapping) and isinstance(second.get(k), Mapping)
    }
    return {**first, **second, **both}


def _placed(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes below the part of a config that has the keys."""
    found: dict[str, Any] = {}
    for key, value in overrides.items():
        inner = next((n for n in INNER if isinstance(config.get(n), Mapping) and key in config[n]), None)
        found = merged(found, {inner: {key: value}} if inner else {key: value})
    return found


def _told(rule: EngineRule) -> str:
    return f"refuses it: {rule.why}" + (f"; {rule.way_out}" if rule.way_out else "")


def _trusted(rule: EngineRule, problem: Problem) -> int | None:
    """Longest context that is trustworthy under a rule; None: it says nothing of lengths [tokens]."""
    found = value_of(problem.config, rule.trusted_key) if rule.trusted_key else None
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    if rule.trusted_tokens is not None:
        return rule.trusted_tokens
    return problem.model_entry.trained_tokens if rule.trusted_key and problem.model_entry else None
