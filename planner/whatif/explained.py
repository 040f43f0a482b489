"""Why a plan is as it is, as ``plan explain --format json`` prints it (``planner/schema/explain.json``)."""

from __future__ import annotations

from typing import Literal

from planner.decision import Decision
from planner.plan import Document
from planner.whatif.compared import Change, Part

EXPLAIN_SCHEMA_VERSION = 2


class Alternative(Part):
    """The best plan without one of the choices."""

    part: str
    """Part of the decision, as in `Change`."""
    choice: str
    """What was chosen, in words: ``engine vllm``."""
    without: str
    """What the solver wasn't allowed to choose."""
    status: Literal["optimal", "feasible", "infeasible", "undecided", "better"]
    """``feasible``: a plan that may not be the best one without it. ``better``: it beats the plan."""
    value: float | None
    """Of the objective; None where there is no plan, or none was found in time."""
    loss: float | None
    """Share of the objective that is lost; at most so much where ``status`` is feasible."""
    decision: Decision | None
    changes: tuple[Change, ...]
    """What else differs from the plan."""


class CurvePoint(Part):
    """The best plan at one value of a limit, with all other limits as they are."""

    limit: float
    """In the limit's own unit; for GPUs and memory their amount."""
    text: str
    """As one would type it."""
    value: float
    """Of the objective."""
    taken: float
    """What that plan takes of the limit."""
    proved: bool
    """False: at least so good."""


class Next(Part):
    """What binds after a limit stopped helping: asked by relaxing it there."""

    name: str
    change: str
    gain: float
    """Share by which the objective gets better still."""
    proved: bool


class LimitPrice(Part):
    """What a limit costs."""

    name: str
    """Of the constraint."""
    now: str
    """Option and amount."""
    amount: float | None
    """None for a restriction such as ``--engine vllm``."""
    lifted: str
    """What was asked instead: without it, or a multiple."""
    status: Literal["helps", "nothing", "undecided"]
    gain: float | None
    """Share by which the objective gets better when it is lifted."""
    proved: bool
    """False: at least so much."""
    curve: tuple[CurvePoint, ...]
    """Sorted from the value now to the most relaxed one; the plan itself is the first point."""
    until: float | None
    """From this value on, less than 0.1 % more is gained; None where it helps to the end, or wasn't decided."""
    until_text: str | None
    not_yet: float | None
    """The largest value asked at which that isn't reached: ``until`` is exact up to here."""
    followed: bool
    """False: time ran out before it was known where it stops helping."""
    next: Next | None
    next_decided: bool
    """False: time ran out before it was known what binds next, or that nothing else does."""


class Phase(Part):
    """Prefill or decode on the roofline: one GPU of the busiest pipeline stage."""

    name: Literal["prefill", "decode"]
    flops: float
    bytes: float
    seconds: float
    intensity: float
    """FLOPs for each byte of HBM."""
    balance: float
    """FLOPs that the GPU could do in the time of a byte: above it a phase is bound by compute."""
    bound: Literal["compute", "memory"]
    roofline_s: float
    """The least time that the peak allows [s]."""
    share_of_roofline: float
    share_of_flops: float
    share_of_bandwidth: float


class Spent(Part):
    """Part of the quality budget that one choice takes, on the scale where losses add."""

    part: str
    """Dimension, ``weights``, or ``together`` for what a pair costs on top."""
    choice: str
    mean: float
    """``-ln(1 - mean loss)``."""
    spread: float
    """Its share of ``z sqrt(sum of variances)``, by its variance."""
    share: float | None
    """Of the budget; None where the budget is nothing."""


class Budget(Part):
    """The quality budget."""

    budget: float
    """``-ln(1 - --max-quality-loss)``."""
    spent: tuple[Spent, ...]
    unspent: float


class DimensionRow(Part):
    """The four metrics of the best plan with some of the compression; caps and chunks are what is best with it."""

    name: str
    choice: str
    fits: bool
    decode_sequences: int
    """That is best with it."""
    concurrency: int
    prefill_s: float
    decode_s: float
    switch_s: float
    interactions_per_hour: float


class Explanation(Part):
    """Everything that is told of a plan."""

    schema_version: int = EXPLAIN_SCHEMA_VERSION
    plan: Document
    holds: bool
    """Whether every number of the plan is what the facts of today give."""
    notes: tuple[str, ...]
    metric: str
    value: float
    """Of the plan's decision, as it is priced now."""
    choices: tuple[Alternative, ...]
    limits: tuple[LimitPrice, ...]
    roofline: tuple[Phase, ...]
    quality: Budget
    dimensions: tuple[DimensionRow, ...]
    """Uncompressed, each dimension alone, and all together."""
    undecided: tuple[str, ...]
    """What wasn't decided in the time."""
