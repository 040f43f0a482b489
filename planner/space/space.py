"""The whole space of decisions for one request.

A decision is one value of each field of `Space`; the solver and the exhaustive oracle search the
very same space. Decode caps and chunks are grids: between two points of a grid nothing changes
abruptly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from catalog.schema import Engine
from planner.errors import InputError
from planner.problem import Problem
from planner.service import DIMENSIONS
from planner.space.compatibility import Compatibility, compatibility
from planner.space.emission import Emission, emission_of, written_options, written_weights
from planner.space.options import Dropped, Option, WeightOption, dimension_options, weight_options
from planner.space.pins import NO_PINS, Pins, pinned
from planner.space.pools import handover_problem
from planner.space.runs import Run, runs, serves, where_it_runs
from planner.space.splits import Split, engine_runs, splits

SEQUENCES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Decode caps of one pipeline stage; a replica decodes so many per stage."""

CHUNKS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Prefill chunks [tokens]."""

POOL_CHUNK = 16384
"""Prefill chunk of a prefill pool, which delays nobody's decoding [tokens]."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens to a cache between rounds."""

    policy: Literal["none", "swap", "recompute"]
    tier: Literal["ddr", "nvme"] | None = None

    @property
    def id(self) -> str:
        """``none``, ``recompute``, ``swap:ddr`` or ``swap:nvme``."""
        return f"{self.policy}:{self.tier}" if self.tier else self.policy


@dataclass(frozen=True)
class Space:
    """Everything that may be decided."""

    engines: tuple[Engine, ...]
    weights: tuple[WeightOption, ...]
    options: dict[str, tuple[Option, ...]]
    """By dimension, in the order of `DIMENSIONS`; 'none' first."""
    compatibility: Compatibility
    splits: tuple[Split, ...]
    sequences: tuple[int, ...]
    chunks: tuple[int, ...]
    policies: tuple[Policy, ...]
    disaggregated: bool
    """Whether separate prefill and decode pools are possible."""
    dropped: dict[str, str]
    aggregated: bool = True
    """Whether prefill and decode may share their GPUs; False only to ask what separate pools would do."""
    latent: bool = False
    """Whether the model's caches are latents, which every rank holds whole."""
    pins: Pins = NO_PINS
    """Fields that the request fixes: menus have them already where they hold in every group."""
    pool_chunk: int = POOL_CHUNK
    """Prefill chunk of a prefill pool [tokens]."""
    emission: Emission | None = None
    """What can be written for the request's targets; None: no target is named."""
    one_kind: bool = False
    """Whether all replicas must be alike: the target has no router for several kinds, or some are in reserve."""

    def runs(self, engine: Engine, weights: WeightOption, split: Split) -> bool:
        """Whether an engine loads these weights and splits them so."""
        written = self.emission is None or self.emission.splits(engine.id, split)
        return engine.id in weights.engines and engine_runs(engine, split) and written

    def has_pools(self, engine: Engine) -> bool:
        """Whether an engine serves with separate prefill and decode pools."""
        return engine.disaggregated is not None and (self.emission is None or self.emission.pools(engine.id))

    def hands_over(self, engine: Engine, prefill: Split, decode: Split) -> bool:
        """Whether caches get from one pool to the other."""
        return self.has_pools(engine) and handover_problem(engine, prefill, decode, self.latent) is None

    def offers(self, engine: Engine, policy: Policy) -> bool:
        """Whether an engine has this policy between rounds."""
        if policy.policy != "swap":
            return True
        written = self.emission is None or self.emission.tier(engine.id, policy.tier)
        return written and any(offload.tier == policy.tier for offload in engine.offload)

    def option_runs(self, option: Option, engine: Engine) -> bool:
        """Whether an engine runs an option in these surroundings."""
        return engine.id in option.engines and (option.id, engine.id) not in self.compatibility.engines


