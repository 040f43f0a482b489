"""The limits of a request: one record for each says all that the program knows of it.

Whoever checks, explains, loosens, compares or prints limits reads these records. A new limit on a metric
that plans have is a record here and a field of the request.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

UNLIMITED_LOSS = 0.999
"""A loss that nobody would accept: the quality budget counts as lifted [fraction]."""
MOST_LOSS = 0.25
"""Nobody accepts more: where a budget's worth is asked, it ends here [fraction]."""
SLACK = 1e-9
"""Relative: differences below this are rounding of floats, not of a plan."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of limits, and how they are written and loosened in it."""

    name: str
    """As the metrics' names end: ``s``; empty for a count or a share."""
    text: Callable[[float], str]
    """As one types it: ``200ms``, ``5%``, ``20``."""
    more: Callable[[float], float | None]
    """The next amount worth asking for; None: there is none."""
    step: float
    """Smallest difference that is told when the least sufficient amount is sought."""
    step_text: Callable[[float], str]
    """A number of steps as one types them, each of them visible."""
    most_steps: int
    """No limit is larger [steps]."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a request."""

    field: str
    """Of the request; the option is the same with dashes."""
    unit: Unit
    metrics: tuple[str, ...]
    """Metrics of a plan that it holds for, each a row of the plan's constraints with the metric's name."""
    example: str
    help: str
    """One line for ``--help``."""
    personal: int
    """What is lifted first when limits clash: the least personal."""
    of_options: bool = False
    """Whether it is a matter of the techniques chosen, and not of what a priced candidate gives."""
    at_least: bool = False
    """Whether metrics may not be below it."""
    holds_in: Literal["service", "cluster"] = "service"
    """Whether each service keeps it by itself, or the metric adds up over the cluster."""
    lifted: float | None = None
    """What the request has without it."""
    beyond: Callable[[float], float | None] = lambda amount: None
    """As much as anybody asks for, where its worth is sought; None: no limit at all."""
    goal: str = ""
    """The goal of the plan that is furthest on the right side of it (`planner.candidates.goal`)."""
    candidates: tuple[str, ...] = ()
    """What priced candidates call those metrics, where another name; empty: the same."""
    per_gpu: str | None = None
    """Where each GPU that a plan uses adds to the metric by a fact of it: the fact's name."""

    @property
    def priced(self) -> tuple[str, ...]:
        """Its metrics as priced candidates call them (`planner.cost.price.Priced`)."""
        return self.candidates or self.metrics

    @property
    def option(self) -> str:
        """``--max-latency``."""
        return f"--{self.field.replace('_', '-')}"

    def amount(self, request: object) -> float | None:
        """What a request allows, in SI units; None: it has no such limit."""
        value: float | None = getattr(request, self.field)
        return value

    def typed(self, amount: float | None) -> str:
        """Option and amount: ``--max-latency 200ms``; ``no --max-latency`` without one."""
        return f"no {self.option}" if amount is None else f"{self.option} {self.unit.text(amount)}"

    def step(self, hardware: object) -> float:
        """Smallest difference worth telling when the least sufficient amount is sought: what one GPU adds."""
        return self.unit.step if self.per_gpu is None else float(getattr(hardware, self.per_gpu))

    def more(self, amount: float, hardware: object) -> float | None:
        """The next amount worth asking for: that of one GPU more, where GPUs add up; None: there is none."""
        if self.per_gpu is None:
            return self.unit.more(amount)
        return (self.gpus(amount, hardware) + 1) * self.step(hardware)

    def gpus(self, amount: float, hardware: object) -> int:
        """How many GPUs an amount allows, where GPUs add up."""
        return math.floor(amount / self.step(hardware) * (1.0 + SLACK))

    def slack(self, amount: float, value: float) -> float:
        """How far a metric is on the right side of an amount; negative where it is beyond."""
        return value - amount if self.at_least else amount - value

    def taken(self, amount: float, metrics: Any) -> float:
        """The tightest amount that a plan's metrics keep."""
        values = [metrics.named(name) or 0.0 for name in self.metrics]
        if self.at_least:
            return float(max(1, min(math.floor(min(values)), amount)))
        return float(max(values))


def seconds_text(value: float) -> str:
    """A limit on a time as one would type it, without rounding: ``200ms``, ``1.5s``.

    >>> seconds_text(0.2), seconds_text(1.5), seconds_text(0.0005)
    ('200ms', '1.5s', '0.5ms')
    """
    return f"{value * 1e3:.9g}ms" if 0 < value < 1.0 else f"{value:.9g}s"


def milliseconds_text(count: float) -> str:
    """Whole milliseconds as one would type them, each of them visible.

    >>> milliseconds_text(231), milliseconds_text(83412)
    ('231ms', '83.412s')
    """
    return f"{count:.0f}ms" if count < 10_000 else f"{count / 1000:.3f}s"


