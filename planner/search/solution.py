"""What a search comes to: kinds of replicas, and how sure it is that nothing is better."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from catalog.units import parse_quantity
from planner.candidates.points import Points, Search
from planner.errors import InputError
from planner.search.known import TIE
from planner.space import Option

MOST_PAIRS = 3_000_000
WORKERS = 2
SEED = 0

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True)
class Settings:
    """How a search runs."""

    time_limit_s: float = 60.0
    workers: int = WORKERS
    """Of CP-SAT."""
    seed: int = SEED
    first: bool = False
    """Any plan will do: only whether there is one is asked."""
    most_pairs: int = MOST_PAIRS
    """Operating points with combinations that are bounded at most: work, which a busy machine has as much of."""


def read_settings(time_limit: str, workers: int, seed: int) -> Settings:
    """Settings as the command line gives them.

    Raises
    ------
    InputError
        If the time limit is no duration.
    """
    try:
        seconds = parse_quantity(time_limit, "seconds")
    except ValueError as error:
        raise InputError(f"--time-limit: {error}") from None
    if seconds <= 0:
        raise InputError("--time-limit: must be more than nothing; write for example 10s")
    return Settings(seconds, workers, seed)


@dataclass(frozen=True)
class Kind:
    """Replicas of one kind, or a prefill and a decode pool."""

    points: Points
    """One row, with all replicas."""
    options: tuple[Option, ...]
    engine: str


@dataclass(frozen=True)
class Solution:
    """What was chosen, and how sure that is."""

    status: Status
    search: Search
    kinds: tuple[Kind, ...] = ()
    """The largest promise first; none without a plan."""
    value: float | None = None
    """Of the goal, as the cost model prices the choice."""
    best: float | None = None
    """Of the best plan that was found; the chosen one is within the tolerance of it."""
    bound: float | None = None
    """No decision of the space has a lower value."""
    chosen_by: Literal["optimum", "tolerance", "time"] = "optimum"
    """Why this plan and not the best."""
    considered: int = 0
    """Operating points of the space."""
    size: dict[str, int] = field(default_factory=dict)
    """Columns, variables and rows of what OR-Tools chose among."""
    by: str = "cpsat"
    """Who composed it: CP-SAT, or ``rules`` where that failed; ``exhaustive`` and ``frontier`` are others' answers."""
    fault: str = ""
    """What went wrong on the way to it, for the user to know; nothing as a rule."""


def status_of(value: float, bound: float) -> Literal["optimal", "feasible"]:
    """Whether a value is proved by a bound: values that differ by less than `TIE` are equal.

    >>> status_of(1.0, 1.0 - 1e-10), status_of(1.0, 0.99)
    ('optimal', 'feasible')
    """
    return "optimal" if bound >= value * (1.0 - 2.0 * TIE) - 1e-12 else "feasible"