def open_space(problem: Problem) -> Space:
    """List every decision that a request allows.

    Raises
    ------
    InputError
        If no engine serves the model on these GPUs, or the request names techniques or weights that
        aren't to be had, or pins fields to what isn't.
    """
    dropped = Dropped({})
    emission = emission_of(problem)
    running = _running(problem, dropped, emission)
    engines = tuple(run.engine for run in running)
    weights = weight_options(problem, engines, dropped)
    options: Mapping[str, tuple[Option, ...]] = dimension_options(problem, running, dropped)
    if emission is not None:
        weights = written_weights(emission, weights, engines, problem)
        options = written_options(emission, options, running, problem)
    rules = compatibility(problem, [o for group in options.values() for o in group], weights, engines)
    policies = _policies(problem, engines)
    space = Space(
        engines=engines,
        weights=weights,
        options={name: options[name] for name in DIMENSIONS},
        compatibility=rules,
        splits=splits(problem, engines),
        sequences=SEQUENCES,
        chunks=_chunks(problem, engines),
        policies=policies,
        disaggregated=problem.most_gpus > 1,
        dropped=dropped.reasons,
        latent="mla" in problem.architecture.attention_kinds,
        pins=Pins.of(problem.request.pin),
        emission=emission,
        one_kind=bool(problem.request.spare) or (emission is not None and not emission.mixed),
    )
    disaggregated = space.disaggregated and any(space.has_pools(engine) for engine in engines)
    return pinned(replace(space, disaggregated=disaggregated), problem)


def _running(problem: Problem, dropped: Dropped, emission: Emission | None) -> tuple[Run, ...]:
    """The request's engines that run its model here, and that can be written for its targets."""
    found = []
    for engine in problem.engines:
        run = runs(problem, engine)
        unwritten = emission.refuses(engine.id) if emission is not None else None
        if run.refusals:
            dropped.add(engine.id, "; ".join(run.refusals))
        elif unwritten is not None:
            dropped.add(engine.id, unwritten)
        else:
            found.append(run)
    if not found:
        raise InputError(no_engine(problem, dropped.reasons))
    return tuple(found)


def no_engine(problem: Problem, reasons: Mapping[str, str]) -> str:
    """Say that no engine serves the model here, why each doesn't, and which others have the model."""
    asked = {engine.id: engine for engine in problem.engines}
    why = "; ".join(f"{name} {asked[name].version} {reason}" for name, reason in reasons.items() if name in asked)
    emission = emission_of(problem)
    others = [
        engine
        for engine in problem.catalog.all(Engine)
        if engine.id not in asked
        and serves(problem, engine)
        and (emission is None or emission.refuses(engine.id) is None)
    ]
    who = "no engine" if problem.request.engine == "any" else f"--engine {problem.request.engine}: it"
    serves_it = "serves" if problem.request.engine == "any" else "doesn't serve"
    text = f"{who} {serves_it} {problem.model_name} on {problem.cluster.hardware.name}: {why}"
    instead = f"plan with --engine {' or '.join(engine.id for engine in others)}" if others else ""
    if not others and emission is not None and any(serves(problem, engine) for engine in problem.engines):
        instead = "name another --target"
    return "; ".join(part for part in (text, where_it_runs(problem), instead) if part)


def _policies(problem: Problem, engines: tuple[Engine, ...]) -> tuple[Policy, ...]:
    if problem.request.rounds == 1:
        return (Policy("none"),)
    tiers = {offload.tier for engine in engines for offload in engine.offload}
    found = [Policy("none")]
    if "ddr" in tiers:
        found.append(Policy("swap", "ddr"))
    if "nvme" in tiers and problem.cluster.node.nvme is not None:
        found.append(Policy("swap", "nvme"))
    return (*found, Policy("recompute"))


def _chunks(problem: Problem, engines: tuple[Engine, ...]) -> tuple[int, ...]:
    """The grid up to the first chunk that takes the whole document; only that one where no engine has chunks."""
    ctx = problem.request.ctx - problem.request.shared_prefix_tokens
    if not any(engine.chunked_prefill for engine in engines):
        return (problem.request.ctx,)
    return tuple(c for i, c in enumerate(CHUNKS) if i == 0 or CHUNKS[i - 1] < ctx)
