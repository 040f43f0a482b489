"""Which options exclude each other or their surroundings, and what stacking some of them costs extra.

The rules are facts of the catalog (``catalog/rules``); here they are matched against one request's
options. ``exclusive`` and ``bundle`` forbid; the others only tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from catalog.schema import Engine, Point, Rule, Selector, Technique
from planner.cost.quality import LogLoss, from_fractions
from planner.problem import Problem
from planner.space.options import Option, WeightOption, is_paged

TECHNIQUE_FIELDS = (
    "dimensions",
    "techniques",
    "points",
    "evicts_tokens",
    "query_aware",
    "per_head_budgets",
    "prefix_cache_safe",
)
SURROUNDING_FIELDS = ("attention", "models", "engines", "attention_backends", "hardware_generations", "features")

CONDITIONS = ("tensor_parallel", "offload", "disaggregated")
"""Features that depend on the decision, not only on the request or the engine."""


@dataclass(frozen=True, slots=True)
class Surcharge:
    """Extra loss where an option of each side is chosen."""

    rule: str
    a: frozenset[str]
    b: frozenset[str]
    loss: LogLoss


@dataclass(frozen=True, slots=True)
class Compatibility:
    """What a request's options exclude; options by their point's id."""

    pairs: frozenset[frozenset[str]]
    """Two options that are never together."""
    engine_pairs: frozenset[tuple[frozenset[str], str]]
    """Two options that aren't together on one engine."""
    engines: frozenset[tuple[str, str]]
    """(option, engine) that are never together."""
    conditions: frozenset[tuple[str, str]]
    """(option, condition of `CONDITIONS`) that are never together."""
    surcharges: tuple[Surcharge, ...]
    reasons: dict[frozenset[str], str]

    def surcharge(self, ids: Iterable[str]) -> LogLoss:
        """Extra loss of options that are chosen together."""
        chosen = frozenset(ids)
        total = LogLoss()
        for extra in self.surcharges:
            if chosen & extra.a and chosen & extra.b:
                total = total + extra.loss
        return total


def compatibility(
    problem: Problem, options: Iterable[Option], weights: Iterable[WeightOption], engines: Iterable[Engine]
) -> Compatibility:
    """Match the catalog's rules against a request's options."""
    chosen: tuple[Option | WeightOption, ...] = (*options, *weights)
    techniques = [(o.technique, o.point) for o in chosen if o.technique and o.point]
    engines = tuple(engines)
    pairs: set[frozenset[str]] = set()
    engine_pairs: set[tuple[frozenset[str], str]] = set()
    on_engines: set[tuple[str, str]] = set()
    conditions: set[tuple[str, str]] = set()
    surcharges = []
    reasons: dict[frozenset[str], str] = {}
    for rule in problem.catalog.all(Rule):
        forbids = rule.verdict in ("exclusive", "bundle")
        a = frozenset(p.id for t, p in techniques if matches_technique(rule.a, t, p))
        b = frozenset(p.id for t, p in techniques if matches_technique(rule.b, t, p))
        if rule.surcharge is not None:
            extra = from_fractions(rule.surcharge.mean_pct / 100.0, rule.surcharge.std_pct / 100.0)
            surcharges.append(Surcharge(rule.id, a, b, extra))
        if not forbids:
            continue
        only_on = {*rule.a.engines, *rule.b.engines}
        for pair in (frozenset((x, y)) for x in a for y in b if x != y):
            reasons.setdefault(pair, rule.why)
            if only_on:
                engine_pairs.update((pair, engine) for engine in only_on)
            else:
                pairs.add(pair)
        for inside, inner, outer in ((a, rule.a, rule.b), (b, rule.b, rule.a)):
            if inside and not _speaks_of_techniques(outer) and _matches_request(problem, inner, outer):
                found_engines, found_conditions = _surroundings(problem, inner, outer, engines)
                on_engines.update((point, engine) for point in inside for engine in found_engines)
                conditions.update((point, condition) for point in inside for condition in found_conditions)
    return Compatibility(
        pairs=frozenset(pairs),
        engine_pairs=frozenset(engine_pairs),
        engines=frozenset(on_engines),
        conditions=frozenset(conditions),
        surcharges=tuple(surcharges),
        reasons=reasons,
    )


def _surroundings(
    problem: Problem, inner: Selector, outer: Selector, engines: tuple[Engine, ...]
) -> tuple[set[str], set[str]]:
    """Engines on which a rule always forbids, and conditions under which it does.

    A condition that only holds on some engines is taken to hold on all of them where one of those
    engines is the only one that is left.
    """
    only_on = {*inner.engines, *outer.engines}
    wanted: set[str] = set(outer.features)
    forbidding = {
        engine.id
        for engine in engines
        if (not only_on or engine.id in only_on) and (not wanted or wanted & _features(problem, engine))
    }
    applies = not only_on or {engine.id for engine in engines} <= only_on
    return forbidding, wanted & set(CONDITIONS) if applies else set()


def _features(problem: Problem, engine: Engine) -> set[str]:
    """What every plan of this request on this engine does, whatever else is decided.

    A cache that serves several rounds doesn't forbid a question-aware technique here: its prior is
    the multi-turn one then.
    """
    found = set()
    if problem.request.shared_prefix_tokens > 0:
        found.add("prefix_reuse")
    if engine.chunked_prefill:
        found.add("chunked_prefill")
    if is_paged(engine):
        found |= {"paged_kv", "pages_above_one_token", "fused_attention", "cuda_graphs"}
    return found


def _speaks_of_techniques(selector: Selector) -> bool:
    return any(getattr(selector, name) not in ((), None) for name in TECHNIQUE_FIELDS)


def matches_technique(selector: Selector, technique: Technique, point: Point) -> bool:
    """Whether a selector speaks of techniques, and of this one."""
    if not _speaks_of_techniques(selector):
        return False
    if selector.dimensions and technique.dimension not in selector.dimensions:
        return False
    if selector.techniques and technique.id not in selector.techniques:
        return False
    if selector.points and point.id not in selector.points:
        return False
    flags = ("evicts_tokens", "query_aware", "per_head_budgets", "prefix_cache_safe")
    return all(getattr(selector, f) is None or getattr(selector, f) == getattr(technique, f) for f in flags)


def _matches_request(problem: Problem, *selectors: Selector) -> bool:
    """Whether the surroundings that a request fixes match: model, attention, GPU generation."""
    generation = problem.cluster.hardware.generation.lower()
    for selector in selectors:
        if selector.attention_backends:
            return False  # Which kernels run is the engine's choice, and its KV formats say where it has none.
        if selector.attention and not set(selector.attention) & problem.architecture.attention_kinds:
            return False
        if selector.models and not any(fnmatchcase(problem.model_id, pattern) for pattern in selector.models):
            return False
        if selector.hardware_generations and generation not in {g.lower() for g in selector.hardware_generations}:
            return False
    return True
