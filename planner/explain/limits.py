"""The limits of a request in the user's words, and what it means to lift one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.plan import Relaxation
from planner.request import Request

TIMES = {
    "max_switch": "switch_s",
    "max_warm_ttft": "ttft_warm_s",
    "max_ttft": "ttft_cold_s",
    "max_latency": "tpot_s",
}
"""Limit on a time -> the goal that minimises it, and the constraint's name."""

UNLIMITED_LOSS = 0.999
"""A loss that nobody would accept: the quality budget counts as lifted [fraction]."""


@dataclass(frozen=True)
class Limit:
    """A limit as the user wrote it, and what the request is without it."""

    field: str
    option: str
    shown: str
    lifted: dict[str, Any]

    @property
    def text(self) -> str:
        """Option and amount: ``--max-latency 200ms``."""
        return f"{self.option} {self.shown}"

    def row(self, to: str | None, note: str | None = None) -> Relaxation:
        """What this limit would have to be; None: it can't repair the request alone."""
        return Relaxation.model_validate({"limit": self.option, "from": self.shown, "to": to, "note": note})


def limits_of(request: Request) -> list[Limit]:
    """The limits and restrictions that a request states, the least personal first.

    ``--techniques deployable`` isn't among them: what no engine ships can't be deployed. A list of
    techniques is.
    """
    found = [
        _limit("max_quality_loss", f"{request.max_quality_loss * 100:g}%", UNLIMITED_LOSS),
        _limit("techniques", request.techniques, "published"),
        _limit("engine", request.engine, "any"),
        _limit("weights", request.weights, "any"),
    ]
    found = [limit for limit in found if limit.shown not in ("any", "deployable", "published")]
    for field in TIMES:
        value = getattr(request, field)
        if value is not None:
            found.append(_limit(field, seconds_text(value), None))
    if request.users is not None:
        found.append(_limit("users", str(request.users), None))
    return found


def _limit(field: str, shown: str, lifted: object) -> Limit:
    return Limit(field, f"--{field.replace('_', '-')}", shown, {field: lifted})


def deployable(request: Request) -> Limit | None:
    """The default choice of techniques, which published ones could repair; None where another is asked for."""
    return _limit("techniques", "deployable", "published") if request.techniques == "deployable" else None


def without(request: Request, limits: Sequence[Limit]) -> Request:
    """The request with some limits lifted."""
    changes: dict[str, Any] = {}
    for limit in limits:
        changes.update(limit.lifted)
    return request.model_copy(update=changes)


def seconds_text(value: float) -> str:
    """A limit on a time as one would type it, without rounding: ``200ms``, ``1.5s``.

    >>> seconds_text(0.2), seconds_text(1.5), seconds_text(0.0005)
    ('200ms', '1.5s', '0.5ms')
    """
    return f"{value * 1e3:.9g}ms" if value < 1.0 else f"{value:.9g}s"


def milliseconds_text(count: int) -> str:
    """Whole milliseconds as one would type them, each of them visible.

    >>> milliseconds_text(231), milliseconds_text(83412)
    ('231ms', '83.412s')
    """
    return f"{count}ms" if count < 10_000 else f"{count / 1000:.3f}s"
