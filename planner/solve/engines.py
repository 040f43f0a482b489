"""Which engines run a point with some options, and what of the rules' conditions holds for it."""

from __future__ import annotations

from catalog.schema import Engine
from planner.solve.points import Points, Search
from planner.space import Option


def engines_of(search: Search, points: Points, row: int, options: tuple[Option, ...]) -> tuple[Engine, ...]:
    """Engines that run a point with these options, the most capable first; those that throttle alone if any does."""
    unit, policy, pool = int(points.unit[row]), int(points.policy[row]), int(points.pool_unit[row])
    holds = conditions_of(search, unit, policy, pool)
    forbidden = search.space.compatibility.conditions
    if any((option.id, condition) in forbidden for option in options for condition in holds):
        return ()
    found = search.engines(unit, policy, options, pools=pool >= 0)
    if pool >= 0:
        also = search.engines(pool, policy, options, pools=True)
        found = tuple(engine for engine in found if engine in also)
    throttling = tuple(engine for engine in found if engine.long_prefill_throttle)
    return throttling or found


def conditions_of(search: Search, unit: int, policy: int, pool: int) -> set[str]:
    """Which of the conditions that rules speak of hold for a point."""
    holds = set()
    if search.units[unit].split.tp > 1 or (pool >= 0 and search.units[pool].split.tp > 1):
        holds.add("tensor_parallel")
    if search.space.policies[policy].policy == "swap":
        holds.add("offload")
    if pool >= 0:
        holds.add("disaggregated")
    return holds
