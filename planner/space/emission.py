"""What the targets of an emission leave of a space: what can't be written isn't planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from catalog.schema import Engine
from planner.errors import InputError
from planner.problem import Problem
from planner.space.options import Option, WeightOption, loads
from planner.space.ready import has_to_be_made, ready_checkpoint
from planner.space.runs import Run
from planner.space.splits import Split
from planner.targets import ENGINES, LMCACHE, PLATFORMS, Platform, check_targets


@dataclass(frozen=True, slots=True)
class Emission:
    """What can be written for a request's targets on its GPUs."""

    target: str
    engines: tuple[str, ...]
    """Named as targets; none: any that has files."""
    platforms: tuple[Platform, ...]
    vendor: str
    gpus_per_node: int
    lmcache: bool
    """Caches go below HBM through LMCache."""
    has_windows: bool
    """Layers of the model keep less than the whole session."""

    def refuses(self, engine: str) -> str | None:
        """Say why an engine can't serve the targets; None: it can."""
        files = ENGINES.get(engine)
        if self.engines and engine not in self.engines:
            return f"isn't the --target {self.target}"
        if files is None:
            return f"has no files to write for --target {self.target}"
        if self.platforms and not files.is_server:
            return f"is no server, which --target {self.target} wants"
        if any(p.engines is not None and engine not in p.engines for p in self.platforms):
            return f"doesn't run on --target {self.target}"
        if any(p.in_containers for p in self.platforms) and self.vendor not in files.images:
            return f"has no container image for these GPUs that is known here, which --target {self.target} wants"
        return None

    @property
    def mixed(self) -> bool:
        """Whether several kinds of replicas that serve can be written side by side; pools stand beside nothing."""
        return all(p.mixed for p in self.platforms) and all(ENGINES[name].is_server for name in self.engines)

    def pools(self, engine: str) -> bool:
        """Whether separate pools can be written."""
        takes = (p.pools and (p.pool_engines is None or engine in p.pool_engines) for p in self.platforms)
        return ENGINES[engine].pools and all(takes)

    def splits(self, engine: str, split: Split) -> bool:
        """Whether a split can be written."""
        files = ENGINES[engine]
        if split.tp > 1 and split.pp > 1 and not files.tensors_and_layers:
            return False
        ranks = max(1, split.ep // split.tp)
        nodes = -(-split.gpus * ranks // self.gpus_per_node)
        spans = [
            p.several_servers == "all" or (p.several_servers == "ranks" and not ranks % nodes) for p in self.platforms
        ]
        return nodes == 1 or (files.several_servers and all(spans))

    def tier(self, engine: str, tier: str | None) -> bool:
        """Whether an engine's caches can go to a tier."""
        if tier is None:
            return True
        whole = self.lmcache and self.has_windows and not ENGINES[engine].lmcache_windows
        return not whole and all(tier in p.tiers for p in self.platforms)

    def weights(self, engine: Engine, point: str | None, problem: Problem) -> bool:
        """Whether an engine's files load weights: ready ones, or made where every platform makes them.

        Where the user names a precision, a checkpoint may be there that the catalog doesn't know.
        """
        if point is None or ready_checkpoint(problem, engine, point) is not None:
            return True
        made = has_to_be_made(problem, engine, point) and problem.request.weights == "any"
        unmade = made and not all(p.makes_checkpoints for p in self.platforms)
        return loads(problem, engine, point) and point in ENGINES[engine.id].weights and not unmade

    def option(self, run: Run, option: Option, problem: Problem) -> bool:
        """Whether an engine's files express an option."""
        if option.point is None or option.technique is None:
            return True
        files = ENGINES[run.engine.id]
        if option.dimension == "hidden":
            return bool(run.kv_formats(option.point.id, problem))
        return option.dimension in files.dimensions and any(
            support.engine == run.engine.id
            and support.status in files.statuses
            and option.point.id in (support.points or (option.point.id,))
            for support in option.technique.engines
        )


def emission_of(problem: Problem) -> Emission | None:
    """What a request's targets can take; None where it names none."""
    target = problem.request.target
    if target is None:
        return None
    engines, names, backend = check_targets(target)
    platforms = [PLATFORMS[name] for name in names]
    storage = problem.cluster.site.storage
    if storage.claim is None and storage.access == "ReadWriteOnce":
        platforms = [replace(p, makes_checkpoints=p.makes_checkpoints and not p.keeps_in_claims) for p in platforms]
    return Emission(
        target=target,
        engines=tuple(engines),
        platforms=tuple(platforms),
        vendor=problem.cluster.hardware.vendor,
        gpus_per_node=problem.cluster.gpus_per_node,
        lmcache=backend == LMCACHE,
        has_windows=bool(problem.architecture.attention_kinds & {"sliding", "chunked", "linear"}),
    )


def written_weights(
    emission: Emission, weights: Sequence[WeightOption], engines: Sequence[Engine], problem: Problem
) -> tuple[WeightOption, ...]:
    """Weights that some engine's files load, each with the engines whose files do.

    Raises
    ------
    InputError
        If none are left.
    """
    found = []
    for option in weights:
        point = option.point.id if option.point else None
        able = frozenset(e.id for e in engines if emission.weights(e, point, problem)) & option.engines
        if able:
            found.append(replace(option, engines=able))
    if not found:
        asked = ", ".join(option.id for option in weights)
        raise InputError(f"--target {emission.target}: no engine's files load weights of {asked}; leave --weights out")
    return tuple(found)


def written_options(
    emission: Emission, options: Mapping[str, Sequence[Option]], running: Sequence[Run], problem: Problem
) -> dict[str, tuple[Option, ...]]:
    """Options that some engine's files express, each with the engines whose files do."""
    left: dict[str, tuple[Option, ...]] = {}
    for name, group in options.items():
        found = []
        for option in group:
            able = {run.engine.id for run in running if emission.option(run, option, problem)}
            if option.point is None or able & option.engines:
                found.append(replace(option, engines=option.engines & able))
        left[name] = tuple(found)
    return left