def _more_time(limit: float) -> float:
    """Ten milliseconds more, or for limits of seconds a tenth [s]."""
    return round(limit + 0.01, 6) if limit < 1.0 else round(limit * 1.1, 3)


_SECONDS = Unit("s", seconds_text, _more_time, 1e-3, milliseconds_text, 10**12)
_SHARE = Unit(
    name="",
    text=lambda value: f"{value * 100:g}%",
    more=lambda value: round(min(value + 0.01, UNLIMITED_LOSS), 6),
    step=1e-3,
    step_text=lambda tenths: f"{tenths / 10:g}%",
    most_steps=999,
)
_USERS = Unit(
    name="",
    text=lambda value: f"{value:.0f}",
    more=lambda value: value - 1 if value > 1 else None,
    step=1.0,
    step_text=lambda count: f"{count:.0f}",
    most_steps=10**9,
)


def watts_text(value: float) -> str:
    """A limit on power as one would type it, without rounding: ``700W``, ``2.8kW``.

    >>> watts_text(700), watts_text(2800)
    ('700W', '2.8kW')
    """
    return f"{value / 1e3:.9g}kW" if value >= 1e3 else f"{value:.9g}W"


_WATTS = Unit(
    name="W",
    text=watts_text,
    more=lambda value: round(value * 1.1, 3),
    step=1.0,
    step_text=watts_text,
    most_steps=10**6,
)


def _time(field: str, metric: str, priced: str, personal: int, example: str, help_text: str) -> Limit:
    return Limit(field, _SECONDS, (metric,), example, help_text, personal, goal=priced, candidates=(priced,))


LIMITS = (
    _time(
        *("max_latency", "itl_full_s", "tpot_s", 5, "200ms"),
        "Limit on the time per output token in the worst interleaved step: 200ms.",
    ),
    _time(
        *("max_ttft", "ttft_full_s", "ttft_cold_s", 4, "30s"),
        "Limit on the time to the first token of a new session: 30s.",
    ),
    _time(
        *("max_warm_ttft", "warm_ttft_full_s", "ttft_warm_s", 3, "2s"),
        "Limit on the time to the first token of a later question: 2s.",
    ),
    _time("max_switch", "switch_s", "switch_s", 2, "5s", "Limit on one cache out and one in: 5s."),
    Limit(
        field="max_quality_loss",
        unit=_SHARE,
        metrics=("quality_loss_mean", "quality_loss_at_confidence"),
        example="5%",
        help="Quality that compression may cost [5%].",
        personal=0,
        of_options=True,
        lifted=UNLIMITED_LOSS,
        beyond=lambda amount: max(MOST_LOSS, min(2.0 * amount, UNLIMITED_LOSS)),
        goal="quality",
    ),
    Limit(
        field="users",
        unit=_USERS,
        metrics=("users",),
        example="20",
        help="Users to serve at least.",
        personal=6,
        at_least=True,
        holds_in="cluster",
        beyond=lambda amount: 1,
        goal="users",
    ),
    Limit(
        field="max_power",
        unit=_WATTS,
        metrics=("power_w",),
        example="2kW",
        help="Limit on the board power of the GPUs in use, all together: 2kW, 700W.",
        personal=1,
        holds_in="cluster",
        goal="gpus",
        per_gpu="tdp",
    ),
)
"""Every limit, in the order of a plan's constraints."""

LEAST_PERSONAL_FIRST = tuple(sorted(LIMITS, key=lambda limit: limit.personal))
"""The same in the order in which clashes are sought."""

TIMES = tuple(limit for limit in LIMITS if limit.unit is _SECONDS)
"""Limits on times."""

BY_FIELD = {limit.field: limit for limit in LIMITS}
"""Field of the request -> its limit."""

BY_METRIC = {metric: limit for limit in LIMITS for metric in limit.metrics}
"""Name of a constraint's row -> its limit."""

BY_PRICED = {name: limit for limit in LIMITS for name in limit.priced}
"""What priced candidates call a metric -> its limit."""


SPARE_REPLICAS = "spare_replicas"
"""The row that something is left after a loss, where nothing is."""


def is_floor(row: str) -> bool:
    """Whether a constraint's row says the least that is allowed, and not the most."""
    return row == SPARE_REPLICAS or (row in BY_METRIC and BY_METRIC[row].at_least)


def limits_of(request: object) -> list[tuple[Limit, float]]:
    """The limits that a request has, with their amounts."""
    return [(limit, amount) for limit in LIMITS if (amount := limit.amount(request)) is not None]


def asked(limit: Limit, amount: float) -> Any:
    """An amount as the request's field takes it: users are whole."""
    return int(amount) if limit.unit is _USERS else amount
