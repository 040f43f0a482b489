"""The columns that a best cluster can hold: bounds, a first good cluster, and what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.candidates.cells import MOST_LISTED, Cells
from planner.candidates.combinations import some_combinations
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Search, roomy
from planner.candidates.serving_points import aggregated_points, column_points
from planner.search.branch import Branch
from planner.search.columns import Columns
from planner.search.first_plan import try_plans
from planner.search.known import TIE, Composition
from planner.search.room import Room
from planner.search.solution import MOST_PAIRS
from planner.search.two_pools import TwoPools


@dataclass(frozen=True)
class Found:
    """What branch and bound leaves to compose a cluster of."""

    search: Search
    goal: Goal
    limits: Limits
    room: Room
    columns: Columns
    known: Composition | None
    open_value: float
    """No plan with anything that wasn't looked at has a lower value; infinite where all was."""
    considered: int
    """Operating points of the space."""
    priced: int
    """Points with cells of combinations that were bounded."""

    @property
    def complete(self) -> bool:
        """Nothing was left out that could be better than the plan that is known."""
        known = math.inf if self.known is None else self.known.value
        return self.open_value >= known * (1.0 - TIE)


def find_columns(
    search: Search,
    goal: Goal,
    limits: Limits,
    room: Room,
    *,
    first: bool = False,
    tolerance: float = 0.0,
    ends_s: float = math.inf,
    most_pairs: int = MOST_PAIRS,
) -> Found:
    """Bound every point, find a first good cluster, and list what a better one can hold.

    Parameters
    ----------
    search
        The space, without what exceeds the quality budget.
    goal, limits, room
        What is minimised, what must hold, and the GPUs.
    first
        Any plan is enough: once one is found nothing is narrowed further.
    tolerance
        Columns for plans that are worse by such a share are listed too, as they may be simpler.
    ends_s
        When to stop, on the monotonic clock [s].
    most_pairs
        When to stop, in pairs of points and cells that are bounded.
    """
    problem, space = search.problem, search.space
    cells = Cells(problem, space, some_combinations(problem, space, MOST_LISTED))
    branch = Branch(search, cells, goal, limits, room, (ends_s, most_pairs), first=first, tolerance=tolerance)
    points = aggregated_points(search)
    considered = len(points)
    points = column_points(search, points)
    branch.add(points.take(roomy(search, points, cells.by_weights())))
    try_plans(branch)
    branch.narrow()
    if space.disaggregated and not (first and branch.known):
        pools = TwoPools(branch)
        count = pools.begin()
        considered += count
        if count:
            pools.narrow()
            pools.expand()
            branch.narrow()
    branch.simplify()
    branch.drop()
    return Found(search, goal, limits, room, branch.columns, branch.known, branch.open_value, considered, branch.priced)
