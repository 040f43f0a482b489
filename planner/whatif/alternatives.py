"""Each choice of a plan against the best plan without it."""

from __future__ import annotations

from typing import Literal

from planner.candidates.combinations import affordable
from planner.decision import Decision
from planner.service import Service
from planner.space import open_space
from planner.whatif.asking import Answer, Solver
from planner.whatif.attribution import part_change
from planner.whatif.compared import Change
from planner.whatif.explained import Alternative
from planner.whatif.forbid import Forbidden, without_choices
from planner.whatif.parts import differing

TIE = 1e-6
"""Relative: what is closer than this is no better."""


def alternatives(solver: Solver, decision: Service, now: float) -> list[Alternative]:
    """Solve again without each choice that the space has an alternative to.

    Parameters
    ----------
    solver
        Asked.
    decision
        The plan's.
    now
        Its objective.
    """
    space = affordable(solver.problem, open_space(solver.problem))
    found = without_choices(space, decision)
    rows: list[Alternative] = []
    for row in found:
        if row.technique is not None and not _takes(rows[-1].decision, row.part, row.technique):
            continue  # The best plan without that strength is without the technique already.
        answer = solver.solve(row.space, f"the best plan without {row.without}")
        rows.append(_row(solver, row, answer, decision, now))
    return rows


def _takes(decision: Decision | None, dimension: str, technique: str) -> bool:
    services = () if decision is None else decision.services
    return any(getattr(service.compression, dimension).technique == technique for service in services)


def _row(solver: Solver, row: Forbidden, answer: Answer, decision: Service, now: float) -> Alternative:
    loss = solver.loss(now, answer.value)
    other = answer.evaluation.decision if answer.evaluation is not None else None
    changes: tuple[Change, ...] = ()
    if other is not None:
        mine, others = (decision,), other.services
        changes = tuple(part_change(part, mine, others) for part in differing(mine, others))
    status: Literal["optimal", "feasible", "infeasible", "undecided", "better"] = answer.status
    if loss is not None and loss < -TIE:
        status = "better"
    return Alternative(
        part=row.part,
        choice=row.choice,
        without=row.without,
        status=status,
        value=answer.value,
        loss=loss,
        decision=other,
        changes=changes,
    )
