"""What may be combined with each weight precision, without what another combination beats in every effect.

The cost model sees a combination through a few numbers only, and nothing gets better when one of them
grows. A combination that is no smaller in any of them, and that no more engines run, can't be part of
a better plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Engine
from planner.candidates.combinations import Combinations, all_combinations, with_weights
from planner.candidates.dominance import undominated
from planner.candidates.engines import both_run, conditions_of
from planner.candidates.points import Points, Search
from planner.problem import Problem
from planner.service import DIMENSIONS
from planner.space import Option, Space, WeightOption

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PLAIN, THROTTLED = 1, 2
"""Flags of `Menu.able`: an engine runs it that doesn't throttle long prefills, or one that does."""


@dataclass(frozen=True)
class _Kind:
    """Combinations that the same engines run under the same conditions."""

    engines: frozenset[str]
    forbidden: frozenset[str]
    """Conditions under which they don't run, as `conditions_of` names them."""


class Menu:
    """The combinations of each weight precision of a search.

    Parameters
    ----------
    search
        Its space must be affordable.
    by_loss
        Keep combinations that are beaten in every effect but lose less.
    """

    def __init__(self, search: Search, *, by_loss: bool) -> None:
        problem, space = search.problem, search.space
        self.search = search
        found = all_combinations(problem, space)
        self.complete = [with_weights(problem, space, found, weights) for weights in space.weights]
        self._kinds: list[list[_Kind]] = []
        self.combinations: list[Combinations] = []
        """By weights: those that aren't beaten."""
        self.kinds: list[Ints] = []
        """By weights: which of its kinds each combination is."""
        self._able: dict[tuple[int, int, int], list[int]] = {}
        for weights, every in zip(space.weights, self.complete, strict=True):
            kinds, belongs = _kinds_of(space, weights, every)
            keep = _unbeaten(problem, space, every, kinds, belongs, by_loss=by_loss)
            self._kinds.append(kinds)
            self.combinations.append(every.take(keep))
            self.kinds.append(belongs[keep])
        self.offsets = np.concatenate([[0], np.cumsum([len(c) for c in self.combinations])])[:-1]
        """Where the combinations of each weights begin among all."""
        self.joined = Combinations.joined(self.combinations)
        self.table = self.joined.table(space)
        self.losses = self.joined.loss_at(problem.request.confidence)

    def able(self, points: Points, weights: int) -> Ints:
        """How engines run points of some weights ``(point, kind)``: flags `PLAIN` and `THROTTLED`, 0 for no engine.

        Throttling is good for whoever waits and costs nobody else, so where it is to be had nothing else
        is tried; but for a floor on users, since service that makes users wait has more of them.
        """
        keys = np.stack([points.unit, points.policy, points.pool_unit], axis=1)
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        rows = [self._flags(weights, *map(int, key)) for key in distinct]
        return np.array(rows, dtype=np.int64).reshape(len(distinct), -1)[inverse.reshape(-1)]

    def _flags(self, weights: int, unit: int, policy: int, pool: int) -> list[int]:
        key = (unit, policy, pool)
        if key not in self._able:
            any_kind = self._engines(unit, policy, pool)
            holds = conditions_of(self.search, unit, policy, pool)
            flags = []
            for kind in self._kinds[weights]:
                found = [e for e in any_kind if e.id in kind.engines] if not holds & kind.forbidden else []
                flag = 0
                for engine in found:
                    flag |= THROTTLED if engine.long_prefill_throttle is not None else PLAIN
                flags.append(THROTTLED if flag & THROTTLED and not self._waiting_counts else flag)
            self._able[key] = flags
        return self._able[key]

    @property
    def _waiting_counts(self) -> bool:
        return self.search.problem.request.users is not None

    def _engines(self, unit: int, policy: int, pool: int) -> tuple[Engine, ...]:
        engines = self.search.engines(unit, policy, (), pools=pool >= 0)
        if pool < 0:
            return engines
        return both_run(self.search, engines, unit, policy, pool)

    def engine(self, row: Points, options: tuple[Option, ...], *, throttled: bool) -> Engine | None:
        """The most capable engine that runs one point with these options and throttles, or doesn't."""
        unit, policy, pool = int(row.unit[0]), int(row.policy[0]), int(row.pool_unit[0])
        space = self.search.space
        kind = kind_of(space, space.weights[self.search.units[unit].weights], options)
        if conditions_of(self.search, unit, policy, pool) & kind.forbidden:
            return None
        for engine in self._engines(unit, policy, pool):
            if engine.id in kind.engines and (engine.long_prefill_throttle is not None) == throttled:
                return engine
        return None


