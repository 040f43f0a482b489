"""What is decided, as literals: exactly one of each, tied to each other by what can go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.service import DIMENSIONS
from planner.solve.classes import Classes, distinct_columns
from planner.solve.engines import conditions_of
from planner.solve.scope import Scope
from planner.solve.tables import Role, Tables, UnitTable
from planner.space import Option

Row = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True, order=True)
class Deployment:
    """Replicas of one unit, or a decode pool and a prefill pool."""

    unit: int
    replicas: int
    pool: int
    """Unit of the prefill pool; -1: aggregated."""
    pool_replicas: int

    @property
    def holder(self) -> int:
        """Unit where caches wait between rounds: that which prefills."""
        return self.pool if self.pool >= 0 else self.unit

    @property
    def ratio(self) -> float:
        """Replicas where caches wait, per replica that decodes."""
        return self.pool_replicas / self.replicas if self.pool >= 0 else 1.0


@dataclass(frozen=True)
class Prompt:
    """Prefill of a unit in chunks of one size, for the classes that it costs the same."""

    unit: int
    chunk: int
    role: Role
    kept: Row
    """Rows of `planner.solve.tables.Prefill`, for caches that stay or swap between rounds."""
    again: Row
    """The same for caches that are recomputed."""
    classes: frozenset[int]


class Decisions:
    """The literals of a scope."""

    def __init__(self, cp: Any, scope: Scope) -> None:
        self.scope = scope
        self.search = scope.search
        self.space = scope.search.space
        self.model = cp.CpModel()
        self.classes: Classes = scope.classes
        self._tables = Tables(self.search, self.classes.table)
        self._name()
        self._tie_points()
        self._tie_prompts()
        self._tie_engines()
        self._forbid()

    def table(self, unit: int) -> UnitTable:
        """Numbers of a unit."""
        return self._tables.unit(unit)

    def any_of(self, name: str, literals: Sequence[Any]) -> Any:
        """A literal that is true where one of mutually exclusive literals is."""
        found = self.model.new_bool_var(name)
        self.model.add(sum(literals) == found)
        return found

    def _one_of(self, name: str, keys: Sequence[Any]) -> dict[Any, Any]:
        literals = {key: self.model.new_bool_var(f"{name}:{key}") for key in keys}
        self.model.add_exactly_one(literals.values())
        return literals

    def _name(self) -> None:
        points = self.scope.points
        rows = zip(points.unit, points.replicas, points.pool_unit, points.pool_replicas, strict=True)
        self.deployment: dict[Deployment, Any] = self._one_of(
            "deployment", sorted({Deployment(*map(int, row)) for row in rows})
        )
        self.unit = self._one_of("unit", sorted({d.unit for d in self.deployment}))
        self.micro = self._one_of("micro", sorted({int(m) for m in points.micro}))
        self.chunk = self._one_of("chunk", sorted({int(c) for c in points.chunk}))
        self.policy = self._one_of("policy", sorted({int(p) for p in points.policy}))
        self.engine = self._one_of("engine", [engine.id for engine in self.space.engines])
        self.option = {
            name: list(self._one_of(name, range(len(self.space.options[name]))).values()) for name in DIMENSIONS
        }
        for u, literal in self.unit.items():
            self.model.add(sum(x for d, x in self.deployment.items() if d.unit == u) == literal)
        self.holder = self._holders()
        """Units where caches wait between rounds."""
        self.recompute = self._policies("recompute")
        self.swap = self._policies("swap")
        self.pools = self.any_of("pools", [x for d, x in self.deployment.items() if d.pool >= 0])
        weights = sorted({self.search.units[u].weights for u in self.unit})
        self.weights = {
            w: self.any_of(f"weights:{w}", [x for u, x in self.unit.items() if self.search.units[u].weights == w])
            for w in weights
        }

    def _holders(self) -> dict[int, Any]:
        if all(d.pool < 0 for d in self.deployment):
            return self.unit
        holders = sorted({d.holder for d in self.deployment})
        return {
            u: self.any_of(f"holder:{u}", [x for d, x in self.deployment.items() if d.holder == u]) for u in holders
        }

    def _policies(self, name: str) -> Any:
        return self.any_of(name, [x for p, x in self.policy.items() if self.space.policies[p].policy == name])

    def _tie_points(self) -> None:
        """Only what is left of the scope: caps of each unit; policies and service of each deployment."""
        points = self.scope.points
        caps = sorted({(int(u), int(m)) for u, m in zip(points.unit, points.micro, strict=True)})
        self.decode = self._one_of("decode", caps)
        self._project(self.decode, self.unit, lambda key: key[0])
        self._project(self.decode, self.micro, lambda key: key[1])
        columns = (points.unit, points.replicas, points.pool_unit, points.pool_replicas, points.policy, points.alone)
        rows = {(Deployment(*map(int, row[:4])), int(row[4]), bool(row[5])) for row in zip(*columns, strict=True)}
        self.way = self._one_of("way", sorted(rows))
        self._project(self.way, self.deployment, lambda key: key[0])
        self._project(self.way, self.policy, lambda key: key[1])
        self.alone = self.any_of("alone", [x for key, x in self.way.items() if key[2]])
        for m, literal in self.micro.items():
            if m > 1:
                self.model.add_at_most_one([self.alone, literal])

    def _project(self, joint: dict[Any, Any], part: dict[Any, Any], of: Callable[[Any], Any]) -> None:
        for key, literal in part.items():
            self.model.add(sum(x for whole, x in joint.items() if of(whole) == key) == literal)

    def _tie_prompts(self) -> None:
        """The options' factors on prefill make a class; with a unit and a chunk it fixes every prefill time."""
        classes = self.classes
        self.klass = list(self._one_of("class", range(len(classes.rows))).values())
        for position, name in enumerate(DIMENSIONS):
            for index, members in enumerate(classes.members[name]):
                belong = [self.klass[k] for k, row in enumerate(classes.rows) if row[position] == index]
                self.model.add(sum(belong) == sum(self.option[name][o] for o in members))
        points = self.scope.points
        split = points.pool_unit >= 0
        roles: tuple[Role, Role] = ("serve", "decode")
        keys = {(int(u), int(c), roles[int(e)]) for u, c, e in zip(points.unit, points.chunk, split, strict=True)}
        self.prompts = self._prompts("prompt", keys)
        self.model.add_exactly_one(x for _, x in self.prompts)
        for u, role in sorted({(u, role) for u, _, role in keys}):
            deployed = [x for d, x in self.deployment.items() if d.unit == u and (d.pool >= 0) == (role == "decode")]
            self.model.add(sum(x for p, x in self.prompts if (p.unit, p.role) == (u, role)) == sum(deployed))
        for chunk, literal in self.chunk.items():
            self.model.add(sum(x for p, x in self.prompts if p.chunk == chunk) == literal)
        for k, literal in enumerate(self.klass):
            self.model.add(sum(x for p, x in self.prompts if k in p.classes) >= literal)
        chunks = zip(points.pool_unit[split], points.chunk[split], strict=True)
        feeding: set[tuple[int, int, Role]] = {(int(u), int(c), "prefill") for u, c in chunks}
        self.pool_prompts = self._prompts("pool-prompt", feeding)
        for u in sorted({p.unit for p, _ in self.pool_prompts}):
            deployed = [x for d, x in self.deployment.items() if d.pool == u]
            self.model.add(sum(x for p, x in self.pool_prompts if p.unit == u) == sum(deployed))
        for k, literal in enumerate(self.klass):
            if self.pool_prompts:
                self.model.add(sum(x for p, x in self.pool_prompts if k in p.classes) >= literal + self.pools - 1)

    def _prompts(self, name: str, keys: set[tuple[int, int, Role]]) -> list[tuple[Prompt, Any]]:
        found = []
        for u, c, role in sorted(keys):
            possible = self._possible(u, c, role)
            prefill = self.table(u).prefill(c, role)
            columns, belongs = distinct_columns(np.concatenate([prefill.kept, prefill.recomputed]))
            for group, column in enumerate(columns):
                members = frozenset(k for k, g in enumerate(belongs) if g == group and k in possible)
                if not members:
                    continue
                prompt = Prompt(u, c, role, prefill.kept[:, column], prefill.recomputed[:, column], members)
                found.append((prompt, self.model.new_bool_var(f"{name}:{u}:{c}:{role}:{group}")))
        return found

    def _possible(self, unit: int, chunk: int, role: Role) -> set[int]:
        """Classes that bounds leave for a unit with a chunk."""
        scope = self.scope
        if scope.possible is None:
            return set(range(len(self.classes.rows)))
        points = scope.points
        mine = (points.unit == unit) & ((points.pool_unit >= 0) == (role == "decode"))
        if role == "prefill":
            mine = points.pool_unit == unit
        mine &= points.chunk == chunk
        return set(np.flatnonzero(scope.possible[mine].any(axis=0)).tolist())

    def _tie_engines(self) -> None:
        """An engine runs the unit, the policy, every option and, for pools, their disaggregation."""
        search, space = self.search, self.space
        for engine in space.engines:
            chosen = self.engine[engine.id]
            for u, literal in self.unit.items():
                unit = search.units[u]
                runs = engine in search.views[unit.view].engines
                if not runs or not space.runs(engine, space.weights[unit.weights], unit.split):
                    self.model.add_at_most_one([chosen, literal])
            for p, literal in self.policy.items():
                if not space.offers(engine, space.policies[p]):
                    self.model.add_at_most_one([chosen, literal])
            for d, literal in self.deployment.items():
                if d.pool >= 0 and engine.id not in search.handing_over(d.pool, d.unit):
                    self.model.add_at_most_one([chosen, literal])
            for _name, _index, option, literal in self.options():
                if not space.option_runs(option, engine):
                    self.model.add_at_most_one([chosen, literal])
        self.throttled = self.any_of(
            "throttled", [self.engine[engine.id] for engine in space.engines if engine.long_prefill_throttle]
        )

    def options(self) -> list[tuple[str, int, Option, Any]]:
        """Every option with its dimension, index and literal."""
        return [
            (name, o, option, self.option[name][o])
            for name in DIMENSIONS
            for o, option in enumerate(self.space.options[name])
        ]

    def named(self) -> dict[str, Any]:
        """Literals of options and weights by their catalog point's id."""
        found = {option.id: literal for _, _, option, literal in self.options() if option.point}
        for w, literal in self.weights.items():
            point = self.space.weights[w].point
            if point is not None:
                found[point.id] = literal
        return found

    def _forbid(self) -> None:
        """Compatibility: pairs of options, pairs on one engine, options under a condition."""
        named, rules = self.named(), self.space.compatibility
        for pair in sorted(rules.pairs, key=sorted):
            literals = [named[name] for name in sorted(pair) if name in named]
            if len(literals) == 2:
                self.model.add_at_most_one(literals)
        for pair, engine in sorted(rules.engine_pairs, key=lambda row: (sorted(row[0]), row[1])):
            literals = [named[name] for name in sorted(pair) if name in named]
            if len(literals) == 2 and engine in self.engine:
                self.model.add(sum(literals) + self.engine[engine] <= 2)
        for d, deployed in self.deployment.items():
            for p, policy in self.policy.items():
                holds = conditions_of(self.search, d.unit, p, d.pool)
                for name, condition in sorted(rules.conditions):
                    if name in named and condition in holds:
                        self.model.add(named[name] + deployed + policy <= 2)
