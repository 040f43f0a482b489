"""Price one service for one problem, and check it against every limit of the request.

The same functions price what a user wrote by hand, what the search chose, and what `verify` checks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.cost.price import Candidates, Setting, price
from planner.cost.session import BOUNDS
from planner.efficiency import ends_of, measured_notes
from planner.plan import Constraint
from planner.price.candidates import candidates_of, kv_bytes_per_session, opened
from planner.price.constraints import constraints_of
from planner.price.figures import FULL, Figures, figures_of
from planner.price.read_service import complete, read_service
from planner.price.reserve import reserve_notes, reserve_of
from planner.problem import Problem
from planner.run_notes import run_notes
from planner.service import Batch, Service


@dataclass(frozen=True, slots=True)
class PricedService:
    """One priced service."""

    service: Service
    """As completed: nothing left out."""
    batch: Batch
    """What is priced of the batch of the replicas that decode: their caps, as far as sessions fit under them."""
    figures: Figures
    constraints: tuple[Constraint, ...]
    bounded_by: str
    assumptions: tuple[str, ...]
    ends: tuple[Figures, ...]
    """The figures with every time at either end of its 80 % interval; empty at theoretical peak."""

    @property
    def violated(self) -> tuple[Constraint, ...]:
        """Limits that the service breaks."""
        return tuple(c for c in self.constraints if c.slack < 0)


def price_service(problem: Problem, service: Service, *, as_written: bool = False) -> PricedService:
    """Price a service; what it leaves out is completed and said.

    Decoding sequences and resident sessions are caps: what fits under them is priced, and said where it is less.

    Parameters
    ----------
    problem, service
        What is asked, and what is priced.
    as_written
        Price so many sequences and sessions as the service says, and nothing where they don't fit.

    Raises
    ------
    InputError
        With every reason why the service makes no sense for this model and these GPUs. One that makes
        sense but breaks a limit, or doesn't fit, is priced.
    """
    assumptions: list[str] = []
    completed = complete(problem, service, assumptions)
    read = read_service(problem, completed)
    setting, pools, batch = opened(problem, read, assumptions, as_written=as_written)
    reserve = reserve_of(problem, completed)
    candidates = candidates_of(read, batch, reserve)
    kept = kv_bytes_per_session(problem, setting.compression)
    settings = (setting, *(ends_of(setting, problem, completed.engine) or ()))
    priced = [price(one, candidates, pools if one is setting else None) for one in settings]
    figures, *ends = (
        figures_of(problem, completed, read.loss, one, found, kept, reserve)
        for one, found in zip(settings, priced, strict=True)
    )
    bounded_by = BOUNDS[int(priced[0].bound[FULL])]
    assumptions += reserve_notes(problem, completed, reserve) + run_notes(problem, completed)
    assumptions += measured_notes(problem, completed.engine) + _turns_note(problem, completed, figures)
    constraints = (*constraints_of(problem, completed, figures, bounded_by), *reserve.broken)
    return PricedService(completed, batch, figures, constraints, bounded_by, tuple(assumptions), tuple(ends))


def priced_setting(problem: Problem, service: Service) -> tuple[Setting, Candidates]:
    """What `price_service` hands to the cost model for a complete service: one candidate, and its setting.

    Raises
    ------
    InputError
        As `price_service`.
    """
    read = read_service(problem, service)
    setting, _, batch = opened(problem, read, [], as_written=False)
    return setting, candidates_of(read, batch, reserve_of(problem, service)).take(np.array([FULL]))


def _turns_note(problem: Problem, service: Service, figures: Figures) -> list[str]:
    """Where sessions take turns on a replica, how long a question may wait for another session's turn."""
    alone = service.serving == "aggregated" and figures.itl_full_s == figures.step_s
    promised = service.parallel.replicas - figures.reserve.main
    if not alone or service.offload.policy == "none" or figures.users <= promised:
        return []
    turn = figures.ttft_full_s + problem.request.output_tokens * figures.step_s
    return [
        "sessions take turns on a replica, as no step may hold a foreign prefill chunk or only one session fits; a "
        f"question in another's turn waits for its end, up to {turn:.3g} s, which latencies here leave out"
    ]