def _kinds_of(space: Space, weights: WeightOption, every: Combinations) -> tuple[list[_Kind], Ints]:
    """The kinds of some combinations, and which of them each is."""
    rules = space.compatibility
    conditions = sorted({condition for _, condition in rules.conditions})
    flags = []
    for engine in space.engines:
        runs = np.ones(len(every), dtype=np.bool_)
        for d, name in enumerate(DIMENSIONS):
            runs &= np.array([space.option_runs(o, engine) for o in space.options[name]])[every.options[d]]
        for pair in sorted((pair for pair, name in rules.engine_pairs if name == engine.id), key=sorted):
            runs &= ~np.logical_and.reduce([_has(space, weights, every, name) for name in sorted(pair)])
        flags.append(runs)
    for condition in conditions:
        named = [name for name, holds in sorted(rules.conditions) if holds == condition]
        flags.append(np.logical_or.reduce([_has(space, None, every, name) for name in named]))
    codes = sum((flag.astype(np.int64) << bit for bit, flag in enumerate(flags)), np.zeros(len(every), np.int64))
    first, belongs = np.unique(codes, return_index=True, return_inverse=True)[1:]
    return [kind_of(space, weights, every.chosen(space, int(column))) for column in first], belongs


def _has(space: Space, weights: WeightOption | None, every: Combinations, name: str) -> Bools:
    """Which combinations, with weights, have a point of the catalog."""
    if weights is not None and weights.point is not None and weights.point.id == name:
        return np.ones(len(every), dtype=np.bool_)
    found = np.zeros(len(every), dtype=np.bool_)
    for d, dimension in enumerate(DIMENSIONS):
        found |= np.array([option.id == name for option in space.options[dimension]])[every.options[d]]
    return found


def kind_of(space: Space, weights: WeightOption, options: tuple[Option, ...]) -> _Kind:
    """Which engines run a combination with these weights, and when not."""
    rules = space.compatibility
    ids = frozenset(o.id for o in options if o.point) | (frozenset((weights.point.id,)) if weights.point else set())
    engines = frozenset(
        engine.id
        for engine in space.engines
        if all(space.option_runs(option, engine) for option in options)
        and not any(pair <= ids for pair, name in rules.engine_pairs if name == engine.id)
    )
    forbidden = frozenset(condition for name, condition in rules.conditions if name in {o.id for o in options})
    return _Kind(engines, forbidden)


def _unbeaten(
    problem: Problem, space: Space, every: Combinations, kinds: list[_Kind], belongs: Ints, *, by_loss: bool
) -> Ints:
    """Combinations that may be part of a best plan."""
    request = problem.request
    if request.users is not None or not len(every):
        # Slower service keeps more users in the system: with a floor on users, less isn't always better.
        return np.arange(len(every))
    effects = _effects(problem, space, every)
    names = sorted({engine.id for engine in space.engines})
    conditions = sorted({condition for kind in kinds for condition in kind.forbidden})
    restricted = np.array(
        [[name not in k.engines for name in names] + [c in k.forbidden for c in conditions] for k in kinds],
        dtype=np.float64,
    ).reshape(len(kinds), -1)[belongs]
    columns = [effects, restricted]
    if by_loss:
        columns.append(every.loss_at(request.confidence)[:, None])
    # Of combinations that are equal in everything the simplest stays.
    techniques = sum((every.options[d] > 0).astype(np.int64) for d in range(len(DIMENSIONS)))
    order = np.lexsort((every.loss_mean, techniques))
    matrix = np.concatenate(columns, axis=1)
    return np.sort(order[undominated(matrix[order])])


def _effects(problem: Problem, space: Space, every: Combinations) -> Floats:
    """What the cost model takes of each combination ``(combination, effect)``; less is never worse."""
    table, work = every.table(space), problem.workload
    prompt, shared = float(work.prompt_tokens), float(work.shared_prefix_tokens)
    prefix = table.stored_tokens(prompt, prompt) * min(1.0, shared / prompt) if shared > 0 else np.zeros(len(table))
    lengths = dict.fromkeys(map(float, (prompt, work.end_tokens, work.warm_tokens, work.last_warm_tokens)))
    columns = [table.stored_tokens(prompt, length) - prefix for length in lengths]
    columns += [
        prefix,
        table.stored_tokens(prompt, float(work.warm_tokens)),
        table.read_tokens(prompt, work.decode_tokens),
        table.attended_tokens(prompt, work.decode_tokens),
        table.element_share(),
        table.element_reads_share(),
        table.prefix_share(),
        table.prefill_linear,
        table.prefill_attention,
        table.prefill_time,
        table.decode_time,
    ]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
